"""The command line: each command is a few lines over the public API.

To add a command, write a function under `@command`: its arguments stand above it, its docstring is its help, and what
it returns is the exit status (nothing is 0). Results go to stdout through `emit`, everything else to stderr through
`note` and `tell`. Heavy imports stand inside the commands, so that ``ganlens --help`` answers at once.
"""

import json
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ganlens.cli_pictures  # noqa: F401  its commands are among those of the parser
from ganlens.command_parser import (
    FORCE,
    GENERATOR,
    PICTURES,
    QUIET,
    argument,
    build_parser,
    command,
    page_file,
    picture_file,
    seed_number,
    whole,
    whole_or_auto,
)
from ganlens.files import check_targets, write_atomically
from ganlens.progress import IncompleteWarning, interrupt_between_steps
from ganlens.tables import text_table, write_csv
from ganlens.terminal import INTERRUPTED, USAGE, emit, emit_json, flush, note, run_command, tell, usage

MEASURES = ("dissection", "large", "causal", "networks", "shards", "memory")  # of `ganlens.benchmark`


RULES = ("quantile", "iqr", "iou")  # those of ganlens.dissection.dissect, which takes too long to import for --help
HOW_RULES = (
    "how the level is set above which a unit is on: 'quantile' lets it be on at a fixed share of all pixels; 'iqr' and "
    "'iou' choose for every concept the level of best agreement on half of the images and score it on the other half"
)
HOW_PICTURE = (
    "write a picture with a row for each unit of the table: the images that activate it most, lit where it is on; "
    "needs the generator that the file was made with"
)
HOW_CHECKPOINT = (
    "keep the state in this file: the same command then goes on where it was stopped, by Ctrl-C or by a crash, and "
    "answers at once when all is done"
)
SEVERAL = "; of several layers, each into a file of its own"
JSON = argument("--json", action="store_true", help="print JSON instead of text")


# ---- commands


@command(JSON, examples=["ganlens models", "ganlens models --json"])
def models(args) -> None:
    """List the generators and segmenters that can be used by name."""
    from ganlens.models import list_models
    from ganlens.segmenters import list_segmenters

    if args.json:
        return emit_json({"generators": list_models().rows(), "segmenters": list_segmenters()})
    rows = [{"segmenter": name, "about": about} for name, about in list_segmenters().items()]
    emit(f"{list_models()}\n\n{text_table(rows)}")


@command(
    argument("generator", nargs="?", default="scenes", help="name of a generator; `ganlens models` lists them"),
    JSON,
    examples=["ganlens layers", "ganlens layers scenes --json"],
)
def layers(args) -> None:
    """List the layers of a generator in the order of the forward pass.

    Each has a number of units, and every unit is a map of height x width cells.
    """
    from ganlens.models import load_generator

    with usage():
        generator = load_generator(args.generator)
    rows = [{"layer": name, "units": u, "height": h, "width": w} for name, (u, h, w) in generator.layers.items()]
    emit_json({"generator": generator.name, "layers": rows}) if args.json else emit(text_table(rows))


