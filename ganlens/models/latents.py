"""What decides an image besides the network: seeds, latents, classes, settings."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real

import numpy as np
import torch

from ganlens.arguments import short_repr


def truncated_normal(random: np.random.RandomState, z_dim: int) -> np.ndarray:
    """Standard normal numbers, those outside of [-2, 2] drawn anew (Brock et al., ICLR 2019, section 3.1)."""
    z = random.standard_normal(z_dim)
    while (outside := np.abs(z) > 2).any():
        z[outside] = random.standard_normal(int(outside.sum()))
    return z


LAWS = {
    "normal": lambda random, z_dim: random.standard_normal(z_dim),
    "uniform": lambda random, z_dim: random.uniform(-1, 1, z_dim),
    "truncated": truncated_normal,  # by the setting of that name, too
}


def as_seeds(seeds: Iterable[int] | int) -> list[int]:
    """Seeds as a list of whole numbers in 0 … 2^32 - 1; ValueError otherwise."""
    if isinstance(seeds, range) and seeds and not all(0 <= end < 2**32 for end in (seeds[0], seeds[-1])):
        raise ValueError(f"{seeds}: a seed is outside 0 … 2^32 - 1")
    try:
        array = np.atleast_1d(np.asarray(list(seeds) if isinstance(seeds, Iterable) else seeds))
    except (TypeError, RuntimeError):  # tensors of numbers that numpy does not know
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"seeds {short_repr(seeds)}: expected whole numbers, at least one, for example range(8)")
    if array.min() < 0 or array.max() >= 2**32:
        raise ValueError(f"seed {array.min() if array.min() < 0 else array.max()} is outside 0 … 2^32 - 1")
    return array.tolist()


def drawn(seeds: Iterable[int] | int, z_dim: int, law: str) -> torch.Tensor:
    """Latents (N, Z) of seeds under a law, each decided by its seed alone."""
    rows = [LAWS[law](np.random.RandomState(seed), z_dim) for seed in as_seeds(seeds)]
    return torch.from_numpy(np.asarray(rows, np.float32))


def grown(batch: torch.Tensor) -> torch.Tensor:
    """A batch of an even number, so that an image is rounded alike alone and among any others."""
    return torch.cat([batch, batch[-1:]]) if len(batch) % 2 else batch


def scattered(z: torch.Tensor) -> torch.Tensor:
    """A whole number (N,) in 0 … 2^31 - 1 for each latent (N, Z), decided by its bits; the same on every machine."""
    bits = z.detach().float().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    mixed = torch.zeros(len(bits), dtype=torch.long, device=z.device)
    for column in bits.unbind(1):
        mixed = ((mixed ^ column) * 0x5BD1E995) & 0xFFFFFFFF  # the products stay below 2^63
        mixed = mixed ^ (mixed >> 15)
    return mixed & 0x7FFFFFFF


def check_class_labels(labels: torch.Tensor, n: int, classes: int) -> torch.Tensor:
    """Classes (N,), or weights (N, classes); ValueError if they are not."""
    if tuple(labels.shape) == (n, classes) and labels.dtype != torch.bool:
        return labels.float()
    whole = tuple(labels.shape) == (n,) and not labels.is_floating_point() and labels.dtype != torch.bool
    if not whole or (n and not 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(
            f"labels: expected whole numbers (N,) in 0 … {classes - 1}, one for each of {n} images, "
            f"or weights (N, {classes})"
        )
    return labels.long()


def check_class_label(value, classes: int) -> int | None:
    """A class as an int, or None for one by seed; ValueError if it is none of them."""
    if value is None:
        return None
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 0 <= value < classes:
        raise ValueError(f"label {value!r}: this generator has classes 0 … {classes - 1}; None is one for each seed")
    return int(value)


def check_truncation(value) -> float:
    """Psi as a float; ValueError if it is outside [0, 1]."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not 0 <= value <= 1:
        raise ValueError(f"truncation {value!r} is outside [0, 1]; 1 is none, 0.7 is usual")
    return float(value)


def titled(name: str, settings: Mapping) -> str:
    """A name with settings behind it.

    Examples
    --------
    >>> titled("church", {"truncation": 0.7}), titled("church", {})
    ('church (truncation 0.7)', 'church')
    """
    chosen = ", ".join(f"{key} {value:g}" for key, value in settings.items())
    return f"{name} ({chosen})" if chosen else name


def as_latents(z) -> torch.Tensor:
    """Latents (N, Z) as they are; ValueError for what is no batch of real numbers."""
    if not isinstance(z, torch.Tensor) or z.ndim < 2 or not z.is_floating_point() or not len(z):
        found = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, torch.Tensor) else type(z).__name__
        raise ValueError(f"latents: {found} given; expected a tensor (N, Z), as G.latents makes it")
    return z


def as_labels(labels) -> torch.Tensor | None:
    """Classes (N,) or weights (N, classes) as a tensor; ValueError for what can be none."""
    if labels is None:
        return None
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(())
    if not found.ndim:
        raise ValueError(f"labels: {short_repr(labels)} given; expected one class for each image, (N,), or weights")
    return found
