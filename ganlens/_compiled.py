"""The inner loops of counting and of searching, compiled by numba. Imported only when something is counted on a CPU.

Each function counts a range of units; threads share the work by units, so no two of them write to the same place.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numba import njit

compiled = njit(cache=True, nogil=True, fastmath=False)


def share_out(loop, units: int, *arguments) -> None:
    """Run ``loop(first, last, *arguments)`` over all units, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), units)
    bounds = np.linspace(0, units, threads + 1).astype(int)
    if threads == 1:
        return loop(0, units, *arguments)
    with ThreadPoolExecutor(threads) as pool:
        for result in [pool.submit(loop, a, b, *arguments) for a, b in pairwise(bounds)]:
            result.result()


@lru_cache(maxsize=64)
def sources(size: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear interpolation along one axis, as `torch.nn.functional.interpolate` does it.

    Returns
    -------
    weight : float32 array (target,)
        Weight of the second of the two cells that each target position reads.
    start : int array (size + 1,)
        Target positions ``start[i]`` … ``start[i + 1] - 1`` read cells i and i + 1.
    """
    position = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(size / target) - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), size - 1)
    weight = np.where(first < size - 1, position - first.astype(np.float32), 0).astype(np.float32)
    return weight, np.searchsorted(first, np.arange(size + 1))


def count_joint(
    features: torch.Tensor, planes: torch.Tensor, scale, marginal: torch.Tensor, counts: torch.Tensor
) -> None:
    """Add features (N, U, H, W) at pixels with columns ``planes`` (N, L, h, w) to (U, B) and (U, K, B).

    A column is -1 for none; -2 in the first plane is a pixel that is passed over.
    """
    r = features.detach().float().contiguous().numpy()
    height, width = planes.shape[2:]
    rows, columns = sources(r.shape[2], height), sources(r.shape[3], width)
    columns_at = planes.to(torch.int16).contiguous().numpy()
    check_tables(r, scale, counts[:, 0], marginal)
    if columns_at.min(initial=-1) < -2 or columns_at.max(initial=-1) >= counts.shape[1] or len(columns_at) != len(r):
        raise ValueError(f"columns {columns_at.min()} … {columns_at.max()} in a table of {counts.shape[1]}")
    tables = marginal.numpy(), counts.numpy()
    share_out(joint_loop, r.shape[1], r, columns_at, scale.low.numpy(), scale.slope.numpy(), *tables, *rows, *columns)


def count_levels(features: torch.Tensor, scale, counts: torch.Tensor, below: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Add all cells of features (N, U, H, W) to ``counts`` (U, B) and ``below`` (U,).

    Returns
    -------
    sums : Tensor (N, U), float64
    lowest, highest : Tensor (U,)
    """
    r = features.detach().float().contiguous().numpy()
    sums = np.empty(r.shape[:2])
    lowest, highest = np.full(r.shape[1], np.inf, np.float32), np.full(r.shape[1], -np.inf, np.float32)
    check_tables(r, scale, counts)
    if below.shape != counts.shape[:1]:
        raise ValueError(f"counts of shape {tuple(below.shape)} for {len(counts)} units")
    found = counts.numpy(), below.numpy(), sums, lowest, highest
    share_out(levels_loop, r.shape[1], r, scale.low.numpy(), scale.slope.numpy(), *found)
    return torch.from_numpy(sums), torch.from_numpy(lowest), torch.from_numpy(highest)


def add_up(counts: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Sums (U, K, M) of counts (U, K, B) from each of M bins (U, M) to the end."""
    table, order = counts.contiguous().numpy(), bins.argsort(1).numpy()
    if not 0 <= int(bins.min()) <= int(bins.max()) < table.shape[2] or len(bins) != len(table):
        raise ValueError(f"bins {int(bins.min())} … {int(bins.max())} of {len(bins)} units in counts {table.shape}")
    sums = np.empty((*table.shape[:2], bins.shape[1]), np.int64)
    share_out(sums_loop, len(table), table, bins.contiguous().numpy(), order, sums)
    return torch.from_numpy(sums)


def count_cells(means: torch.Tensor, highest: torch.Tensor, planes: torch.Tensor, cells, block: int) -> None:
    """Add means and maxima (N, U, P) and label columns (N, L, h, w) of one block's images to a `Cells`."""
    r, most = (part.detach().float().contiguous().numpy() for part in (means, highest))
    labels, places = planes.to(torch.int16).contiguous().numpy(), cells.place_of_pixel.numpy()
    known = len(labels), len(cells.sums), cells.shown.shape[2]
    if r.shape != most.shape or r.shape != known or labels.shape[2:] != places.shape:
        raise ValueError(f"features {r.shape} and labels {labels.shape} in tables of {known}, {places.shape}")
    each = int(np.bincount(places.ravel()).max()) * labels.shape[1]
    found = np.zeros((len(labels), known[2], min(each, cells.concepts), 2), np.int32)
    many, counted = (np.zeros(found.shape[:2], np.int32) for _ in range(2))
    pixels = cells.pixels.numpy(), cells.pixels_squared.numpy(), cells.shown[block].numpy()
    labels_loop(labels, places, cells.concepts, found, many, counted, *pixels)
    scale = cells.scale
    limits = scale.low.numpy(), scale.slope.numpy(), np.float32(scale.bins), cells.thresholds.numpy()
    tables = [getattr(cells, name).numpy() for name in ("sums", "squares", "dots", "ranked", "ranked_all")]
    in_block = cells.on[block].numpy(), cells.both[block].numpy()
    share_out(cells_loop, known[1], r, most, found, many, counted, *limits, *tables, *in_block)


def check_tables(r: np.ndarray, scale, *tables: torch.Tensor) -> None:
    """ValueError unless scale and tables (U, B) are for the units of features; the loops look up without checking."""
    shapes = [tuple(scale.low.shape), tuple(scale.slope.shape), *(tuple(table.shape) for table in tables)]
    expected = [(r.shape[1],)] * 2 + [(r.shape[1], tables[0].shape[1])] * len(tables)
    if shapes != expected or not tables[0].shape[1]:
        raise ValueError(f"scale and tables of shapes {shapes} for {r.shape[1]} units: expected {expected}")


@compiled
def joint_loop(begin, end, r, planes, lows, slopes, marginal, counts, wy, row_start, wx, column_start):
    """Interpolate and count only where at least one of the four cells around exceeds the low end of the scale."""
    images, _, height, width = r.shape
    last = np.float32(counts.shape[2] - 1)
    hot = np.empty(height, np.bool_)
    for u in range(begin, end):
        low, slope, total, table = lows[u], slopes[u], marginal[u], counts[u]
        for n in range(images):
            for i in range(height):
                above = 0
                for j in range(width):
                    above += r[n, u, i, j] > low
                hot[i] = above > 0
            for i in range(height):
                following = min(i + 1, height - 1)
                if not (hot[i] or hot[following]):
                    continue
                upper, lower = r[n, u, i], r[n, u, following]
                b, d = upper[0], lower[0]
                for j in range(width):
                    a, c = b, d
                    b, d = upper[min(j + 1, width - 1)], lower[min(j + 1, width - 1)]
                    if a <= low and b <= low and c <= low and d <= low:
                        continue
                    for y in range(row_start[i], row_start[i + 1]):
                        left, right = a + (c - a) * wy[y], b + (d - b) * wy[y]
                        if left <= low and right <= low:
                            continue
                        first = planes[n, 0, y]  # most segmenters have one plane: the others may be slower
                        for x in range(column_start[j], column_start[j + 1]):
                            value = left + (right - left) * wx[x]
                            if value > low and first[np.uint32(x)] >= -1:
                                bin_ = np.uint32(min((value - low) * slope, last))
                                total[bin_] += 1
                                if first[np.uint32(x)] >= 0:
                                    table[np.uint32(first[np.uint32(x)]), bin_] += 1
                                for plane in range(1, planes.shape[1]):
                                    column = planes[n, plane, y, x]
                                    if column >= 0:
                                        table[np.uint32(column), bin_] += 1


@compiled
def levels_loop(begin, end, r, lows, slopes, counts, below, sums, lowest, highest):
    """Count every cell; sum each image, find the extremes of each unit."""
    last = np.float32(counts.shape[1] - 1)
    for u in range(begin, end):
        low, slope, table = lows[u], slopes[u], counts[u]
        for n in range(r.shape[0]):
            total, smallest, largest = 0.0, lowest[u], highest[u]
            for value in r[n, u].flat:
                total += value
                smallest, largest = min(smallest, value), max(largest, value)
                if value > low:
                    table[np.uint32(min((value - low) * slope, last))] += 1
                else:
                    below[u] += 1
            sums[n, u], lowest[u], highest[u] = total, smallest, largest


@compiled
def sums_loop(begin, last, counts, bins, order, sums):
    """Add up from the highest bin down, so that each count is read once."""
    for u in range(begin, last):
        for k in range(counts.shape[1]):
            total, end = 0, counts.shape[2]
            for m in order[u][::-1]:
                for b in range(bins[u, m], end):
                    total += counts[u, k, b]
                sums[u, k, m], end = total, bins[u, m]


@compiled
def labels_loop(planes, places, concepts, found, many, counted, pixels, squared, shown):
    """List the concepts of every place with their pixels, and add up pixels, squares, and what places show."""
    for n in range(planes.shape[0]):
        for y in range(planes.shape[2]):
            for x in range(planes.shape[3]):
                if planes[n, 0, y, x] < -1:
                    continue
                place = places[y, x]
                counted[n, place] += 1
                for plane in range(planes.shape[1]):
                    c = planes[n, plane, y, x]
                    if c < 0 or c >= concepts:
                        continue
                    j = 0
                    while j < many[n, place] and found[n, place, j, 0] != c:
                        j += 1
                    found[n, place, j, 0] = c
                    found[n, place, j, 1] += 1
                    many[n, place] = max(many[n, place], j + 1)
        for place in range(many.shape[1]):
            for j in range(many[n, place]):
                c, count = found[n, place, j]
                pixels[c] += count
                squared[c] += np.int64(count) * count
                shown[c, place] += count


@compiled
def cells_loop(
    begin,
    end,
    r,
    most,
    found,
    many,
    counted,
    lows,
    slopes,
    bins,
    thresholds,
    sums,
    squares,
    dots,
    ranked,
    ranked_all,
    on,
    both,
):
    """Look at every place once: sums and products of its activation, its rank, and whether it is on."""
    here, last = np.zeros(dots.shape[1]), bins - 1
    for u in range(begin, end):
        low, slope = lows[u], slopes[u]
        part = slope / bins
        for n in range(r.shape[0]):
            total, square = 0.0, 0.0
            here[:] = 0
            for place in range(r.shape[2]):
                value = r[n, u, place]
                scaled = np.float64(np.float32(value * part))
                total += scaled
                square += scaled * scaled
                rank = 0
                if value > low:
                    rank = np.int64(min((value - low) * slope, last)) * ranked.shape[2] // np.int64(bins)
                ranked_all[u, rank] += counted[n, place]
                for j in range(many[n, place]):
                    c, count = found[n, place, j]
                    here[c] += scaled * count
                    ranked[u, c, rank] += count
                for t in range(thresholds.shape[1]):
                    if most[n, u, place] > thresholds[u, t]:
                        on[u, t, place] += 1
                        for j in range(many[n, place]):
                            both[u, t, found[n, place, j, 0]] += found[n, place, j, 1]
            sums[u] += np.int64(np.rint(total * 2**20))
            squares[u] += np.int64(np.rint(square * 2**20))
            for c in range(here.shape[0]):
                if here[c] != 0:
                    dots[u, c] += np.int64(np.rint(here[c] * 2**20))


# ---- the search for formulas, see `ganlens.dissection.formula_search`


@compiled
def fill(regions, a, b, c, one, two, three):
    """Pixels of the regions of three concepts."""
    ab, ac, bc = (two[a, b], two[a, c], two[b, c]) if two.size else (0.0, 0.0, 0.0)
    abc = three[a, b, c] if three.size else 0.0
    regions[1], regions[2], regions[4] = one[a] - ab - ac + abc, one[b] - ab - bc + abc, one[c] - ac - bc + abc
    regions[3], regions[5], regions[6], regions[7] = ab - abc, ac - abc, bc - abc, abc


@compiled
def best_of_triples(on, one, two, three, area1, area2, area3, rules):
    """The highest IoU of formulas of three concepts with a unit that is on at ``on`` pixels: it, concepts, and rule."""
    best, found = -1.0, (0, 1, 2, 0)
    there, everywhere = np.zeros(8), np.zeros(8)
    for a in range(len(one)):
        for b in range(a + 1, len(one)):
            for c in range(b + 1, len(one)):
                fill(there, a, b, c, one, two, three)
                fill(everywhere, a, b, c, area1, area2, area3)
                apart = everywhere[3] + everywhere[5] + everywhere[6] + everywhere[7] == 0
                for m in range(1 if apart else len(rules)):  # where none share a pixel others are simpler formulas
                    both, area = 0.0, 0.0
                    for region in range(1, 8):
                        if rules[m, region]:
                            both += there[region]
                            area += everywhere[region]
                    if both > best * (on + area - both):
                        best, found = both / (on + area - both), (a, b, c, m)
    return best, found


@compiled
def best_of_pairs(on, one, two, area1, area2, rules):
    """The same of two concepts."""
    best, found = -1.0, (0, 1, 0)
    for a in range(len(one)):
        for b in range(a + 1, len(one)):
            ab, all_ab = (two[a, b], area2[a, b]) if two.size else (0.0, 0.0)
            for m in range(len(rules)):
                both = rules[m, 1] * (one[a] - ab) + rules[m, 2] * (one[b] - ab) + rules[m, 3] * ab
                area = rules[m, 1] * (area1[a] - all_ab) + rules[m, 2] * (area1[b] - all_ab) + rules[m, 3] * all_ab
                if both > best * (on + area - both):
                    best, found = both / (on + area - both), (a, b, m)
    return best, found