@command(
    argument("layers", nargs="+", metavar="LAYER", help="one or more layers; `ganlens layers` lists them"),
    argument("--generator", default="scenes", metavar="NAME", help="the generator to look into"),
    argument("--segmenter", default="scenes", metavar="NAME", help="what finds the concepts in its images"),
    argument("-n", type=whole_or_auto, default=1000, metavar="N", help="how many images; auto: until labels settle"),
    argument("--rule", choices=RULES, default="quantile", help=HOW_RULES),
    argument("--quantile", type=float, default=0.01, metavar="SHARE", help="that share, for the rule quantile"),
    argument("--sample", type=int, default=0, help="which sample of images; samples do not overlap"),
    argument("--batch-size", type=whole, metavar="N", help="images at a time; matters for speed and memory only"),
    argument("--within-category", action="store_true", help="count a unit only in images with the concept's category"),
    argument("--half", action="store_true", help="half precision, unless it changes a concept of the first 64 images"),
    argument("--workers", type=whole, metavar="N", help="how many processes share the work, with one thread each"),
    argument("--checkpoint", type=Path, metavar="FILE.npz", help=HOW_CHECKPOINT),
    argument("-o", "--output", type=Path, metavar="FILE.npz", help="save the result, for `ganlens show`" + SEVERAL),
    argument("--csv", type=Path, metavar="FILE", help="write the table of all units as CSV" + SEVERAL),
    argument("--json", action="store_true", help="print JSON: settings, summary, units; of several layers, by layer"),
    FORCE,
    QUIET,
    examples=[
        "ganlens dissect layer4",
        "ganlens dissect layer2 layer4 -n 2000 -o run.npz",
        "ganlens dissect layer4 -n 20000 --workers 2 --checkpoint run.npz",
    ],
)
def dissect(args) -> int:
    """Find out what the units of a layer draw.

    Generates images, lets the segmenter find the concepts in them, and compares
    every unit with every concept. Output files are checked before the work
    begins; of several layers, each is saved in a file of its own, with the layer's
    name before the ending: -o run.npz writes run-layer2.npz and run-layer4.npz.
    Ctrl-C ends the work early: what was seen so far is printed, and saved if -o or
    --csv is given, marked as incomplete. With --checkpoint it is kept there alone,
    and the same command goes on.
    """
    wanted = list(dict.fromkeys(args.layers))
    files = {layer: [per_layer(path, layer, wanted) for path in (args.output, args.csv)] for layer in wanted}
    with usage():
        sources = [args.checkpoint] if args.checkpoint else []
        check_targets([path for pair in files.values() for path in pair if path], args.force, sources=sources)

    from ganlens.dissection import dissect as matching
    from ganlens.models import load_generator
    from ganlens.segmenters import load_segmenter

    with usage():
        generator = load_generator(args.generator, progress=not args.quiet)
        segmenter = load_segmenter(args.segmenter)
        n = 1000 if args.n == "auto" else args.n
        matching.check_arguments(generator, wanted, n, [args.rule], args.quantile, args.sample, args.batch_size, 1)
    names = "n", "rule", "quantile", "sample", "batch_size", "within_category", "half", "checkpoint"
    options = {name: getattr(args, name) for name in names}
    with interrupt_between_steps() as interrupted, processes(args.workers) as executor:
        found = matching.dissect(generator, segmenter, wanted, progress=not args.quiet, executor=executor, **options)
        first = found[wanted[0]]
        try:  # still without being interrupted: what was computed is not lost
            for layer, (output, csv_file) in files.items() if first.complete or not args.checkpoint else ():
                save(args, found[layer], output, csv_file)
        finally:
            emit_dissections(found, args.json)
    if not first.complete:
        more = f"; the same command goes on, with {args.checkpoint}" if args.checkpoint else ""
        tell(f"interrupted after {first.n} of {args.n} images{more}")
    if not (args.output or args.csv or args.checkpoint):
        note(args, "not saved; -o FILE.npz would save the result")
    return INTERRUPTED if interrupted() or not first.complete else 0


@contextmanager
def processes(count: int | None) -> Iterator:
    """So many processes, which leave it to this one to be interrupted, and end with the context; or None."""
    if count is None:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    executor = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in active_children():  # what they still do is not waited for
            child.terminate()


def per_layer(path: Path | None, layer: str, wanted: Sequence[str]) -> Path | None:
    """The path itself for one layer; where there are several, with the layer's name before the ending."""
    return path if path is None or len(wanted) == 1 else path.with_name(f"{path.stem}-{layer}{path.suffix}")


def save(args, dissection, output: Path | None, csv_file: Path | None) -> None:
    for path, write in ((output, dissection.save), (csv_file, dissection.to_csv)):
        if path:
            write(path)
            note(args, f"saved {dissection.layer}{'' if dissection.complete else ' (incomplete)'} in {path}")


def emit_dissections(found: dict, as_json: bool) -> None:
    if not as_json:
        return emit("\n\n".join(map(repr, found.values())))
    parts = {layer: json.loads(dissection.to_json()) for layer, dissection in found.items()}
    emit_json(parts if len(parts) > 1 else next(iter(parts.values())))


