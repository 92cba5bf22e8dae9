"""From a checkpoint file to a generator: the content decides which family it is."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ganlens.models.base import Generator
from ganlens.models.families import dcgan, progan, stylegan2_files
from ganlens.models.families import progan_ablations as ablations
from ganlens.models.families.rewriting import rewrite
from ganlens.models.files.reading import CheckpointError, listed, read, state_of, tensors
from ganlens.models.files.records import Record, Stored

FORMATS = (
    "Progressive GAN of gandissect (layer1.conv.weight, …, output_32x32.conv.weight; or features.0.conv.weight, …), "
    "and its ablations",
    "StyleGAN2 of rosinality (style.1.weight, convs.0.conv.weight, …)",
    "StyleGAN2(-ADA) of NVIDIA (synthesis.b4.const, mapping.fc0.weight, …)",
    "plain DCGAN (a 4-D weight (Z, C, k, k) or a linear map, transposed convolutions, batch norms)",
)

# Names under which generators are found in files, the preferred ones first.
NAMES = (
    "g_ema G_ema generator_ema ema_generator netG_ema avgG generator netG G gen g decoder state_dict model_state_dict"
)
RANK = {name: rank for rank, name in enumerate(NAMES.split())}
MOST_DEPTH = 3  # of dicts within dicts


class State:
    """One state dict of a file: where it was found, and its tensors by name."""

    def __init__(self, where: str, items: Mapping[str, Stored | torch.Tensor], module: Record | None = None):
        self.where, self.items, self.module = where, items, module

    @property
    def rank(self) -> int:
        return RANK.get(self.where.rpartition(".")[2], len(RANK))

    @property
    def scores(self) -> dict[str, float]:
        """How well each family fits, by names and shapes alone."""
        return {
            progan.FAMILY: progan.likeness(self.items),
            stylegan2_files.ROSINALITY: stylegan2_files.share(stylegan2_files.ROSINALITY_KEYS, self.items),
            stylegan2_files.NVIDIA: stylegan2_files.share(stylegan2_files.NVIDIA_KEYS, self.items),
            ablations.FAMILY: ablations.likeness(self.items),
            dcgan.FAMILY: dcgan.likeness({name: tuple(item.shape) for name, item in self.items.items()}),
        }


def from_file(
    path: str | Path,
    truncation: float | None = None,
    label: int | None = None,
    name: str | None = None,
    fast: bool | str = True,
) -> Generator:
    """The generator of a checkpoint; nothing in the file is executed.

    Parameters
    ----------
    path : str or Path
    truncation : float, optional
        Psi of StyleGAN2, in [0, 1]; 1 (none) by default.
    label : int, optional
        The class of all images, for conditional networks; by default, each seed has a class of its own.
    name : str, optional
        What the generator is called; by default as the file.
    fast : bool or "bfloat16"
        Whether the network is rewritten for speed, see `ganlens.load_generator`.

    Raises
    ------
    CheckpointError
        The file is damaged, asks for code, or fits no family; the message says which is closest. It is a ValueError.
    ValueError
        The family knows no truncation or no classes.
    """
    path = Path(path)
    tree, size = read(path), path.stat().st_size
    found = sorted(
        (
            (score, -state.rank, i, family, state)
            for i, state in enumerate(states(tree))
            for family, score in state.scores.items()
        ),
        key=lambda row: row[:3],
        reverse=True,
    )
    errors = []
    for score, _, _, family, state in found[:12]:
        if score > 0:
            try:
                G = built(family, state, tree, size, name or path.stem)
            except CheckpointError as error:
                errors.append(str(error))
                continue
            if fast:
                rewrite(G, torch.bfloat16 if fast == "bfloat16" else torch.float32)
            wanted = {"truncation": truncation, "label": label}
            return G.variant(**{key: value for key, value in wanted.items() if value is not None})
    raise CheckpointError(f"{path} fits no known format. {unfit(errors, found)}\nKnown are: {'; '.join(FORMATS)}")


def unfit(errors: list[str], found: list) -> str:
    if errors:
        return f"It is {errors[0]}."
    if found:
        return f"It holds {listed(list(found[0][-1].items))}."
    return "It holds no tensors by name."


def built(family: str, state: State, tree, size: int, name: str) -> Generator:
    """The generator of a state dict, taken for one of a family."""
    items = tensors(state.items, size)
    try:
        if family == progan.FAMILY:
            return progan.from_state(items, name)
        if family == ablations.FAMILY:
            return ablations.from_state(items, name)
        if family == stylegan2_files.ROSINALITY:
            mean = tree.get("latent_avg") if isinstance(tree, dict) else None
            mean = next(iter(tensors({"latent_avg": mean}, size).values()), None)
            return stylegan2_files.from_rosinality(items, mean, name)
        if family == stylegan2_files.NVIDIA:
            return stylegan2_files.from_nvidia(items, state.module, name)
        return dcgan.from_state(items, name)
    except (RuntimeError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"closest to {family}, but its tensors do not fit one another ({error})") from error


def states(tree) -> Iterator[State]:
    """All state dicts of a file, also those in dicts within dicts, and those of a generator among other networks."""
    seen: set[int] = set()
    waiting = [("", tree, 0)]
    while waiting:
        where, value, depth = waiting.pop(0)
        if id(value) in seen or depth > MOST_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            yield State(where, state_of(value), value)
        elif isinstance(value, dict):
            inner = {name: item for name, item in value.items() if isinstance(name, str)}
            held = {name: item for name, item in inner.items() if isinstance(item, Stored | torch.Tensor)}
            if len(held) > 1:
                yield from unwrapped(where, held)
            waiting += [(f"{where}.{name}".lstrip("."), v, depth + 1) for name, v in inner.items() if name not in held]


def unwrapped(where: str, items: dict) -> Iterator[State]:
    """A state dict, and those of the generators in it, without the prefixes that wrappers add."""
    if all(name.startswith("module.") for name in items):
        items = {name.removeprefix("module."): item for name, item in items.items()}
    yield State(where, items)
    for prefix in {name.partition(".")[0]: None for name in items}:
        if prefix in RANK:
            start = f"{prefix}."
            part = {name.removeprefix(start): item for name, item in items.items() if name.startswith(start)}
            yield State(f"{where}.{prefix}", {name.removeprefix("module."): item for name, item in part.items()})
