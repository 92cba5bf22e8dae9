"""Intervals by bootstrap: values of resampled images, and what lies in their middle."""

import numpy as np

CONFIDENCE = 0.99  # of all intervals


def resamples(n: int, draws: int = 1000) -> np.ndarray:
    """How often each of n images is drawn in each of some bootstrap samples (draws, n), from a fixed seed."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), draws)


def middle_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the middle 99 % of bootstrapped values (draws, …); a nan counts as no draw."""
    tail = (1 - CONFIDENCE) / 2
    return np.nanquantile(values, tail, 0), np.nanquantile(values, 1 - tail, 0)


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums over counts, nan where the count is 0."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=np.asarray(counts) > 0)
