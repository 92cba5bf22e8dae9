"""Generators of linear maps alone (Goodfellow et al., 2014; Mirza & Osindero, 2014), from a state dict alone.

Activations, and what stands in front of what, are those under which the batch statistics come true, as for
`ganlens.models.families.dcgan`.
"""

import math
import warnings
from collections.abc import Sequence

from torch import nn

from ganlens.models.base import Generator
from ganlens.models.bit_exact import Dense
from ganlens.models.families.dcgan import FEW_TIMES, Chain, free_name
from ganlens.models.families.dcgan_layers import Part, Start, loaded, parts_of
from ganlens.models.families.dcgan_search import EPSILONS, Path, Search
from ganlens.models.families.plain_endings import decoder_of, ended, ending_of, is_autoencoder
from ganlens.models.families.plain_fronts import SAID, Conditional, Front, readings
from ganlens.models.files.reading import CheckpointError, check_maps
from ganlens.models.files.states import State

FAMILY = "network of linear maps"
FORMAT = "a network of linear maps alone, also of classes (2-D weights; the last has C x Y x X outputs)"
ENDS_AS_ASKED = True

PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
FITS, MARGIN = 0.2, 6.0  # as for DCGAN
LEAST_SIDE, SLOPE = 8, 0.2  # of images; of activations that nothing tells


def likeness(state: State) -> float:
    """A little where there are linear maps and norms alone."""
    maps = [item for name, item in state.items.items() if len(item.shape) == 2]
    plain = sum(name.rpartition(".")[2] in PARTS and len(item.shape) < 3 for name, item in state.items.items())
    return 0.3 if len(maps) >= 2 and plain == len(state.items) else 0.0


def build(state: State, name: str) -> Generator:
    """The generator of a state dict.

    Raises
    ------
    CheckpointError
        The layers do not follow upon one another, or the last one does not give an image.
    """
    tensors = {key: x.float() for key, x in state.tensors().items()}
    decoder = is_autoencoder(tensors)
    parts = parts_of(decoder_of(tensors) if decoder else tensors)
    shape = image_of(parts)
    ending = ending_of(state.asked.get("output"), decoder)
    search, path, front = searched(parts, shape)
    modules = ended(built(search.parts, path), ending)
    vectors = [key for key in modules if key != "image_range"]
    modules["image"] = nn.Unflatten(1, shape)
    net = Chain(modules) if front.kind == "latent" else Conditional(front, [], modules)
    vectors = [*([front.table.name] if front.table else []), *vectors]
    law = path.way.law or "normal"
    G = Generator(
        net.requires_grad_(False).eval(), front.z_dim, name, layers=["image"], law=law, classes=front.classes,
        vectors=vectors, trusted=True,
    )  # fmt: skip
    told = f"comes true to {path.error:.3f} of deviations" if search.informed(0) else "is all assumed"
    slope = SLOPE if path.way.slope is None else path.way.slope
    assumed = " assumed" if state.asked.get("output") is None else ", as you say,"
    G.about = (
        f"{FAMILY}: leaky ReLU {slope:g}, {SAID[front.kind]}, latent law {law}, {ending}{assumed} at the end; "
        f"this {told}"
    )
    return G


def image_of(parts: Sequence[Part]) -> tuple[int, int, int]:
    """(C, Y, X) of the image, by the outputs of the last layer."""
    outputs = next((part.shape[0] for part in reversed(parts) if part.kind == "dense"), 0)
    for colors in (1, 3):
        side = math.isqrt(outputs // colors)
        if colors * side * side == outputs and side >= LEAST_SIDE:
            return colors, side, side
    raise CheckpointError(
        f"closest to a {FAMILY}, but its last layer has {outputs} outputs, no image of 1 or 3 channels"
    )


def searched(parts: list[Part], shape: tuple[int, int, int]) -> tuple[Search, Path, Front]:
    """The front and the way that the statistics speak for; a warning says what they leave open."""
    best: tuple[Search, Path] | None = None
    error: CheckpointError | None = None
    close: set[float | None] = set()
    for (front, rest), fresh in readings(parts):
        if fresh and best is not None and best[1].times <= FEW_TIMES:
            continue  # they come true as they are
        try:
            check(rest)
        except CheckpointError as unfit:
            error = error or unfit
            continue
        fitted = front.fitted(rest[0].shape[1])
        search = Search(rest, Start(rest[0].shape[1], shape[0], shape[1]), fitted, fresh)
        paths = sorted(search.paths(), key=lambda path: path.against(1))
        if search.informed(0) and paths[0].error > FITS:
            error = CheckpointError(
                f"closest to a {FAMILY}, but the batch statistics do not come true in it (error {paths[0].error:.2f})"
            )
            continue
        if best is None or paths[0].against(1) < best[1].against(1):
            best = search, paths[0]
            close = {path.way.slope for path in paths if path.against(1) <= paths[0].against(1) + MARGIN}
    if best is None:
        raise error or CheckpointError(f"closest to a {FAMILY}, but its first layer has no place for a latent")
    search, path = best
    doubts = [f"hidden leaky ReLU {path.way.slope or SLOPE:g}"] if path.way.slope is None or len(close) > 1 else []
    if path.way.epsilon is None and any(part.kind == "norm" for part in parts):
        doubts.append(f"batch norms with eps {EPSILONS[0]:g} (or {EPSILONS[1]:g})")
    if doubts:
        warnings.warn(
            f"no batch statistics tell for sure, so it is assumed: {', '.join(doubts)}. If it is otherwise, build the "
            "network yourself: Generator.wrap(net, z_dim=…)",
            stacklevel=6,
        )
    return search, path, search.front


def check(parts: Sequence[Part]) -> None:
    """CheckpointError where a layer cannot follow upon the one before it."""
    reached = parts[0].shape[1] if parts[0].kind == "dense" else 0
    for part in parts:
        outputs = part.size if part.kind == "norm" else part.shape[0] if part.kind == "dense" else 0
        inputs = part.size if part.kind == "norm" else part.shape[1] if part.kind == "dense" else 0
        lengths = {name: len(x) for name, x in part.tensors.items() if x.ndim == 1}
        if inputs != reached or not outputs or set(lengths.values()) - {outputs}:
            raise CheckpointError(f"closest to a {FAMILY}, but {part.name} does not follow upon {reached} numbers")
        reached = outputs
    if not reached or parts[-1].kind != "dense":
        raise CheckpointError(f"closest to a {FAMILY}, but its last layer is no linear map")
    check_maps(f"a {FAMILY}", [(part.shape[0], 1) for part in parts if part.kind == "dense"])


def built(parts: Sequence[Part], path: Path) -> dict[str, nn.Module]:
    """All modules by name."""
    way, modules = path.way, dict[str, nn.Module]()
    taken = {part.name for part in parts}
    slope = SLOPE if way.slope is None else way.slope
    bare = {0, int(parts[1].kind == "norm")} if way.bare else set()
    for i, (part, after) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        if part.kind == "dense":
            module: nn.Module = Dense(part.shape[1], part.shape[0], bias="bias" in part.tensors)
        else:
            module = nn.BatchNorm1d(part.size, eps=way.epsilon or EPSILONS[0], affine="weight" in part.tensors)
        modules[part.name] = loaded(module, part.name, part.tensors)
        if after is None:
            modules[free_name(part.name, taken)] = nn.Identity()  # to be chosen
        elif i not in bare and (after.kind != "norm") != bool(way.early and "norm" in (part.kind, after.kind)):
            name = free_name(part.name, taken)
            modules[name] = nn.LeakyReLU(slope) if slope else nn.ReLU()
            taken.add(name)
    return modules
