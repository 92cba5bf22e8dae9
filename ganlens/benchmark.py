"""How fast ganlens is, as ratios within one run; on the command line ``ganlens bench``.

Cases take turns in one process, round by round, so that a noisy machine disturbs all alike; the median counts. What is
measured on one thread is measured in CPU time.
"""

import copy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import numpy as np
import torch

from ganlens.dissection.dissect import dissect
from ganlens.dissection.result import Dissection
from ganlens.effects.context import context
from ganlens.effects.counting import BATCH
from ganlens.effects.optimization import EVERY, optimize_units
from ganlens.effects.single_units import unit_effects
from ganlens.models import load_generator
from ganlens.models.base import Generator
from ganlens.models.batch_size import steady_batch
from ganlens.models.families.progan import ProgressiveGenerator
from ganlens.models.families.rewriting import rewrite
from ganlens.progress import progress_bar
from ganlens.segmenters import load_segmenter
from ganlens.segmenters.base import Concept, Segmenter

WARM = 80  # images of the round that is not counted: it compiles and caches
Cases = Mapping[str, Callable[[int], object]]  # what is done with a number of images


def measure(name: str, n: int | None = None, rounds: int = 3, progress: bool = True) -> list[dict]:
    """Measure one of `MEASURES`: a row for each case.

    Parameters
    ----------
    name : str
        Which.
    n : int, optional
        Images of each case; every measure has its own default.
    rounds : int
        How often each case is measured; the median counts.
    progress : bool
        A bar.

    Returns
    -------
    list of dict
        The case, milliseconds for each image (or MB), and their ratio to those of the reference.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        function, usual = MEASURES[name]
        return function(usual if n is None else n, rounds, progress)
    finally:
        torch.set_num_threads(before)


# ---- what is measured


def dissection(n: int, rounds: int, progress: bool) -> list[dict]:
    """One layer, all rules, all layers, and half precision, over one pass of both embedded networks over the images."""
    G, S = load_generator(), load_segmenter()
    cases = bare_and_one_layer(G, S, "layer4") | {
        "layer4, all rules": lambda n: dissect(G, S, "layer4", n=n, rule=["quantile", "iqr", "iou"], progress=False),
        f"all {len(G.layers)} layers": lambda n: dissect(G, S, list(G.layers), n=n, progress=False),
        "layer4, half precision": lambda n: dissect(G, S, "layer4", n=n, half=True, progress=False),
    }
    return ratios(taking_turns(cases, n, rounds, progress), n)


def large(n: int, rounds: int, progress: bool) -> list[dict]:
    """One layer of a 256-pixel Progressive GAN with SegFormer-b0, both of random weights, over the bare networks."""
    cases = bare_and_one_layer(progressive(), random_segformer(), "layer4")
    return ratios(taking_turns(cases, n, rounds, progress), n)


def causal(n: int, rounds: int, progress: bool) -> list[dict]:
    """Context on n images, 64 single units, an optimisation: each over the passes behind the layer that it needs."""
    D = dissect(load_generator(), load_segmenter(), "layer4", n=64, progress=False)
    return causal_rows(D, "tree", n, 64, 160, rounds, progress)


def networks(n: int, rounds: int, progress: bool) -> list[dict]:
    """A 256-pixel Progressive GAN rewritten, in half precision, and behind layers, over its whole plain pass."""
    return network_rows(ProgressiveGenerator(), n, rounds, progress)


def shards(n: int, rounds: int, progress: bool) -> list[dict]:
    """One layer by two processes with one thread each, over one such process, in time by the clock."""
    G, S = load_generator(), load_segmenter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        cases = {
            "1 process": lambda n: dissect(G, S, "layer4", n=n, progress=False),
            "2 processes": lambda n: dissect(G, S, "layer4", n=n, executor=workers, progress=False),
        }
        return ratios(taking_turns(cases, n, rounds, progress, time.perf_counter, first=4 * WARM), n)


def memory(n: int, rounds: int, progress: bool) -> list[dict]:
    """Most memory that a process takes for one layer of 10 n images, over that for n images; one round."""
    taken = {}
    with progress_bar(progress, 11 * n, "memory") as done:
        for size in (n, 10 * n):
            command = [sys.executable, "-c", f"from ganlens.benchmark import peak; print(peak({size}))"]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            taken[f"{size:,} images"] = int(ran.stdout) / 1e6
            done(size)
    reference = next(iter(taken.values()))
    return [{"case": case, "MB": size, "ratio": size / reference} for case, size in taken.items()]


MEASURES = {  # each with its usual number of images
    "dissection": (dissection, 500),
    "large": (large, 160),
    "causal": (causal, 12),
    "networks": (networks, 8),
    "shards": (shards, 2000),
    "memory": (memory, 500),
}


# ---- cases


def bare_and_one_layer(G: Generator, S: Segmenter, layer: str) -> dict[str, Callable[[int], object]]:
    return {
        "networks alone": lambda n: networks_alone(G, S, layer, n),
        layer: lambda n: dissect(G, S, layer, n=n, progress=False),
    }


def networks_alone(G: Generator, S: Segmenter, layer: str, n: int) -> None:
    """One generator pass and one segmenter pass, in the batches that a dissection of the layer would take."""
    size = steady_batch(G, [layer])
    with torch.inference_mode():
        for start in range(0, n, size):
            S.labels(G.forward(G.latents(range(start, min(start + size, n)))))


def network_rows(net: ProgressiveGenerator, n: int, rounds: int, progress: bool) -> list[dict]:
    """Times of ``n`` images over those of the plain network: rewritten, in half precision, and behind its layers."""
    plain = progressive(copy.deepcopy(net))
    generators = {"plain": plain}
    for name, dtype in (("rewritten", torch.float32), ("rewritten, bfloat16", torch.bfloat16)):
        G = progressive(copy.deepcopy(net))
        generators |= {name: G} if rewrite(G, dtype) is not None else {}
    cases = {case: lambda n, G=G: G.forward(G.latents(range(n))) for case, G in generators.items()}
    for layer in list(plain.layers)[3::3]:
        opened = plain.open(layer, range(n))
        cases[f"plain, behind {layer}"] = lambda _, opened=opened: opened.resume(opened.features)
    with torch.inference_mode():
        return ratios(taking_turns(cases, n, rounds, progress), n)


def causal_rows(
    D: Dissection, concept: str, seen: int, count: int, steps: int, rounds: int, progress: bool, n: int = 128
) -> list[dict]:
    """Rows of `context` on ``seen`` images, of `unit_effects` on ``count`` units, and of `optimize_units`.

    An image is one pass behind the layer and through the segmenter.
    """
    wanted, cells = D.concepts[D.attached("segmenter").index(concept)], D.shape[0] * D.shape[1]

    def each_image(_) -> None:
        for seed in range(seen):
            passes_forward(D, min(cells, BATCH), -(-cells // BATCH), image=seed)

    def both_ways(_) -> None:
        passes_forward(D, 16, n // 16 + n // 64 * steps // EVERY)
        passes_backward(D, wanted, 16, steps)

    cases: dict[str, tuple[int, Callable, Callable]] = {
        f"context, {seen} images": (
            seen * (cells + 1),
            lambda _: context(D, wanted, range(min(20, len(D.iou))), n=seen, draws=0, progress=False),
            each_image,
        ),
        f"unit_effects, {count} units": (
            BATCH * (count + 1),
            lambda _: unit_effects(D, range(count), n=BATCH, progress=False),
            lambda _: passes_forward(D, BATCH, count),
        ),
        f"optimize_units, {steps} steps": (
            16 * steps,
            lambda _: optimize_units(D, wanted, n=n, steps=steps, progress=False),
            both_ways,
        ),
    }
    rows = []
    for case, (images, function, floor) in cases.items():
        times = taking_turns({"bare": floor, case: function}, images, rounds, progress)
        rows += ratios(times, images)[1:]
    return rows


def passes_forward(D: Dissection, n: int, times: int, image: int | None = None) -> None:
    """Passes behind the layer and through the segmenter, of n images or n times one, after a whole one."""
    generator, segmenter = D.attached("generator"), D.attached("segmenter")
    opened = generator.open(D.layer, range(n) if image is None else image)
    with torch.inference_mode():
        segmenter.labels(opened.image)
        features = opened.features.expand(n, -1, -1, -1).contiguous()
        for _ in range(times):
            segmenter.labels(opened.resume(features))


def passes_backward(D: Dissection, concept: Concept, n: int, times: int) -> None:
    """The same through the segmenter's scores, and back to the layer."""
    opened, i = D.attached("generator").open(D.layer, range(n)), D.concepts.index(concept)
    for _ in range(times):
        r = opened.features.clone().requires_grad_()
        torch.autograd.grad(D.attached("segmenter").scores(opened.resume(r))[:, i].mean(), r)


