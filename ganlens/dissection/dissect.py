"""Match every unit of a layer with the concepts of a segmenter, in one pass over a sample of images."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from ganlens.arguments import MOST_IMAGES, first_few
from ganlens.dissection.checkpoint import Checkpoint, asked, cached
from ganlens.dissection.dissect_arguments import as_names, check_arguments, check_networks, check_work
from ganlens.dissection.half_precision import keeps_concepts
from ganlens.dissection.layer_statistics import RULES, table_bytes
from ganlens.dissection.passes import PILOT, Pass, Question, dissection_of, half_type, run_on
from ganlens.dissection.result import Dissection
from ganlens.dissection.state_check import check_state
from ganlens.models.alignment import check_alignment
from ganlens.models.base import Generator
from ganlens.models.batch_size import as_bytes, batch_within, steady_batch
from ganlens.models.network import ImageNetwork
from ganlens.progress import IncompleteWarning, interrupt_between_steps, progress_bar
from ganlens.segmenters.base import Segmenter

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_AUTO = 4000  # images of n="auto"
SETTLED = 0.92  # of the labels, at which it ends
Several = list[str] | tuple[str, ...]  # no Sequence[str], which a str is, too


class Options(TypedDict, total=False):
    """What `dissect` takes besides networks, layers and rule, for type checkers."""

    n: int | Literal["auto"]
    quantile: float
    sample: int
    batch_size: int | None
    progress: bool | Callable[[int, int], None]
    within_category: bool
    top: int
    memory: int | str | None
    checkpoint: str | Path | None
    cache: bool | str | Path
    executor: Executor | None
    shards: int | None
    half: bool
    watch: Callable | None


@overload
def dissect(
    generator: ImageNetwork, segmenter: Segmenter, layers: str, *, rule: str = ..., **options: "Unpack[Options]"
) -> Dissection: ...
@overload
def dissect(
    generator: ImageNetwork, segmenter: Segmenter, layers: Several, *, rule: str = ..., **options: "Unpack[Options]"
) -> dict[str, Dissection]: ...
@overload
def dissect(
    generator: ImageNetwork, segmenter: Segmenter, layers: str, *, rule: Several, **options: "Unpack[Options]"
) -> dict[str, Dissection]: ...
@overload
def dissect(
    generator: ImageNetwork, segmenter: Segmenter, layers: Several, *, rule: Several, **options: "Unpack[Options]"
) -> dict[str, dict[str, Dissection]]: ...
def dissect(
    generator: ImageNetwork,
    segmenter: Segmenter,
    layers: str | Sequence[str],
    *,
    n: int | Literal["auto"] = 1000,
    rule: str | Sequence[str] = "quantile",
    quantile: float = 0.01,
    sample: int = 0,
    batch_size: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
    within_category: bool = False,
    top: int = 32,
    memory: int | str | None = None,
    checkpoint: str | Path | None = None,
    cache: bool | str | Path = False,
    executor: Executor | None = None,
    shards: int | None = None,
    half: bool = False,
    watch: Callable | None = None,
) -> "Dissection | dict":
    """Find out what the units of a layer draw.

    Every image is generated and segmented once, for all layers and rules together. The result does not depend on
    interruptions or on how the work is shared out, not in a single bit; nor on the batch size, on a processor and with
    the generators that ganlens knows, but other networks may round differently in other batches. An interrupt returns
    what was seen so far, marked as incomplete.

    A unit that gives NaN or infinity in any image matches nothing, and is listed in ``broken``; no other unit is
    touched by that.

    Parameters
    ----------
    generator : Generator or Classifier
        From `ganlens.load_generator`, `Generator.wrap` or `Classifier.wrap`.
    segmenter : Segmenter
        From `ganlens.load_segmenter` or `Segmenter.wrap`.
    layers : str or sequence of str
        One layer, or several from the same pass.
    n : int or "auto"
        Size of the sample. With "auto" it ends, from 384 images on, when 92 % of the labels are settled, as
        `Dissection.settled` says of each layer and rule; with 4,000 images at the latest.
    rule : {"quantile", "iqr", "iou"} or a sequence of these
        How a unit's threshold is set. ``"quantile"``: the level that the unit exceeds at a share ``quantile`` of all
        pixels (Bau et al., PNAS 2020). ``"iqr"``, ``"iou"``: for each concept the level, of 100 candidates, with the
        highest information quality ratio (Bau et al., ICLR 2019) or IoU, chosen on the images of even seeds and scored
        on those of odd seeds.
    quantile : float
        Share of the pixels at which a unit is on, under the quantile rule.
    sample : int
        Which sample: images sample · 10⁶ … sample · 10⁶ + n - 1; samples do not overlap.
    batch_size : int, optional
        Images per pass; by default 8 on a processor, and what keeps features and images near 64 MB on a GPU.
    progress : bool or callable
        A progress bar, or a function called with (images done, n).
    within_category : bool
        Count a unit's area only over images in which the concept's category is present (ICLR 2019).
    top : int
        How many top images to keep for each unit.
    memory : int or str, optional
        How much may be taken, such as ``"2 GB"``; decides the batch size. Where memory does not suffice, the batch is
        halved, with a warning.
    checkpoint : path, optional
        A file (``.npz``) that takes the state every 30 seconds, and at an interrupt. After an interrupt, a restart or
        ``kill -9`` the same call goes on. It stays when the dissection is complete, and answers the same call at once.
    cache : bool or path
        A folder of such files, one for each question, found by the content of networks and settings; True is the folder
        ``dissections`` of the cache folder (``GANLENS_CACHE``).
    executor : concurrent.futures.Executor, optional
        Who works: processes, or machines of a cluster. Networks must be such that they can be sent there. A shard that
        fails is tried again, twice.
    shards : int, optional
        Into how many parts the work is divided for the executor; by default at most 64, of at least 64 images.
    half : bool
        Whether the networks compute in half precision, float16 on a GPU and bfloat16 elsewhere: faster where the
        processor has it. It is tried on the first 64 images; where it changes the concept of any unit, a warning says
        so and float32 is taken. ``origin["precision"]`` says what was.

    watch : callable, optional
        Called with what was found so far, in the form that is returned, and whether that is all: after 384, 512, 768,
        1,024, 1,536 … images, and at the end. `UnitGallery.live` opens a gallery that shows labels as they settle.

    Returns
    -------
    Dissection, or a dict
        By layer where a sequence of layers is given, by rule where a sequence of rules is given (layer first).

    Raises
    ------
    ValueError
        Unknown layer, empty sample, label planes of the wrong shape or range; a checkpoint that is damaged or belongs
        to something else; networks that cannot be sent to the executor.
    OSError
        The checkpoint cannot be written, or another process works on it.
    MemoryError
        Not even eight images fit into memory.
    RuntimeError
        Workers of the executor died, or failed three times.

    Examples
    --------
    >>> import ganlens as gl
    >>> G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    >>> gl.dissect(G, S, "layer4", n=16, progress=False).iou.shape
    (192, 13)
    """
    check_networks(generator, segmenter)
    names = as_names("layers", layers, f"names of layers; {generator.name} has {', '.join(generator.layers)}")
    auto = isinstance(n, str) and n == "auto"
    n = min(MOST_AUTO, getattr(generator, "count", None) or MOST_AUTO) if auto else n
    if (auto or watch is not None) and executor is not None:
        what = 'n="auto"' if auto else "watch"
        raise ValueError(f"{what} looks at the images in turn, and takes no executor; leave one of them out")
    rules = as_names("rule", rule, f"one or more of {', '.join(RULES)}")
    check_arguments(generator, names, n, rules, quantile, sample, batch_size, top)
    check_work(batch_size, memory, executor, shards, half, watch)
    if isinstance(generator, Generator):
        for layer in names:
            check_alignment(generator, layer)
    plain = int(sample) * MOST_IMAGES, int(n), float(quantile), bool(within_category), int(top)
    question = Question(tuple(names), tuple(rules), *plain, half, auto)
    batch = batch_size or batch_for(generator, segmenter, question, memory)
    pass_ = Pass(generator, segmenter, question, batch)
    given = layers, rule

    def look(pass_: Pass) -> None:
        if watch is not None:
            watch(found_by(pass_, *given, complete=False), False)

    with open_checkpoint(checkpoint, cache, generator, segmenter, question) as file:
        complete = look_at_sample(pass_, file, executor, shards, progress, None if watch is None else look)
    if not complete:
        words = f"interrupted after {pass_.seen:,} of {n:,} images: the dissection is a part of what was asked for"
        warnings.warn(words, IncompleteWarning, stacklevel=2)
    warn_of_broken(pass_)
    found = found_by(pass_, *given, complete)
    if watch is not None:
        watch(found, True)
    return found


def found_by(pass_: Pass, layers, rule, complete: bool) -> "Dissection | dict":
    """What a pass found: by layer and rule where sequences of these were asked for."""
    question, origin = pass_.question, origin_of(pass_)
    by_layer: dict[str, Any] = {
        layer: {r: dissection_of(pass_, layer, r, origin, complete) for r in question.rules}
        for layer in question.layers
    }
    if isinstance(rule, str):
        by_layer = {layer: by_rule[rule] for layer, by_rule in by_layer.items()}
    return by_layer[layers] if isinstance(layers, str) else by_layer


def batch_for(generator: ImageNetwork, segmenter: Segmenter, question: Question, memory: int | str | None) -> int:
    """Images at once: the usual number, or all that fit into a budget."""
    if memory is None:
        return steady_batch(generator, question.layers)
    units = {layer: generator.layers[layer] for layer in question.layers}
    settings = question.rules, question.quantile, question.within_category
    fixed = sum(table_bytes(shape[0], segmenter.concepts, *settings) for shape in units.values())
    fixed += 4 * len(question.pilot) * sum(u * h * w for u, h, w in units.values())
    return batch_within(as_bytes(memory), fixed, generator, question.layers)


@contextmanager
def open_checkpoint(checkpoint, cache, generator, segmenter, question: Question) -> Iterator[Checkpoint | None]:
    """Open the checkpoint file, or the one in the cache; yield None where neither is asked for."""
    if checkpoint is not None and cache not in (False, None):
        raise ValueError("checkpoint and cache were both given; one file holds the state, so give one of them")
    for name, given in (("checkpoint", checkpoint), ("cache", cache)):
        if given is not None and not isinstance(given, bool | str | Path):
            raise ValueError(f"{name}={given!r}: expected a path")
    if isinstance(checkpoint, bool):
        raise ValueError(f"checkpoint={checkpoint}: expected the path of a file; cache=True chooses one")
    if checkpoint is None and cache in (False, None):
        yield None
        return
    known = asked(generator, segmenter, question)
    with Checkpoint(cached(cache, known) if checkpoint is None else checkpoint, known) as file:
        yield file


def look_at_sample(
    pass_: Pass, file: Checkpoint | None, executor: Executor | None, shards: int | None, progress, look
) -> bool:
    """Look at all images that the file does not know; False if interrupted before the end. `look` sees the stages."""
    seeds = pass_.question.seeds
    state = file.load() if file else None
    with interrupt_between_steps() as interrupted:
        if file and state is not None:
            try:
                check_state(pass_, state)
                pass_.add(state)
            except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"{file.path} is damaged ({error}); it was left as it is: delete it") from error
        else:
            pass_.half = pass_.question.half and keeps_concepts(pass_, progress, interrupted)
            if file:
                file.save(pass_.state())  # now it turns out whether that can be done
        if pass_.seen < len(seeds) and not is_settled(pass_):
            look_at_the_rest(pass_, file, executor, shards, progress, interrupted, look)
    return pass_.seen == len(seeds) or is_settled(pass_)


def look_at_the_rest(pass_: Pass, file: Checkpoint | None, executor, shards, progress, interrupted, look) -> None:
    """Look at all images that were not looked at, until interrupted."""
    seeds, known = pass_.question.seeds, pass_.seen
    with progress_bar(progress, len(seeds), "dissect") as done:
        if known:
            done(known)

        def after(pass_: Pass, images: int) -> bool:
            try:
                done(images)
            except KeyboardInterrupt:
                return True
            if file and pass_.seen < len(seeds) and (file.due() or pass_.seen - images < PILOT <= pass_.seen):
                file.try_to_save(pass_.state())
            return interrupted()

        def keep(pass_: Pass) -> None:
            if file:
                file.try_to_save(pass_.state())

        if executor is None:
            for part in pass_.question.stages if look or pass_.question.auto else [seeds]:
                if not pass_.run(part, after, keep) or is_settled(pass_):
                    break
                if look and known < len(part) < len(seeds):
                    keep(pass_)
                    try:
                        look(pass_)
                    except KeyboardInterrupt:
                        break
        else:
            run_on(executor, pass_, shards, after, keep, interrupted)
        keep(pass_)
    pass_.settle()


def is_settled(pass_: Pass) -> bool:
    """Whether a dissection that may end by itself has come to a stage at which all layers are settled, by all rules."""
    if not pass_.question.auto or pass_.seen not in map(len, pass_.question.stages[:-1]):
        return False
    pairs = [(layer, rule) for layer in pass_.question.layers for rule in pass_.question.rules]
    return all(dissection_of(pass_, *pair, origin_of(pass_)).settled >= SETTLED for pair in pairs)


def warn_of_broken(pass_: Pass) -> None:
    for layer, tally in pass_.tallies.items():
        units = tally.broken.units
        if units:
            images, one = int(tally.broken.images.max()), len(units) == 1
            warnings.warn(
                f"{layer} of {pass_.generator.name}: {len(units)} unit{'' if one else 's'} ({first_few(units)}) gave "
                f"NaN or infinity, in up to {images} of {pass_.seen} images, and match{'es' if one else ''} nothing; "
                "check the weights, or run the network in float32",
                stacklevel=3,
            )


def origin_of(pass_: Pass) -> dict:
    """Names, fingerprints and unusual settings, as `Dissection.origin` holds them."""
    generator, segmenter = pass_.generator, pass_.segmenter
    both = (("generator", generator), ("segmenter", segmenter))
    origin = {f"{what}_fingerprint": live.fingerprint for what, live in both}
    origin |= {"generator": generator.title, "segmenter": segmenter.name}
    origin |= {"precision": str(half_type(generator.device.type)).removeprefix("torch.")} if pass_.half else {}
    return origin | ({"generator_settings": generator.chosen} if generator.chosen else {})
