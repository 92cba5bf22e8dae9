"""Plain DCGAN (Radford et al., ICLR 2016) from a state dict alone: what is not in the file is inferred and reported.

Stored are weights, biases and batch statistics. Strides and paddings are those that lead to the most usual image size;
hidden activations and the law of the latent are those under which the batch statistics come true.
"""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import torch
from torch import nn

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense
from ganlens.models.families.dcgan_layers import (
    FAMILY,
    MOST_PIXELS,
    USUAL_SIZES,
    Conv,
    Part,
    Start,
    convolutions,
    doubled_ways,
    loaded,
    parts_of,
    settled,
    sizes,
    start_of,
    steps_to_image,
)
from ganlens.models.families.dcgan_search import searched
from ganlens.models.families.stylegan2 import place_module
from ganlens.models.files.reading import CheckpointError, check_maps, fit
from ganlens.models.files.states import State
from ganlens.models.latents import LAWS, drawn

FORMAT = "plain DCGAN (a 4-D weight (Z, C, k, k) or a linear map, transposed convolutions, batch norms)"

SPECTRAL = {"weight_orig", "weight_u", "weight_v", "original", "_u", "_v"}
PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
SAMPLE_CELLS = 2**24  # so that these take no more memory than there is
SAMPLE_WORK = 2e9  # multiplications in one pass, so that it takes no more than a moment
SLOPES = (0.0, 0.2)  # of hidden activations
CLEARLY = 0.7  # times another error
EPSILONS = (1e-5, 0.8)  # of batch norms; the second one is a slip that many have copied
FITS = 0.3  # largest error at which doublings are believed
LEAST_SIDE = 16  # of images without batch statistics that speak for them
MODES = ("nearest", "bilinear")  # of doubling
SAMPLE = 64  # latents that show how the batch statistics come true


def likeness(state: State) -> float:
    """A little where there are convolutions and nothing but layers and norms: any other family is a better match."""
    convs = [name for name, item in state.items.items() if len(item.shape) == 4]
    plain = sum(name.rpartition(".")[2] in PARTS | SPECTRAL for name in state.items)
    return 0.4 * plain / len(state.items) if len(convs) >= 2 else 0.0


def build(state: State, name: str) -> Generator:
    """The generator of a state dict."""
    return from_state(state.tensors(), name)


