"""Plain DCGAN (Radford et al., ICLR 2016) from a state dict alone: what is not in the file is inferred and reported.

Stored are weights, biases and batch statistics. Strides and paddings, activations and their places, and the law of the
latent are those under which the batch statistics come true; where they do not tell, those that lead most usually to an
image of a usual size, with a warning.
"""

import copy
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense
from ganlens.models.families.dcgan_layers import (
    FAMILY,
    USUAL_SIZES,
    Conv,
    Part,
    Start,
    Step,
    check_chain,
    loaded,
    parts_of,
    sizes,
    start_of,
    unusual,
)
from ganlens.models.families.dcgan_search import EPSILONS, Path, Search, Way
from ganlens.models.families.plain_endings import decoder_of, ended, ending_of, is_autoencoder
from ganlens.models.families.plain_fronts import SAID, Conditional, Front, readings
from ganlens.models.families.spectral_norm import settled
from ganlens.models.families.stylegan2 import place_module
from ganlens.models.files.reading import CheckpointError, check_maps, fit
from ganlens.models.files.states import State

FORMAT = (
    "plain DCGAN, also of classes, and decoders of VAE (a 4-D weight (Z, C, k, k) or a linear map, perhaps an "
    "embedding of classes or a second first layer for them, transposed convolutions, batch norms)"
)
ENDS_AS_ASKED = True  # as `load_generator` is told

SPECTRAL = {"weight_orig", "weight_u", "weight_v", "original", "_u", "_v"}
PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
FITS = 0.2  # largest error at which a way is believed
TIMES, FEW_TIMES = 10.0, 3.0  # how many times what chance does it may be; the second of ways that nobody is known to go
MARGIN = 6.0  # how much more may speak against another way, to be told of
DECODER_SLOPES = {0.0: 4.0, 0.01: 0.0}  # torch's own slope is the usual one in decoders
LEAST_SIDE = 16  # of images without batch statistics that speak for them


def likeness(state: State) -> float:
    """A little where there are convolutions and nothing but layers and norms: any other family is a better match."""
    convs = [name for name, item in state.items.items() if len(item.shape) == 4]
    plain = sum(name.rpartition(".")[2] in PARTS | SPECTRAL for name in state.items)
    return 0.4 * plain / len(state.items) if len(convs) >= 2 else 0.0


def build(state: State, name: str) -> Generator:
    """The generator of a state dict."""
    return from_state(state.tensors(), name, state.asked.get("output"))


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


def from_state(state: Mapping[str, torch.Tensor], name: str | None = None, output: str | None = None) -> Generator:
    """The generator of a state dict of transposed convolutions, batch norms and perhaps a linear map in front.

    Parameters
    ----------
    state : mapping of str to Tensor
        In the order of the forward pass: ``main.0.weight`` (Z, C, 4, 4), ``main.1.running_mean`` (C,), …; or first a
        linear map (C s s, Z). Classes may have an embedding, (classes, E), or a first layer of their own; of an
        autoencoder only the decoder is taken. The last layer yields 1 or 3 channels.
    output : {"tanh", "sigmoid", "[-1,1]", "[0,1]"}, optional
        What stands behind the last layer, or the range of what it gives; by default tanh is assumed, and for the
        decoder of an autoencoder a sigmoid, with a warning.

    Returns
    -------
    Generator
        Its ``about`` says what was inferred.

    Raises
    ------
    CheckpointError
        The layers do not follow upon one another, or other tensors are left over.
    """
    decoder = is_autoencoder(state)
    parts = parts_of({key: x.float() for key, x in settled(decoder_of(state) if decoder else state, FAMILY).items()})
    ending = ending_of(output, decoder)
    search, path, doubts = searched(parts, decoder)
    tell(doubts)
    modules, maps = built(search.parts, search.start, path.way)
    modules, extra = ended(modules, ending), {"latent", "maps", "image_range"}
    extra |= {name for name, module in modules.items() if isinstance(module, nn.Upsample)}
    net, branched = with_front(search.front, modules)
    maps += branched if search.parts[0].kind == "conv" else []
    own = dict.fromkeys([*([search.front.table.name] if search.front.table else []), *branched, *modules])
    vectors = [key for key in own if key not in maps and key not in extra]
    front, law = search.front, path.way.law or "normal"
    said = f"{ending} assumed" if output is None else f"{ending}, as you say,"
    G = Generator(
        net.requires_grad_(False).eval(), front.z_dim, name or FAMILY,
        layers=[key for key in own if key in maps], law=law, classes=front.classes, vectors=vectors, trusted=True,
    )  # fmt: skip
    G.about = report(G, path.way, path.error if search.informed(0) else None, said, front)
    return G


