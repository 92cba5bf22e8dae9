"""How much a dissection costs beyond the networks themselves; on the command line ``ganlens bench``.

The yardstick is the overhead factor: CPU time of a dissection over the CPU time of one generator pass and one segmenter
pass over the same images, both on one thread, taking turns in one process, so that a noisy machine disturbs both alike.
"""

import copy
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

from ganlens.causal import unit_effects
from ganlens.context import context
from ganlens.counting import BATCH
from ganlens.dissection import Dissection
from ganlens.matching import default_batch, dissect
from ganlens.models import load_generator
from ganlens.models.base import Generator
from ganlens.models.progan import ProgressiveGenerator
from ganlens.models.rewriting import rewrite
from ganlens.optimization import EVERY, optimize_units
from ganlens.segmenters import load_segmenter
from ganlens.segmenters.base import Concept, Segmenter


def main(
    n: int = 500, rounds: int = 3, large: bool = False, causal: bool = False, networks: bool = False
) -> list[dict]:
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
        Also `ganlens.context`, `ganlens.unit_effects` and `ganlens.optimize_units`, over the passes behind the layer
        that they need.
    networks : bool
        Also the 256-pixel Progressive GAN by itself: rewritten for speed, and behind a layer, over its whole pass.
    """
    torch.set_num_threads(1)
    rows = measure("embedded", load_generator(), load_segmenter(), "layer4", n, rounds)
    if large:
        segformer = random_segformer()
        rows += measure("Progressive GAN + SegFormer-b0", progressive(), segformer, "layer4", n, rounds, one_layer=True)
    rows += measure_causal(load_generator(), load_segmenter(), "layer4", rounds) if causal else []
    return rows + (measure_networks(ProgressiveGenerator(), rounds) if networks else [])


def progressive(net: ProgressiveGenerator | None = None) -> Generator:
    """A Progressive GAN of random weights, 256 pixels unless it is given."""
    net = net or ProgressiveGenerator()
    layers = [name for name, _ in net.named_children() if name.startswith("layer")]
    units = net.layer1.scaled.conv.weight.shape[1]
    return Generator.wrap(net.requires_grad_(False), units, "Progressive GAN", layers, output="tanh")


def measure_networks(net: ProgressiveGenerator, rounds: int, n: int = 8) -> list[dict]:
    """Times of ``n`` images over those of the plain network: rewritten, in half precision, and behind its layers."""
    plain, *others = (progressive(copy.deepcopy(net)) for _ in range(3))
    for G, dtype in zip(others, (torch.float32, torch.bfloat16), strict=True):
        rewrite(G, dtype)
    cases = {"plain": plain, "rewritten": others[0], "rewritten, bfloat16": others[1]}
    functions = {case: lambda n, G=G: G.forward(G.sample(range(n))) for case, G in cases.items()}
    for layer in list(plain.layers)[3::3]:
        opened = plain.open(layer, range(n))
        functions[f"plain, behind {layer}"] = lambda n, opened=opened: opened.resume(opened.features)
    times: dict[str, list[float]] = {case: [] for case in functions}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for case, function in functions.items():
                times[case].append(cpu_time(function, n))
    times = {case: seconds[1:] for case, seconds in times.items()}  # the first compiles and caches
    return ratios("Progressive GAN", times, "plain", n)


def ratios(name: str, times: Mapping[str, list[float]], reference: str, n: int) -> list[dict]:
    """A row for each case: its median time, and the median of its ratios to the reference, round by round."""
    return [
        {
            "networks": name,
            "case": case,
            "ms_per_image": 1000 * median(seconds) / n,
            "overhead": median(s / f for s, f in zip(seconds, times[reference], strict=True)),
        }
        for case, seconds in times.items()
    ]


def measure_causal(
    G: Generator, S: Segmenter, layer: str, rounds: int, count: int = 64, steps: int = 48, n: int = 128, seen: int = 8
) -> list[dict]:
    """Overhead factors of what is measured behind one layer; an image is a pass behind the layer and the segmenter.

    Of `context` on ``seen`` images, of `unit_effects` on ``count`` units, and of `optimize_units`.
    """
    D = dissect(G, S, layer, n=64, progress=False)
    concept, cells = D.concepts[S.index("tree")], D.shape[0] * D.shape[1]
    cases = {
        f"context, {cells} cells, {seen} image{'s' * (seen > 1)}": (
            seen * (cells + 1),
            lambda _: [passes_forward(D, min(cells, BATCH), -(-cells // BATCH), image=seed) for seed in range(seen)],
            lambda _: context(D, concept, range(min(20, len(D.iou))), n=seen, draws=0, progress=False),
        ),
        f"unit_effects, {count} unit{'s' * (count > 1)}": (
            BATCH * (count + 1),
            lambda _: passes_forward(D, BATCH, count),
            lambda _: unit_effects(D, range(count), n=BATCH, progress=False),
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
    for case, (images, floor, function) in cases.items():
        times = [(cpu_time(function, images), cpu_time(floor, images)) for _ in range(rounds + 1)]
        times = times[1:]  # the first compiles and caches
        seconds, overhead = median(a for a, _ in times), median(a / b for a, b in times)
        rows.append(
            {"networks": "embedded", "case": case, "ms_per_image": 1000 * seconds / images, "overhead": overhead}
        )
    return rows


def passes_forward(D: Dissection, n: int, times: int, image: int | None = None) -> None:
    """Passes behind the layer and through the segmenter, of n images or n times one, after a whole one."""
    opened = D.generator.open(D.layer, range(n) if image is None else image)
    with torch.inference_mode():
        D.segmenter.labels(opened.image)
        features = opened.features.expand(n, -1, -1, -1).contiguous()
        for _ in range(times):
            D.segmenter.labels(opened.resume(features))


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
    return ratios(name, times, "networks alone", n)


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