class Chain(nn.Module):
    """Modules by dotted name, one after the other."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self.names = list(modules)
        for name, module in modules.items():
            place_module(self, name, module)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            z = self.get_submodule(name)(z)
        return z


def from_state(state: Mapping[str, torch.Tensor], name: str | None = None) -> Generator:
    """The generator of a state dict of transposed convolutions, batch norms and perhaps a linear map in front.

    Parameters
    ----------
    state : mapping of str to Tensor
        In the order of the forward pass: ``main.0.weight`` (Z, C, 4, 4), ``main.1.running_mean`` (C,), …; or first a
        linear map (C s s, Z). The last layer yields 1 or 3 channels; tanh is assumed behind it.

    Returns
    -------
    Generator
        Its ``about`` says what was inferred.

    Raises
    ------
    CheckpointError
        The layers do not follow upon one another, or other tensors are left over.
    """
    parts = parts_of({key: tensor.float() for key, tensor in settled(state).items()})
    check(parts)
    start = start_of(parts)
    readings = convolutions(parts, start)
    if any(doubled_ways(convs, start) for convs in readings):
        convs = next(convs for convs in readings if doubled_ways(convs, start))
        way, ratios, law = enlarged(parts, start, convs)
    else:
        way, ratios, law = chosen(parts, start, readings)
    modules, maps = built(parts, start, way)
    extra = {"latent", "maps", *(name for name, module in modules.items() if isinstance(module, nn.Upsample))}
    vectors = [key for key in modules if key not in maps and key not in extra]
    net = Chain(modules).requires_grad_(False).eval()
    G = Generator(net, start.z_dim, name or FAMILY, layers=maps, law=law, vectors=vectors, trusted=True)
    G.about = report(G, way, ratios)
    return G


@dataclass(frozen=True)
class Way:
    """How the layers of a file may be run: steps of each convolution, and what else is not in the file."""

    convs: list[Conv]
    steps: list
    slope: float = 0.0
    epsilon: float = EPSILONS[0]
    bare: bool = False  # no activation between the first norm and a convolution
    mode: str = "nearest"


def chosen(parts: list[Part], start: Start, readings: list[list[Conv]]) -> tuple[Way, dict[str, float], str]:
    """Strides and paddings of transposed convolutions, what the statistics say of laws, and the likeliest law."""
    ways = [Way(convs, steps) for convs in readings for steps in steps_to_image(convs, start)]
    for way in ways:
        check_maps(FAMILY, sizes(way.convs, start, way.steps))

    @cache
    def measured(number: int, slope: float, law: str) -> tuple[float, float, float]:
        return mismatch(parts, start, replace(ways[number], slope=slope), law)

    best = 0
    if len(ways) > 1:
        errors = [min(measured(i, slope, "normal")[1] for slope in SLOPES) for i in range(len(ways))]
        likely = min(range(len(ways)), key=errors.__getitem__)
        best = likely if errors[likely] < CLEARLY * errors[0] else 0
        sides = [sizes(way.convs, start, way.steps)[-1][1] for way in ways]
        others = {sides[i] for i, error in enumerate(errors) if CLEARLY * error <= errors[best]} - {sides[best]}
        others &= USUAL_SIZES.keys()
        if others and errors[best]:
            warnings.warn(
                f"the batch statistics do not tell whether images have {sides[best]} x {sides[best]} pixels, as is "
                f"assumed, or {' or '.join(map(str, sorted(others)))}; if they are of another size, build the network "
                "yourself: Generator.wrap(net, z_dim=…)",
                stacklevel=5,
            )
    ratios = {law: measured(best, 0.0, law)[0] for law in LAWS}
    law = likely_law(ratios)
    slope = 0.2 if measured(best, 0.2, law)[1] < CLEARLY * measured(best, 0.0, law)[1] else 0.0
    way = replace(ways[best], slope=slope)
    error = measured(best, slope, law)[1]
    if error > FITS:
        way, ratios, law, error = wider(parts, start, readings, (way, ratios, law, error))
    if error > FITS:
        raise unsure(start, f"the batch statistics do not come true in the nearest network (error {error:.2f})")
    side = sizes(way.convs, start, way.steps)[-1][1]
    usual = all((c.transposed and c.shape[2] % 2 == 0) or c.shape[2] == 1 for c in way.convs)
    if side < LEAST_SIDE and not usual:
        raise unsure(start, f"its image would be {side} x {side}")
    return way, ratios, law


def wider(parts: list[Part], start: Start, readings: list[list[Conv]], best: tuple) -> tuple[Way, dict, str, float]:
    """The way whose statistics come true, of all strides and paddings, activations and eps; or ``best`` as it is."""
    law = best[2]
    for convs, slope, epsilon, bare in product(readings, SLOPES, EPSILONS, (False, True)):
        norms = [norms_until(parts, conv) if normed_after(parts, conv) else None for conv in convs]

        def error_of(steps: list, upto: int) -> float:
            return mismatch(parts, start, replace(way, steps=steps), law, last=upto)[2]  # noqa: B023

        way = Way(convs, [], slope, epsilon, bare)
        found = searched(convs, start.size, norms, error_of, CLEARLY)
        if found and found.error < CLEARLY * best[3]:
            way = replace(way, steps=list(found.steps))
            ratios = {law: mismatch(parts, start, way, law)[0] for law in LAWS}
            error = mismatch(parts, start, way, law)[1]
            best = (way, ratios, law, error) if error < best[3] else best
    return best


def likely_law(ratios: Mapping[str, float]) -> str:
    """The law under which the variance at the first norm is what it was in training."""
    known = not math.isnan(ratios["normal"])
    return min(ratios, key=lambda law: abs(math.log(ratios[law]))) if known else "normal"


def enlarged(parts: list[Part], start: Start, convs: list[Conv]) -> tuple[Way, dict[str, float], str]:
    """Where maps are doubled between convolutions, by the batch statistics; CheckpointError where they do not say.

    For each choice of what else is unknown, doublings are decided one after the other: the norm behind a convolution
    says which is right.
    """
    plain = [(1, 0, 0) if conv.transposed else (1, conv.shape[2] // 2, 0) for conv in convs]
    ratios = {law: mismatch(parts, start, Way(convs, plain), law, last=1)[0] for law in LAWS}
    if math.isnan(ratios["normal"]):
        raise unsure(start, "there are no batch statistics to tell")
    law = likely_law(ratios)
    decided = [i for i, conv in enumerate(convs) if not conv.transposed and normed_after(parts, conv)]
    flat = parts[0].kind == "dense"
    found: list[tuple[float, Way, bool]] = []
    for slope, epsilon, bare, mode in product(SLOPES, EPSILONS, (False, True) if flat else (False,), MODES):
        way, clear = Way(convs, plain, slope, epsilon, bare, mode), True
        for i in decided:
            double = replace(way, steps=[(2, p, e) if j == i else (s, p, e) for j, (s, p, e) in enumerate(way.steps)])
            upto = norms_until(parts, convs[i])
            error = mismatch(parts, start, way, law, last=upto)[2]
            other = math.inf
            if sizes(convs, start, double.steps)[-1][1] <= MOST_PIXELS:
                other = mismatch(parts, start, double, law, last=upto)[2]
            clear &= min(error, other) < CLEARLY * max(error, other)
            way = double if other < error else way
        found.append((mismatch(parts, start, way, law)[1], way, clear))
    error, way, clear = min(found, key=lambda row: row[0])
    side = sizes(convs, start, way.steps)[-1][1]
    open_ones = [convs[i].name for i in range(len(convs)) if i not in decided and not convs[i].transposed]
    halved = bool(open_ones) and side not in USUAL_SIZES and 2 * side in USUAL_SIZES
    if not decided or not clear or error > FITS or side < LEAST_SIDE or halved:
        raise unsure(start, f"the batch statistics do not tell (nearest is {side} x {side} pixels, error {error:.2f})")
    if open_ones:
        warnings.warn(
            f"no batch norm says whether maps are doubled in front of {', '.join(open_ones)}: images of {side} x "
            f"{side} pixels are assumed; if they are larger, build the network yourself: Generator.wrap(net, z_dim=…)",
            stacklevel=5,
        )
    return way, ratios, law


def normed_after(parts: list[Part], conv: Conv) -> bool:
    """Whether a norm that training has changed follows upon a convolution."""
    i = next(i for i, part in enumerate(parts) if part.name == conv.name)
    return i + 1 < len(parts) and parts[i + 1].kind == "norm" and parts[i + 1].trained


def norms_until(parts: list[Part], conv: Conv) -> int:
    """How many trained norms there are up to the one behind a convolution."""
    i = next(i for i, part in enumerate(parts) if part.name == conv.name)
    return sum(part.kind == "norm" and part.trained for part in parts[: i + 2])


def unsure(start: Start, why: str) -> CheckpointError:
    return CheckpointError(
        f"closest to {FAMILY}, but where its maps grow is not in the file, and {why}. Build the network yourself:\n"
        "    net = MyGenerator()\n"
        "    net.load_state_dict(torch.load(path, weights_only=True))\n"
        f"    G = ganlens.Generator.wrap(net, z_dim={start.z_dim})\n"
    )


def check(parts: list[Part]) -> None:
    """CheckpointError where there is anything but convolutions, batch norms and a linear map in front."""
    strange = [part for i, part in enumerate(parts) if part.kind == "unknown" or (part.kind == "dense" and i)]
    left = [f"{part.name}.{what}" for part in parts for what in part.tensors if what not in PARTS]
    left += [f"{part.name}.{what}" for part in strange for what in part.tensors if what in PARTS]
    fit(FAMILY, {}, dict.fromkeys(left, torch.empty(0)))
    if not parts or parts[0].kind == "norm" or sum(part.kind == "conv" for part in parts) < 2:
        raise CheckpointError(f"closest to {FAMILY}, but missing: a first layer and at least two convolutions")


def built(parts: list[Part], start: Start, way: Way):
    """All modules by name, and the names of those that yield feature maps."""
    modules: dict[str, nn.Module] = {}
    maps: list[str] = []
    steps_of = {conv.name: (conv, step) for conv, step in zip(way.convs, way.steps, strict=True)}
    taken = {part.name for part in parts}
    flat = parts[0].kind == "dense"
    if not flat:
        modules["latent"] = nn.Unflatten(1, (start.z_dim, 1, 1))

    def add(name: str, module: nn.Module) -> None:
        modules[name] = module
        taken.add(name)
        if not flat:
            maps.append(name)

    first = next((i for i, part in enumerate(parts) if part.kind == "norm"), None)
    for i, (part, after) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        if flat and (
            part.kind == "conv" or (part.kind == "norm" and part.size == start.units < start.units * start.size**2)
        ):
            modules["maps"], flat = nn.Unflatten(1, (start.units, start.size, start.size)), False
        if part.kind == "conv":
            conv, step = steps_of[part.name]
            if not conv.transposed and step[0] > 1:
                smooth = {} if way.mode == "nearest" else {"align_corners": False}
                modules[name_before(part.name, taken)] = nn.Upsample(scale_factor=step[0], mode=way.mode, **smooth)
            add(part.name, conv.module(step, part.tensors))
        elif part.kind == "dense":
            dense = Dense(part.shape[1], part.shape[0], bias="bias" in part.tensors)
            add(part.name, loaded(dense, part.name, part.tensors))
        else:
            norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(part.size, affine="weight" in part.tensors)
            if i != first:
                norm.eps = way.epsilon
            add(part.name, loaded(norm, part.name, part.tensors))
        if after is None:
            add(free_name(part.name, taken), nn.Tanh())
        elif after.kind != "norm" and not (way.bare and i <= (first or 0)):
            add(free_name(part.name, taken), nn.LeakyReLU(way.slope) if way.slope else nn.ReLU())
    return modules, maps


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name behind a module: the next index of a Sequential, or the same name and ``_act``."""
    folder, _, last = name.rpartition(".")
    following = f"{folder}.{int(last) + 1}".lstrip(".") if re.fullmatch("[0-9]{1,6}", last) else f"{name}_act"
    return following if following not in taken else f"{name}_act"


