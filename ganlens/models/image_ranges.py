"""Ranges of images: what turns the values that a network returns into images in [-1, 1]."""

import math
import warnings
from collections.abc import Callable

import torch

from ganlens.images import palette

RANGES: dict[str, Callable] = {
    "[-1,1]": lambda x: x,
    "[0,1]": lambda x: 2 * x - 1,
    "tanh": torch.tanh,
    "sigmoid": lambda x: 2 * torch.sigmoid(x) - 1,
    "classes": lambda x: painted(x),
    "rgba": lambda x: over_white(x),
    "rgba in [0,1]": lambda x: over_white(2 * x - 1),
}
OUTPUTS = ("[-1,1]", "[0,1]", "tanh", "sigmoid", "classes", "rgba")
TOLERANCE = 0.05  # by which values may leave their range
NEAR, FAR, FEW = 0.1, 0.25, 0.05  # how far images trained to be in [0, 1] leave it: a few of their values go far
MANY = 0.25  # share of the values that may do so without a word


def range_given(output: str, known: str | None, values: torch.Tensor, name: str) -> tuple[str, str]:
    """The range that the user says; ValueError or a warning where it does not fit."""
    if output in ("tanh", "sigmoid") and known:
        raise ValueError(f"output={output!r}, but the values of {name} are in {known} already; leave output away")
    if output in ("[-1,1]", "[0,1]") and known and known != output:
        raise ValueError(f"output={output!r}, but the values of {name} are in {known} by the function they come from")
    if output == "classes" and values.shape[1] < 2:
        raise ValueError(f"output='classes', but {name} has {values.shape[1]} channel; expected one for each class")
    if output == "rgba":
        if values.shape[1] != 4:
            raise ValueError(f"output='rgba', but {name} has {values.shape[1]} channels; expected 4")
        return ("rgba in [0,1]" if known == "[0,1]" or (not known and values.min() >= 0) else "rgba"), "as you say"
    if output != "classes" and values.shape[1] not in (1, 3):
        raise ValueError(f"output={output!r}, but {name} has {values.shape[1]} channels; expected 1 or 3")
    if output == "[0,1]":
        warn_beyond(values, 0, 1, name)
    return output, "as you say"


def range_found(known: str | None, values: torch.Tensor, name: str) -> tuple[str, str]:
    """The range of the values, from the last function if that is sure, otherwise by looking at them."""
    if known:
        return known, "by the last function"
    low, high = values.min().item(), values.max().item()
    seen = f"values {low:.2f} … {high:.2f} in three images"
    if low >= 0 and 0.5 < high <= 1 and high - low > 0.25:
        return "[0,1]", f"{seen}; if that is wrong, give output='[-1,1]'"
    below, above = ((side).float().mean().item() for side in (values < 0, values > 1))
    near = (low >= -NEAR and high <= 1 + NEAR) or (low >= -FAR and high <= 1 + FAR and max(below, above) < FEW)
    if near and high > 0.5:
        warnings.warn(
            f"{name} gives {seen}, {below:.1%} of them below 0: taken for images in [0, 1] whose network has no last "
            "activation; give output='[0,1]' to say so, or output='[-1,1]' for very bright images",
            stacklevel=6,
        )
        return "[0,1]", f"guessed from {seen}"
    warn_beyond(values, -1, 1, name)
    return "[-1,1]", seen


def warn_beyond(values: torch.Tensor, low: float, high: float, name: str) -> None:
    """Warn where many values are outside of a range."""
    share = ((values < low - TOLERANCE) | (values > high + TOLERANCE)).float().mean().item()
    if share > MANY and not math.isnan(share):
        warnings.warn(
            f"{share:.0%} of the values of {name} are outside [{low}, {high}] (they reach from {values.min():.3g} to "
            f"{values.max():.3g}) and are clipped; give output='tanh' or 'sigmoid' if an activation is still to come, "
            "or a function such as output=lambda x: x / 127.5 - 1",
            stacklevel=6,
        )


def over_white(x: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, Y, X) in [-1, 1] of colours and opacity (N, 4, Y, X) in [-1, 1], laid over white."""
    opacity = ((x[:, 3:] + 1) / 2).clamp(0, 1)
    return x[:, :3].clamp(-1, 1) * opacity + (1 - opacity)


def painted(scores: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, Y, X) in [-1, 1] that show which of the channels of scores (N, C, Y, X) is the strongest."""
    colors = torch.from_numpy(palette(scores.shape[1])).to(scores.device, scores.dtype)
    return (colors[scores.argmax(1)] / 127.5 - 1).movedim(3, 1).clamp(-1, 1)