def searched(parts: list[Part], decoder: bool) -> tuple[Search, Path, list[str]]:
    """The front and the way that the statistics speak for; what they leave open, in words."""
    best: tuple[Search, Path, list[str]] | None = None
    least = math.inf
    error: CheckpointError | None = None
    for (front, rest), fresh in readings(parts):
        if fresh and best is not None and best[1].times <= FEW_TIMES:
            continue  # they come true as they are
        try:
            check(rest)
            start = start_of(rest)
            check_chain(rest, start)
            fitted = front.fitted(start.z_dim)
            if fitted.z_dim < 1:
                raise CheckpointError(f"closest to {FAMILY}, but its first layer has no place for a latent")
            search = Search(rest, start, fitted, fresh)
            search.slopes += (0.01,) if decoder else ()
            path, doubts = chosen(search, DECODER_SLOPES if decoder else {})
        except CheckpointError as unfit:
            error = error or unfit
            continue
        if front.kind == "behind" and not search.informed(0):
            doubts.append("that the embedding of the class follows the latent")
        against = path.against(1) + (MARGIN if fresh else 0)
        if best is None or against < least:
            best, least = (search, path, doubts), against
    if best is None:
        raise cast(CheckpointError, error)
    return best


def with_front(front: Front, modules: dict[str, nn.Module]) -> tuple[nn.Module, list[str]]:
    """The network, and the names of the modules in branches; ``modules`` loses what the front stands for."""
    if front.kind == "latent":
        return Chain(modules), []
    modules.pop("latent", None)
    branches: list[dict[str, nn.Module]] = []
    if front.kind == "beside":
        count = len(front.branches[0])
        first = [key for key in modules if key in {part.name for part in front.branches[0]}]
        leading = list(modules)[: 1 if count == 1 else list(modules).index(first[-1]) + 1]
        following = list(modules)[len(leading) : len(leading) + 1]
        if count == 2 and isinstance(modules[following[0]], nn.ReLU | nn.LeakyReLU):
            leading += following
        taken = {name: modules.pop(name) for name in leading}
        for parts in front.branches:
            branches.append(branch_of(parts, taken))
    return Conditional(front, branches, modules), [name for branch in branches for name in branch]