def name_before(name: str, taken: Iterable[str]) -> str:
    """The name in front of a module: the index before it, if that is free, or the same name and ``_up``."""
    folder, _, last = name.rpartition(".")
    before = f"{folder}.{int(last) - 1}".lstrip(".") if re.fullmatch("[1-9][0-9]{0,5}", last) else ""
    return before if before and before not in taken else f"{name}_up"


def mismatch(
    parts: list[Part], start: Start, way: Way, law: str, last: int | None = None
) -> tuple[float, float, float]:
    """How the batch statistics come true under a law of the latent; those that no training has changed do not count.

    Parameters
    ----------
    last : int, optional
        How many norms are looked at; all by default. What lies behind them is not run.

    Returns
    -------
    ratio : float
        Variance that enters the first batch norm, divided by its ``running_var``: the geometric mean over its units;
        nan where there is no norm.
    error : float
        Over the later norms, the mean of how far both statistics are off: the absolute logarithm of that ratio, plus
        the distance of the means in running deviations. The variance hardly tells a ReLU from a leaky one, the mean
        does.
    newest : float
        The same over the last norm alone.
    """
    net = Chain(built(parts, start, way)[0]).eval()
    maps = sizes(way.convs, start, way.steps)
    work = sum(math.prod(c.shape) * side**2 for c, (_, side) in zip(way.convs, maps, strict=True))
    cells = sum(units * side * side for units, side in maps)
    count = int(min(SAMPLE, max(2, min(SAMPLE_CELLS // cells, SAMPLE_WORK // work))))
    norms = {part.name for part in parts if part.kind == "norm" and part.trained}
    stop = len(norms) if last is None else min(last, len(norms))
    logs: list[torch.Tensor] = []
    shifts: list[torch.Tensor] = []
    r = drawn(range(count), start.z_dim, law)
    with torch.no_grad():
        for name in net.names:
            if len(logs) == stop:
                break
            module = net.get_submodule(name)
            if name in norms:
                values = r.transpose(0, 1).flatten(1)  # (U, P)
                mean, variance = (net.get_buffer(f"{name}.running_{what}") for what in ("mean", "var"))
                logs.append((values.var(1).clamp(min=1e-12) / variance.clamp(min=1e-12)).log())
                shifts.append((values.mean(1) - mean) / variance.clamp(min=1e-12).sqrt())
            r = module(r)
    errors = [log.abs() + shift.abs() for log, shift in zip(logs, shifts, strict=True)]
    later = torch.cat(errors[1:]).mean().item() if len(errors) > 1 else 0.0
    ratio = logs[0].mean().exp().item() if logs else math.nan
    return ratio, later, errors[-1].mean().item() if errors else 0.0


def report(G: Generator, way: Way, ratios: Mapping[str, float]) -> str:
    """What was inferred, in words."""
    kinds = {True: "transposed convolution", False: "convolution"}
    lines = [f"{FAMILY}, inferred from a state dict:"]
    lines += [
        f"  {conv.name}: {kinds[conv.transposed]} {conv.shape[2]}x{conv.shape[2]}, {word(conv, step, way)}, "
        f"padding {step[1]}" + (f", output padding {step[2]}" if step[2] else "")
        for conv, step in zip(way.convs, way.steps, strict=True)
    ]
    lines.append(f"  hidden activation {f'leaky ReLU {way.slope}' if way.slope else 'ReLU'}; tanh assumed at the end")
    if way.epsilon != EPSILONS[0]:
        lines.append(f"  batch norms with eps {way.epsilon:g}, but the first")
    if way.bare:
        lines.append("  no activation behind the first norm")
    known = ", ".join(f"{law} {ratio:.2f}" for law, ratio in ratios.items())
    why = "assumed, as there are no batch statistics" if math.isnan(ratios["normal"]) else f"variance ratios: {known}"
    return "\n".join([*lines, f"  latent law {G.law} ({why}; 1 is right)"])


def word(conv: Conv, step: tuple[int, int, int], way: Way) -> str:
    if conv.transposed or step[0] == 1:
        return f"stride {step[0]}"
    return f"{way.mode} doubling in front"