def peak(n: int) -> int:
    """Dissect one layer of the embedded generator: the most bytes that this process ever took."""
    dissect(load_generator(), load_segmenter(), "layer4", n=n, progress=False)
    return most_memory()


def most_memory() -> int:
    """The most bytes of memory that this process ever took."""
    import resource

    try:  # Linux counts for `resource` what the parent took, too
        with open("/proc/self/status", encoding="ascii") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- networks of random weights


def progressive(net: ProgressiveGenerator | None = None) -> Generator:
    """A Progressive GAN of random weights, 256 pixels unless it is given."""
    net = net or ProgressiveGenerator()
    layers = [name for name, _ in net.named_children() if name.startswith("layer")]
    units = net.get_parameter("layer1.scaled.conv.weight").shape[1]
    return Generator.wrap(net.requires_grad_(False), units, "Progressive GAN", layers=layers, output="tanh")


def random_segformer() -> Segmenter:
    """SegFormer-b0 of random weights, built from its default configuration; labels at a quarter of the resolution."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(num_labels=150)  # type: ignore[call-arg]  # a setting of all configurations
    net = SegformerForSemanticSegmentation(config).eval()
    concepts = [f"concept {i}" for i in range(150)]
    return Segmenter.wrap(lambda x: net(x).logits.argmax(1, keepdim=True) + 1, concepts, "SegFormer-b0")


# ---- clocks


def taking_turns(
    cases: Cases,
    n: int,
    rounds: int,
    progress: bool,
    clock: Callable[[], float] = time.process_time,
    first: int = WARM,
) -> dict[str, list[float]]:
    """Seconds of each case, round by round, after one round of at most ``first`` images that is not counted."""
    times: dict[str, list[float]] = {case: [] for case in cases}
    with progress_bar(progress, len(cases) * (rounds + 1), "bench", "run") as done:
        for size in (min(n, first), *[n] * rounds):
            for case, function in cases.items():
                start = clock()
                result = function(size)
                times[case].append(clock() - start)
                if not is_complete(result):
                    raise KeyboardInterrupt
                done(1)
    return {case: seconds[1:] for case, seconds in times.items()}


def is_complete(result) -> bool:
    """Whether nobody interrupted what a case did."""
    if isinstance(result, dict):
        return all(map(is_complete, result.values()))
    return not np.isnan(result).any() if isinstance(result, np.ndarray) else getattr(result, "complete", True)


def ratios(times: Mapping[str, list[float]], n: int) -> list[dict]:
    """A row for each case: its median time, and the median of its ratios to the first one, round by round."""
    reference = next(iter(times.values()))
    return [
        {
            "case": case,
            "ms_per_image": 1000 * median(seconds) / n,
            "ratio": median(a / b for a, b in zip(seconds, reference, strict=True)),
        }
        for case, seconds in times.items()
    ]