def branch_of(parts: Sequence[Part], taken: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules of one branch, after those that stand for both; activations keep their kind and place."""
    found: dict[str, nn.Module] = {}
    waiting = list(parts)
    for module in taken.values():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            found[free_name(list(found)[-1], found)] = copy.deepcopy(module)  # each branch has its own
            continue
        part = waiting.pop(0)
        one = one_of(module, part)
        found[part.name] = loaded(one, part.name, part.tensors)
    return found


def one_of(module: nn.Module, part: Part) -> nn.Module:
    """A module like one that stands for two, with the sizes of one of them."""
    bias = "bias" in part.tensors
    if isinstance(module, nn.ConvTranspose2d):
        stride, padding, more = (
            cast(tuple[int, int], x) for x in (module.stride, module.padding, module.output_padding)
        )
        inputs, outputs, side, _ = part.shape
        return nn.ConvTranspose2d(inputs, outputs, side, stride, padding, more, bias=bias)
    if isinstance(module, Dense):
        return Dense(part.shape[1], part.shape[0], bias=bias)
    norm = cast(nn.BatchNorm2d, module)
    return type(norm)(part.size, eps=norm.eps, affine="weight" in part.tensors)


def chosen(search: Search, slopes: Mapping[float, float]) -> tuple[Path, list[str]]:
    """The most usual of the ways that the statistics do not tell from the best one; and what they leave open.

    ``slopes`` says how much more unusual than elsewhere some slopes of activations are.

    Raises
    ------
    CheckpointError
        The statistics come true in none of them, or nothing tells where maps are doubled.
    """
    paths, start = search.paths(), search.start
    grey = search.stages[-1].layer.shape[1 if paths and paths[0].way.convs[-1].transposed else 0] == 1
    extra = {path.way: path.way.oddness + slopes.get(path.way.slope or 0.0, 0.0) for path in paths}
    paths = [path._replace(cost=path.cost + unusual(path.size, grey) + extra[path.way]) for path in paths]
    if not paths:
        raise CheckpointError(f"closest to {FAMILY}, but no strides and paddings lead to an image")
    scale = max(1.0, min(path.times for path in paths))  # weights that still moved make all statistics less sharp
    paths.sort(key=lambda path: (path.against(scale), path.way.steps))
    best, way = paths[0], paths[0].way
    alike = [path for path in paths if path.against(scale) <= best.against(scale) + MARGIN]
    check_maps(FAMILY, sizes(way.convs, start, way.steps))
    usual = search.is_usual(way) or not search.informed(0)
    if best.error > FITS or best.times > (TIMES if usual and best.size in USUAL_SIZES else FEW_TIMES):
        raise unsure(start, f"the batch statistics do not come true in the nearest network (error {best.error:.2f})")
    first = int(start.size == 1)  # a latent of one cell becomes a map
    plain = any(not any(conv.transposed for conv in path.way.convs[first:]) for path in alike)
    if plain and not search.informed(0):
        raise unsure(start, "there are no batch statistics to tell")
    others = alike[1:]
    larger = [path.size for path in others if path.size in USUAL_SIZES and path.size > best.size]
    even = all((c.transposed and c.shape[2] % 2 == 0) or c.shape[2] == 1 for c in way.convs)
    if (plain and larger and best.size not in USUAL_SIZES) or (best.size < LEAST_SIDE and not even):
        raise unsure(start, f"its image would be {best.size} x {best.size}")
    return best, doubts_of(best, others, [conv.name for conv in search.guessed(way)], not usual)


def doubts_of(best: Path, others: Sequence[Path], guessed: Sequence[str], odd: bool) -> list[str]:
    """What the statistics have not told: the size of the images, or how layers are run; and what is odd."""
    sides = sorted({path.size for path in others if path.size in USUAL_SIZES} - {best.size})
    words = []
    if odd and not sides:
        words.append(f"images of {best.size} x {best.size} pixels, by unusual strides or paddings")
    if sides:
        words.append(f"images of {best.size} x {best.size} pixels (or {' or '.join(map(str, sides))})")
    slopes = {path.way.slope for path in others if path.way.slope != best.way.slope}
    if best.way.slope is None or slopes:
        alternatives = [activation(slope) for slope in slopes] or ["ReLU" if best.way.slope else "leaky ReLU 0.2"]
        words.append(f"hidden {activation(best.way.slope)} (or {' or '.join(alternatives)})")
    if guessed:
        words.append(f"the usual strides of {', '.join(guessed)}")
    if {path.way.law for path in others} - {best.way.law}:
        words.append(f"{best.way.law} latents")
    return words


def tell(doubts: Sequence[str]) -> None:
    """Warn of what is assumed."""
    if doubts:
        warnings.warn(
            f"no batch statistics tell for sure, so it is assumed: {', '.join(doubts)}. If it is otherwise, build the "
            "network yourself: Generator.wrap(net, z_dim=…)",
            stacklevel=6,
        )


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
    for part in parts:
        lengths = {(n,) for n in {"norm": (part.size,), "dense": part.shape[:1]}.get(part.kind, part.shape[:2])}
        for what, tensor in part.tensors.items():
            whole = what == "num_batches_tracked" or (what == "weight" and part.kind != "norm")
            if not whole and tuple(tensor.shape) not in lengths:
                shape, fitting = tuple(tensor.shape), " or ".join(map(str, sorted(lengths)))
                raise CheckpointError(
                    f"closest to {FAMILY}, but {part.name}.{what} has shape {shape} where {fitting} would fit"
                )


def built(parts: list[Part], start: Start, way: Way) -> tuple[dict[str, nn.Module], list[str]]:
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
    bare = {0, int(parts[1].kind == "norm")} if way.bare else set()
    for i, (part, after) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        if flat and (
            part.kind == "conv" or (part.kind == "norm" and part.size == start.units < start.units * start.size**2)
        ):
            modules["maps"], flat = nn.Unflatten(1, (start.units, start.size, start.size)), False
        if part.kind == "conv":
            conv, step = steps_of[part.name]
            if not conv.transposed and step[0] > 1:
                smooth = {"align_corners": False} if way.mode == "bilinear" else {}
                modules[name_before(part.name, taken)] = nn.Upsample(None, step[0], way.mode or "nearest", **smooth)
            add(part.name, conv.module(step, part.tensors))
        elif part.kind == "dense":
            dense = Dense(part.shape[1], part.shape[0], bias="bias" in part.tensors)
            add(part.name, loaded(dense, part.name, part.tensors))
        else:
            norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(part.size, affine="weight" in part.tensors)
            if i != first:
                norm.eps = way.epsilon or EPSILONS[0]
            add(part.name, loaded(norm, part.name, part.tensors))
        if after is None:
            add(free_name(part.name, taken), nn.Tanh())
        elif i not in bare and (after.kind != "norm") != bool(way.early and "norm" in (part.kind, after.kind)):
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


def report(G: Generator, way: Way, error: float | None, ending: str, front: Front) -> str:
    """What was inferred, in words."""
    kinds = {True: "transposed convolution", False: "convolution"}
    lines = [f"{FAMILY}, inferred from a state dict:"]
    lines += [
        f"  {conv.name}: {kinds[conv.transposed]} {conv.shape[2]}x{conv.shape[2]}, {word(conv, step, way)}, "
        f"padding {step[1]}" + (f", output padding {step[2]}" if step[2] else "")
        for conv, step in zip(way.convs, way.steps, strict=True)
    ]
    lines.append(f"  hidden {activation(way.slope)}{' in front of the norms' * bool(way.early)}; {ending} at the end")
    if front.classes:
        lines.append(f"  {front.classes} classes: {SAID[front.kind]}")
    if way.epsilon not in (None, EPSILONS[0]):
        lines.append(f"  batch norms with eps {way.epsilon:g}, but the first")
    if way.bare:
        lines.append("  no activation behind the first layer")
    lines.append(f"  latent law {G.law}")
    if error is None:
        return "\n".join([*lines, "all of this assumed, as there are no batch statistics"])
    return "\n".join([*lines, f"under which the batch statistics come true to {error:.3f} of their deviations"])


def activation(slope: float | None) -> str:
    return f"leaky ReLU {slope}" if slope else "ReLU"


def word(conv: Conv, step: Step, way: Way) -> str:
    if conv.transposed or step[0] == 1:
        return f"stride {step[0]}"
    return f"{way.mode or 'nearest'} doubling in front"
