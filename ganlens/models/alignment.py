"""Whether a layer's cells lie where the image shows what they draw: what crops, pads or turns the image moves them."""

import numpy as np
import torch

from ganlens.borrowed import borrowed, call
from ganlens.models.base import Generator
from ganlens.models.opened import copied
from ganlens.models.wrapping import at, tensors_in

BLOCKS = 4  # parts of the rows, and of the columns, that are changed one after the other
FELT = 0.1  # times the largest change: what is less says nothing of where it is
SLOPES = 0.6, 1.6  # how fast the change may move over the image, in units of how fast the cells do
NEAR_ENOUGH = 0.06  # of the image, by which an output may shift it
LOCAL = 0.25  # times the largest change of a pixel
PATCHES = (0.25, 0.25), (0.75, 0.75), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25)  # of the image, which are changed
FAR = 0.25  # of the image, from where the middle of the cells should be


def check_alignment(generator: Generator, layer: str) -> None:
    """ValueError where a layer's cells clearly lie elsewhere than under the pixels that they change.

    Looked at are networks with an ``output=`` of the user, which is tried by itself: that tells even a few pixels.

    A layer that changes the whole image, wherever it is changed itself, is let pass: it has no places.
    """
    _, height, width = generator.check_layer(layer)
    known = generator._known.aligned
    if not generator.free_output or layer in known:
        return
    if check_output(generator):
        known.add(layer)
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
def check_output(generator: Generator) -> bool:
    """ValueError where a user's output shows what the network draws in another place; False where nothing tells."""
    with borrowed(generator.net):
        raw = call(generator.net, generator._arguments(generator.latents([0, 1])))
    path = next((path for path, x in tensors_in(raw) if x.ndim == 4 and min(x.shape[2:]) >= 2 * BLOCKS), None)
    if path is None:
        return False
    whole, found = generator._output(copied(raw, 1)), []
    for patch in PATCHES:
        other = copied(raw, 1)
        part = at(other, path)
        sides = part.shape[2:]
        spans = [slice(int((p - 0.06) * n), int((p + 0.06) * n) + 1) for p, n in zip(patch, sides, strict=True)]
        part[:, :, spans[0], spans[1]] = torch.where(part[:, :, spans[0], spans[1]] > 0, -0.8, 0.8)
        change = (generator._output(other) - whole).square().sum((0, 1)).double().cpu().numpy()
        change *= change > LOCAL * change.max()  # what scales the whole image changes the rest a little
        if change.max() > 0:
            exact = [(span.start + span.stop) / 2 / n for span, n in zip(spans, sides, strict=True)]
            found.append([*exact, centre(change.sum(1)), centre(change.sum(0))])
    y, x, new_y, new_x = np.array(found).reshape(-1, 4).T
    for name, old, new in (("rows", y, new_y), ("columns", x, new_x)):
        if len({*old.round(2)}) < 2:
            return False  # too little of it is shown to tell
        slope, start = np.polyfit(old, new, 1)
        if max(abs(start), abs(start + slope - 1)) > NEAR_ENOUGH or np.abs(start + slope * old - new).max() > FAR:
            raise ValueError(
                f"output= of {generator.name} shows the network's {name} 0 … 100% at {start:.0%} … {start + slope:.0%} "
                "of the image: cells of its layers would be compared with other places. Crop, pad, flip and turn "
                "images elsewhere: wrap the network with an output of all that it draws, or scaled"
            )
    return True


@torch.no_grad()
def changed_places(generator: Generator, layer: str, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the image changes with each block of a layer's rows (axis 2) or columns (3), and whether it is felt.

    The centres of the change are shares of the image, along the axis and across.
    """
    with borrowed(generator.net):
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