@command(
    argument("file", type=Path, metavar="FILE.npz", help="a file of `ganlens dissect -o` or `Dissection.save`"),
    argument("--concept", metavar="NAME", help="rank the units for this concept; NAME:CATEGORY where it is ambiguous"),
    argument("-k", type=whole, metavar="K", help="how many units (default: 20; all of them for --json and --csv)"),
    argument("--json", action="store_true", help="print JSON: settings, summary and the units"),
    argument("--csv", type=Path, metavar="FILE", help="write the units as CSV"),
    argument("--picture", type=picture_file, metavar="FILE.png", help=HOW_PICTURE),
    FORCE,
    QUIET,
    examples=["ganlens show layer4.npz", "ganlens show layer4.npz --concept tree -k 5 --picture trees.png"],
)
def show(args) -> None:
    """Show what the units of a saved dissection draw.

    Without --concept: the units that draw a concept, the best of every concept
    first. With --concept: all units, ranked by their IoU with that concept.
    """
    from ganlens.dissection.result import Dissection

    found = Dissection.load(args.file)
    with usage():
        every = found.matches(args.concept) if args.concept else found.rows()
        check_targets([path for path in (args.csv, args.picture) if path], args.force, sources=[args.file])
    best = every if args.concept else [every[label.unit] for label in found.best_labels(len(every))]
    shown, rows = best[: args.k or 20], best[: args.k] if args.k else every
    if args.picture:
        units = [row["unit"] for row in shown]
        write_atomically(args.picture, draw(found, args.file, units, args.picture.suffix.lower()))
        note(args, f"saved units {', '.join(map(str, units))}, from top to bottom, in {args.picture}")
    if args.csv:
        write_csv(args.csv, rows)
        note(args, f"saved {len(rows)} units in {args.csv}")
    if args.json:
        emit_json(json.loads(found.to_json()) | {"units": rows})
    else:
        emit(f"{repr(found).splitlines()[0]}\n\n{unit_table(shown, args.concept)}")


def unit_table(rows: list[dict], concept: str | None) -> str:
    """Rows of `Dissection.rows`, or of `Dissection.matches` for a concept, as text."""
    if not rows:
        return "no unit matches a concept clearly; --concept NAME ranks all units"
    columns = {"unit": "unit", "draws": "concept", "IoU": "iou", "chance": "chance"}
    columns |= {"from": "iou_low", "to": "iou_high", "certain": "certain"} if "certain" in rows[0] else {}
    columns |= {"runner-up": "runner_up", "its IoU": "runner_up_iou"}
    if concept:
        columns = {"unit": "unit", f"IoU with {concept}": "iou", "chance": "chance", "draws": "draws"}
    return text_table([{head: row[key] for head, key in columns.items()} for row in rows])


def draw(found, file: Path, units: list[int], ending: str) -> bytes:
    """A picture with a row of top images for each unit, of the generator that is known by its name."""
    import numpy as np

    from ganlens.images import encode, grid
    from ganlens.models import list_models, load_generator

    name = found.origin["generator"]
    if not units:
        raise ValueError("no unit matches a concept clearly, so there is no picture; choose a concept with --concept")
    if name not in list_models():
        raise ValueError(f"the generator {name} of this file cannot be loaded by name, so there is no picture")
    found = found.load(file, generator=load_generator(name))
    return encode(grid(np.stack([found.strip(unit) for unit in units]), columns=1, gap=9), PICTURES[ending])


@command(
    argument("files", nargs="+", type=Path, metavar="FILE.npz", help="saved dissections, each a part of the page"),
    argument("output", type=page_file, metavar="FILE.html", help="the page; FILE.csv and FILE.json go beside it"),
    GENERATOR,
    argument("--live", action="store_true", help="the page paints, too: it holds the generator (9 MB)"),
    FORCE,
    QUIET,
    examples=["ganlens report layer4.npz layer4.html", "ganlens report layer4.npz layer5.npz layers.html"],
)
def report(args) -> None:
    """Write a page that shows what the units of saved dissections draw.

    It is one file that any browser opens without a network, with all units and
    the images that activate them most. Its table is written beside it as CSV and
    JSON.
    """
    from ganlens.dissection.result import Dissection
    from ganlens.pages.report import files_of
    from ganlens.pages.report import report as write_report

    found = {file: Dissection.load(file) for file in args.files}
    layers, stems = {D.layer: D for D in found.values()}, {file.stem: D for file, D in found.items()}
    parts = next(names for names in (layers, stems, found) if len(names) == len(found))
    targets = files_of(args.output, parts)
    with usage():
        check_targets(targets, args.force, sources=found)
        attach_generators(args, found)
        if args.live:
            attach_segmenters(found)
    write_report(parts, args.output, live=args.live, progress=not args.quiet)
    note(args, f"saved {', '.join(map(str, targets))}")


