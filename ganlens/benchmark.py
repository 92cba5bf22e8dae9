"""How much a dissection costs beyond the networks themselves; on the command line ``ganlens bench``.

The yardstick is the overhead factor: CPU time of a dissection over the CPU time of one generator pass and one segmenter
pass over the same images, both on one thread, taking turns in one process, so that a noisy machine disturbs both alike.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from ganlens.causal import unit_effects
from ganlens.counting import BATCH
from ganlens.dissection import Dissection
from ganlens.matching import default_batch, dissect
from ganlens.models import load_generator
from ganlens.models.base import Generator
from ganlens.models.progan import ProgressiveGenerator
from ganlens.optimization import EVERY, optimize_units
from ganlens.segmenters import load_segmenter
from ganlens.segmenters.base import Concept, Segmenter


def main(n: int = 500, rounds: int = 3, large: bool = False, causal: bool = False) -> list[dict]:
    """Overhead factors of the embedded networks, and of large ones with random weights.

    Parameters
    ----------
    n : int
        Images per dissection.
    rounds : int
        How often everything is measured; the median counts.
    large : bool
        Also a 256-pixel Progressive GAN with SegFormer-b0.
    causal : bool
        Also `ganlens.unit_effects` and `ganlens.optimize_units`, over the passes behind the layer that they need.
    """
    torch.set_num_threads(1)
    rows = measure("embedded", load_generator(), load_segmenter(), "layer4", n, rounds)
    if large:
        G = Generator.wrap(ProgressiveGenerator(), 512, "Progressive GAN, 256 px, random weights")
        rows += measure("Progressive GAN + SegFormer-b0", G, random_segformer(), "layer4", n, rounds, one_layer=True)
    return rows + (measure_causal(load_generator(), load_segmenter(), "layer5", rounds) if causal else [])


def measure_causal(
    G: Generator, S: Segmenter, layer: str, rounds: int, count: int = 64, steps: int = 160, n: int = 128
) -> list[dict]:
    """Overhead factors of `unit_effects` on some units and of `optimize_units`; an image is a pass behind the layer."""
    D = dissect(G, S, layer, n=64, progress=False)
    concept, units = D.concepts[S.index("tree")], range(count)
    pairs = {
        f"unit_effects, {len(units)} units": (
            BATCH * (len(units) + 1),
            lambda _: passes_forward(D, BATCH, len(units)),
            lambda _: unit_effects(D, units, n=BATCH, progress=False),
        ),
        f"optimize_units, {steps} steps": (
            16 * steps,
            lambda _: (
                passes_forward(D, 16, n // 16 + n // 64 * steps // EVERY),
                passes_backward(D, concept, 16, steps),
            ),
            lambda _: optimize_units(D, concept, n=n, steps=steps, progress=False),
        ),
    }
    rows = []
    for case, (images, floor, function) in pairs.items():
        times = [(cpu_time(function, images), cpu_time(floor, images)) for _ in range(rounds + 1)][
            1:
        ]  # the first compiles and caches
        seconds, overhead = median(a for a, _ in times), median(a / b for a, b in times)
        rows.append(
            {"networks": "embedded", "case": case, "ms_per_image": 1000 * seconds / images, "overhead": overhead}
        )
    return rows


def passes_forward(D: Dissection, n: int, times: int) -> None:
    """Passes behind the layer and through the segmenter, of n images, after a whole one."""
    opened = D.generator.open(D.layer, range(n))
    D.segmenter.labels(opened.image)
    with torch.inference_mode():
        for _ in range(times):
            D.segmenter.labels(opened.resume(opened.features))


def passes_backward(D: Dissection, concept: Concept, n: int, times: int) -> None:
    """The same through the segmenter's scores, and back to the layer."""
    opened, i = D.generator.open(D.layer, range(n)), D.concepts.index(concept)
    for _ in range(times):
        r = opened.features.clone().requires_grad_()
        torch.autograd.grad(D.segmenter.scores(opened.resume(r))[:, i].mean(), r)


def measure(
    name: str, G: Generator, S: Segmenter, layer: str, n: int, rounds: int, one_layer: bool = False
) -> list[dict]:
    """Overhead factors of one layer and, unless ``one_layer``, of one layer with all rules, and of all layers."""
    cases = {
        "networks alone": lambda n: networks_alone(G, S, layer, n),
        f"{layer}, quantile": lambda n: dissect(G, S, layer, n=n, progress=False),
    }
    everything = {
        f"{layer}, all rules": lambda n: dissect(G, S, layer, n=n, rule=["quantile", "iqr", "iou"], progress=False),
        "all layers, quantile": lambda n: dissect(G, S, list(G.layers), n=n, progress=False),
    }
    cases |= {} if one_layer else everything
    for case in cases.values():
        case(80)  # compiles what is to be compiled
    times: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, function in cases.items():
            times[case].append(cpu_time(function, n))
    floor = times["networks alone"]
    return [
        {
            "networks": name,
            "case": case,
            "ms_per_image": 1000 * median(seconds) / n,
            "overhead": median(s / f for s, f in zip(seconds, floor, strict=True)),
        }
        for case, seconds in times.items()
    ]


def networks_alone(G: Generator, S: Segmenter, layer: str, n: int) -> None:
    """One generator pass and one segmenter pass, in the batches that a dissection of the layer would take."""
    size = default_batch(G, [layer])
    with torch.inference_mode():
        for start in range(0, n, size):
            S.labels(G.forward(G.sample(range(start, min(start + size, n)))))


def cpu_time(function: Callable[[int], object], n: int) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    function(n)
    return time.process_time() - start


def random_segformer() -> Segmenter:
    """SegFormer-b0 of random weights, built from its default configuration; labels at a quarter of the resolution."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    net = SegformerForSemanticSegmentation(SegformerConfig(num_labels=150)).eval()
    concepts = [f"concept {i}" for i in range(150)]
    return Segmenter.wrap(lambda x: net(x).logits.argmax(1, keepdim=True) + 1, concepts, "SegFormer-b0")
