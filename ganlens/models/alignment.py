"""Whether a layer's cells lie where the image shows what they draw: what crops, pads or turns the image moves them."""

import numpy as np
import torch

from ganlens.models.base import Generator

BLOCKS = 4  # parts of the rows, and of the columns, that are changed one after the other
FELT = 0.1  # times the largest change: what is less says nothing of where it is
SLOPES = 0.6, 1.6  # how fast the change may move over the image, in units of how fast the cells do
FAR = 0.25  # of the image, from where the middle of the cells should be


def check_alignment(generator: Generator, layer: str) -> None:
    """ValueError where a layer's cells clearly lie elsewhere than under the pixels that they change.

    Looked at is where users say what the image is, by a function of their own: what else should move it?

    A layer that changes the whole image, wherever it is changed itself, is let pass: it has no places.
    """
    _, height, width = generator.check_layer(layer)
    known = generator._known.aligned
    if not generator.free_output or layer in known:
        return
    for axis, name, cells in ((2, "rows", height), (3, "columns", width)):
        if cells < BLOCKS:
            continue
        places = (np.arange(BLOCKS) + 0.5) / BLOCKS
        centres, across, felt = changed_places(generator, layer, axis)
        if not (is_shifted(places[felt], centres[felt]) or is_turned(places[felt], across[felt])):
            continue
        k = int(np.flatnonzero(felt)[np.argmax(np.abs(centres - places)[felt])])
        raise ValueError(
            f"{layer} of {generator.name}: its {name} at {places[k]:.0%} of the map change the image around "
            f"{centres[k]:.0%} of its {name}: units and concepts would be compared in different places. Does output=… "
            "crop, pad, flip or turn the image? Wrap the network with an output of all that it draws"
        )
    known.add(layer)


@torch.no_grad()
def changed_places(generator: Generator, layer: str, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the image changes with each block of a layer's rows (axis 2) or columns (3), and whether it is felt.

    The centres of the change are shares of the image, along the axis and across.
    """
    opened = generator._opened(layer, generator._arguments(generator.latents([0, 1])), whole=True)
    r = opened.features
    noise = torch.randn(r.shape, generator=torch.Generator().manual_seed(0)).to(r.device, r.dtype)
    other = r + noise * (r.std((0, 2, 3), keepdim=True) + 1e-6)
    centres, changes = [], []  # (BLOCKS, along and across)
    for block in torch.arange(r.shape[axis]).tensor_split(BLOCKS):
        index = block.to(r.device)
        part = r.index_copy(axis, index, other.index_select(axis, index))
        change = (opened.resume(part) - opened.output).square().sum((0, 1)).double().cpu().numpy()  # (Y, X)
        along, across = change.sum(3 - axis), change.sum(axis - 2)
        centres.append([centre(along), centre(across)])
        changes.append((along - along.min()).sum() + (across - across.min()).sum())
    return *np.array(centres).T, np.array(changes) >= FELT * max(*changes, 1e-12)


def centre(change: np.ndarray) -> float:
    """Where a change along a line lies, as a share of it; what changes everywhere does not count."""
    local = change - change.min()
    return float((local * (np.arange(len(local)) + 0.5)).sum() / (local.sum() * len(local))) if local.sum() else 0.5


def is_shifted(places: np.ndarray, centres: np.ndarray) -> bool:
    """Whether the centres of what changes are clearly not where the cells are; False where they hardly move."""
    if len(places) < 2:
        return bool(len(places) and np.abs(centres - places)[0] > FAR)
    slope, _ = np.polyfit(places, centres, 1)
    if abs(slope) < SLOPES[0] / 2:  # everything changes everything
        return False
    return not SLOPES[0] <= slope <= SLOPES[1] or abs((centres - places).mean()) > FAR


def is_turned(places: np.ndarray, across: np.ndarray) -> bool:
    """Whether what changes moves across the image as the cells go along."""
    return len(places) > 1 and bool(abs(np.polyfit(places, across, 1)[0]) > SLOPES[0])