@command(
    argument("files", nargs="+", type=Path, metavar="FILE.npz", help="saved dissections, layers of one generator"),
    argument("output", type=page_file, metavar="FILE.html", help="the page"),
    GENERATOR,
    argument("--seed", type=seed_number, default=0, metavar="SEED", help="the first picture"),
    argument("--no-readout", action="store_true", help="leave out what a stroke changed: 6 MB instead of 8"),
    FORCE,
    QUIET,
    examples=["ganlens page layer4.npz paint.html", "ganlens page layer4.npz layer6.npz paint.html --seed 33"],
)
def page(args) -> None:
    """Write a page that paints with units, in one file that needs no kernel.

    The generator runs in the browser, offline. Recipes that the page gives are
    those of 'ganlens replay'.
    """
    from ganlens.dissection.result import Dissection
    from ganlens.pages.painting_page import painting_page

    found = {file: Dissection.load(file) for file in args.files}
    with usage():
        check_targets([args.output], args.force, sources=found)
        attach_generators(args, found)
        attach_segmenters(found)
    layers = {D.layer: D for D in found.values()}
    painting_page(layers, args.output, seed=args.seed, readout=not args.no_readout, progress=not args.quiet)
    note(args, f"saved {args.output}")


def attach_generators(args, found: dict) -> None:
    """Give dissections, by their files, the generator that is asked for, or else the one that is known by its name."""
    from ganlens.models import list_models, load_generator

    live = {}
    for file, D in found.items():
        name = args.generator or D.origin["generator"]
        if name not in live and (args.generator or name in list_models()):
            live[name] = load_generator(name, progress=not args.quiet)
        generator, known = live.get(name), False
        if generator and generator.fingerprint == D.origin["generator_fingerprint"]:
            known, generator = True, generator.variant(**(generator.defaults | D.origin.get("generator_settings", {})))
        if args.generator or known:
            D.generator = D.load(file, generator=generator).generator
        else:
            note(args, f"no images of {file}: its generator {name} is not known by name; --generator gives it")


def attach_segmenters(found: dict) -> None:
    """Give dissections the embedded segmenter, where they were made with it."""
    from ganlens.models.network import EMBEDDED
    from ganlens.segmenters import load_segmenter

    S = load_segmenter(EMBEDDED)
    for D in found.values():
        D.segmenter = S if D.origin["segmenter_fingerprint"] == S.fingerprint else None


@command(
    argument("what", nargs="*", choices=MEASURES, default="dissection", help="what is measured; several are, in turn"),
    argument("-n", type=whole, metavar="N", help="how many images; each measure has its own default"),
    argument("--rounds", type=whole, default=3, metavar="N", help="how often to measure; the median counts"),
    JSON,
    QUIET,
    examples=["ganlens bench", "ganlens bench dissection shards -n 2000 --json"],
)
def bench(args) -> None:
    """Measure how fast ganlens is on this machine.

    Everything is a ratio within one run. Of these measures, the reference is

      dissection  one pass of generator and segmenter over the same images
      large       the same, of a 256-pixel Progressive GAN and SegFormer-b0
      causal      the passes behind the layer that are needed (minutes)
      networks    a whole pass of a 256-pixel Progressive GAN, as it was published
      shards      one process with one thread, where there are two
      memory      the memory for a tenth of the images
    """
    from ganlens.benchmark import measure

    found = {}
    for name in [args.what] if isinstance(args.what, str) else args.what:
        found[name] = measure(name, args.n, args.rounds, not args.quiet)
        if not args.json:
            emit(f"{name}\n{text_table(found[name])}\n")
    if args.json:
        emit_json(found)


# ---- running


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; `argparse` itself exits after --help and on wrong arguments."""
    warnings.simplefilter("ignore", IncompleteWarning)  # the commands say so themselves
    try:
        parser = build_parser()
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help(sys.stderr)
            return USAGE
        return run_command(args)
    finally:
        flush()
