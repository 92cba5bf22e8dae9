"""Pictures of what units draw: their top images, lit where they are on."""

from typing import TYPE_CHECKING

import numpy as np

from ganlens.images import spotlight, to_uint8
from ganlens.statistics import upsample

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection


def spotlights(D: "Dissection", units: list[int], k: int, factor: int) -> list[np.ndarray]:
    """For each unit its ``k`` top images, lit where it is on: (k, Y, X, 3); each image is generated once."""
    generator = D.attached("generator")
    seeds = {unit: [s for s in D.top[unit, :k].tolist() if s >= 0] for unit in units}
    every = sorted(set().union(*seeds.values()))
    size = tuple(generator.image_shape[1:])
    pictures: dict[int, np.ndarray] = {}
    masks: dict[tuple[int, int], np.ndarray] = {}
    for start in range(0, len(every), 32):
        some = every[start : start + 32]
        x, features = generator.read(generator.latents(some), [D.layer])
        pictures |= dict(zip(some, to_uint8(x), strict=True))
        for unit in units:
            inside = [s for s in some if s in seeds[unit]]
            if inside:
                r = features[D.layer][[some.index(s) for s in inside], unit : unit + 1]
                on = (upsample(r, size)[:, 0] > float(D.thresholds[unit])).cpu().numpy()
                masks |= {(unit, s): m for s, m in zip(inside, on, strict=True)}
    return [np.stack([spotlight(pictures[s], masks[unit, s], factor) for s in seeds[unit]]) for unit in units]
