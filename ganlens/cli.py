"""The command line: each command is a few lines over the public API.

To add a command, write a function under `@command`: its arguments stand above it, its docstring is its help, and what
it returns is the exit status (nothing is 0). Results go to stdout through `emit`, everything else to stderr through
`tell`. Heavy imports stand inside the commands, so that ``ganlens --help`` answers at once.
"""

import argparse
import csv
import inspect
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ganlens import __version__
from ganlens.files import write_atomically
from ganlens.progress import interrupt_between_steps

FAILED, USAGE, INTERRUPTED = 1, 2, 130

GLOSSARY = """\
words:
  layer    a step of the generator, such as layer4; it yields a stack of maps
  unit     one map of that stack, numbered from 0; it is "on" where it is high
  concept  a word for something in the image, such as tree, that a segmenter
           finds pixel by pixel; a unit that is on where trees are draws trees
  IoU      how well the two regions agree: 0 not at all, 1 exactly; compare it
           with "chance", what one reaches without looking at the image
"""

STATUS = "exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C"


class UsageError(ValueError):
    """What was asked for cannot be: an unknown name, a number out of range."""


class Command(NamedTuple):
    """A command: its function, its arguments for `argparse`, and examples."""

    run: Callable[[argparse.Namespace], int | None]
    arguments: tuple[tuple[tuple, dict], ...]
    examples: list[str]


COMMANDS: dict[str, Command] = {}


def command(*arguments: tuple[tuple, dict], examples: list[str]) -> Callable:
    """Make a function the command of its name."""

    def register(function: Callable) -> Callable:
        COMMANDS[function.__name__] = Command(function, arguments, examples)
        return function

    return register


def argument(*names: str, **options) -> tuple[tuple, dict]:
    """An argument, as `argparse.ArgumentParser.add_argument` takes it; its help ends with its default."""
    if "default" in options:
        options["help"] += " (default: %(default)s)"
    return names, options


def whole(text: str) -> int:
    """Type of a number that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return int(text)


def picture_file(text: str) -> Path:
    """Type of a path whose ending names a format of pictures."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name that ends in one of {', '.join(PICTURES)}")
    return Path(text)


PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
RULES = ("quantile", "iqr", "iou")  # those of ganlens.matching, which takes too long to import for --help
HOW_RULES = (
    "how the level is set above which a unit is on: 'quantile' lets it be on at a fixed share of all pixels; 'iqr' and "
    "'iou' choose for every concept the level of best agreement on half of the images and score it on the other half"
)
HOW_PICTURE = (
    "write a picture with a row for each unit of the table: the images that activate it most, lit where it is on; "
    "needs the generator that the file was made with"
)
SEVERAL = "; of several layers, each into a file of its own"
JSON = argument("--json", action="store_true", help="print JSON instead of text")
FORCE = argument("--force", action="store_true", help="replace files that exist; without it they are left alone")
QUIET = argument("--quiet", action="store_true", help="no progress and no notes, only the result and errors")
DEBUG = argument("--debug", action="store_true", help="show the traceback of an error")


# ---- commands


@command(JSON, examples=["ganlens models", "ganlens models --json"])
def models(args) -> None:
    """List the generators and segmenters that can be used by name."""
    from ganlens.models import list_models
    from ganlens.segmenters import SEGMENTERS

    known = {"generator": list_models(), "segmenter": SEGMENTERS}
    if args.json:
        return emit_json({f"{kind}s": about for kind, about in known.items()})
    emit("\n\n".join(table([{kind: n, "about": a} for n, a in about.items()]) for kind, about in known.items()))


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
    if args.json:
        return emit_json({"generator": generator.name, "layers": rows})
    emit(table([{"layer": r["layer"], "units": r["units"], "H x W": f"{r['height']} x {r['width']}"} for r in rows]))


@command(
    argument("layers", nargs="+", metavar="LAYER", help="one or more layers; `ganlens layers` lists them"),
    argument("--generator", default="scenes", metavar="NAME", help="the generator to look into"),
    argument("--segmenter", default="scenes", metavar="NAME", help="what finds the concepts in its images"),
    argument("-n", type=whole, default=1000, metavar="N", help="how many images to look at"),
    argument("--rule", choices=RULES, default="quantile", help=HOW_RULES),
    argument("--quantile", type=float, default=0.01, metavar="SHARE", help="that share, for the rule quantile"),
    argument("--seed", type=int, default=0, help="which sample of images; samples do not overlap"),
    argument("--batch-size", type=whole, metavar="N", help="images at a time; matters for speed and memory only"),
    argument("--within-category", action="store_true", help="count a unit only in images with the concept's category"),
    argument("-o", "--output", type=Path, metavar="FILE.npz", help="save the result, for `ganlens show`" + SEVERAL),
    argument("--csv", type=Path, metavar="FILE", help="write the table of all units as CSV" + SEVERAL),
    argument("--json", action="store_true", help="print JSON: settings, summary, units; of several layers, by layer"),
    FORCE,
    QUIET,
    examples=["ganlens dissect layer4", "ganlens dissect layer2 layer4 -n 2000 -o run.npz"],
)
def dissect(args) -> int:
    """Find out what the units of a layer draw.

    Generates images, lets the segmenter find the concepts in them, and compares
    every unit with every concept. Output files are checked before the work
    begins; of several layers, each is saved in a file of its own, with the layer's
    name before the ending: -o run.npz writes run-layer2.npz and run-layer4.npz.
    Ctrl-C ends the work early: what was seen so far is printed, and saved if -o or
    --csv is given, marked as incomplete.
    """
    wanted = list(dict.fromkeys(args.layers))
    files = {layer: [per_layer(path, layer, wanted) for path in (args.output, args.csv)] for layer in wanted}
    check_targets([path for pair in files.values() for path in pair if path], args.force)

    from ganlens import matching
    from ganlens.models import load_generator
    from ganlens.segmenters import load_segmenter

    with usage():
        generator, segmenter = load_generator(args.generator), load_segmenter(args.segmenter)
        matching.check_arguments(generator, wanted, args.n, [args.rule], args.quantile, args.seed)
    options = {name: getattr(args, name) for name in ("n", "rule", "quantile", "seed", "batch_size", "within_category")}
    with interrupt_between_steps() as interrupted:  # also while saving: what was computed is not lost
        found = matching.dissect(generator, segmenter, wanted, progress=not args.quiet, **options)
        try:
            for layer, (output, csv_file) in files.items():
                save(found[layer], output, csv_file, args.quiet)
        finally:
            emit_dissections(found, args.json)
    first = found[wanted[0]]
    if not first.complete:
        tell(f"interrupted after {first.n} of {args.n} images")
    if not (args.output or args.csv or args.quiet):
        tell("not saved; -o FILE.npz would save the result")
    return INTERRUPTED if interrupted() or not first.complete else 0


def per_layer(path: Path | None, layer: str, wanted: Sequence[str]) -> Path | None:
    """The path itself for one layer; where there are several, with the layer's name before the ending."""
    return path if path is None or len(wanted) == 1 else path.with_name(f"{path.stem}-{layer}{path.suffix}")


def save(dissection, output: Path | None, csv_file: Path | None, quiet: bool) -> None:
    for path, write in ((output, dissection.save), (csv_file, dissection.to_csv)):
        if path:
            write(path)
            if not quiet:
                tell(f"saved {dissection.layer}{'' if dissection.complete else ' (incomplete)'} in {path}")


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
    from ganlens.dissection import Dissection

    found = Dissection.load(args.file)
    with usage():
        concept = checked_concept(found, args.concept) if args.concept else None
    check_targets([path for path in (args.csv, args.picture) if path], args.force, sources=[args.file])
    notes = []
    units = best_units(found, concept, args.k or 20)
    rows = unit_rows(found, concept, units if args.k else None)
    if args.picture:
        found = Dissection.load(args.file, generator=generator_of(found))
        write_atomically(args.picture, draw_strips(found, units, PICTURES[args.picture.suffix.lower()]))
        notes.append(f"saved units {', '.join(map(str, units))}, from top to bottom, in {args.picture}")
    if args.csv:
        write_atomically(args.csv, as_csv(rows).encode())
        notes.append(f"saved {len(rows)} units in {args.csv}")
    if args.json:
        emit_json(json.loads(found.to_json()) | {"units": rows})
    else:
        emit(unit_table(found, concept, units))
    if notes and not args.quiet:
        tell("\n".join(notes))


def checked_concept(found, text: str):
    """The concept of a name or of name:category; ValueError with close matches if there is none."""
    named = {f"{concept.name}:{concept.category}": concept for concept in found.concepts}.get(text, text)
    found.units(named, 1)
    return next(concept for concept in found.concepts if named in (concept, concept.name))


def best_units(found, concept, k: int | None) -> list[int]:
    """Unit numbers, best first: for a concept all units, otherwise those that draw one."""
    return found.units(concept, None)[:k] if concept else [label.unit for label in found.best(k)]


def unit_rows(found, concept, units: list[int] | None) -> list[dict]:
    """For each of the units, or for all: its row of `Dissection.rows`, or how well it matches the concept."""
    rows = found.rows()
    if not concept:
        return rows if units is None else [rows[unit] for unit in units]
    column = found.concepts.index(concept)
    return [
        {
            "unit": unit,
            "concept": concept.name,
            "category": concept.category,
            "iou": round(float(found.iou[unit, column]), 6),
            "chance": round(float(found.chance[column]), 6),
            "iqr": round(float(found.iqr[unit, column]), 6),
            "draws": rows[unit]["concept"] if rows[unit]["interpretable"] else "",
            "top_seed": rows[unit]["top_seed"],
        }
        for unit in (best_units(found, concept, None) if units is None else units)
    ]


def unit_table(found, concept, units: list[int]) -> str:
    """The title of the dissection and a table of units as text."""
    title = repr(found).splitlines()[0]
    if not units:
        return f"{title}\n\nno unit matches a concept clearly; --concept NAME ranks all units"
    if concept:
        columns = {"unit": "unit", f"IoU with {concept.name}": "iou", "chance": "chance", "draws": "draws"}
    else:
        columns = {"unit": "unit", "draws": "concept", "IoU": "iou", "chance": "chance"}
        columns |= {"runner-up": "runner_up", "its IoU": "runner_up_iou"}
    rows = [{head: row[key] for head, key in columns.items()} for row in unit_rows(found, concept, units)]
    return f"{title}\n\n{table(rows)}"


def generator_of(found):
    """The generator that a dissection was made with, by its name."""
    from ganlens.models import list_models, load_generator

    name = found.origin["generator"]
    if name not in list_models():
        raise ValueError(f"the generator {name} of this file cannot be loaded by name, so there is no picture")
    return load_generator(name)


def draw_strips(found, units: list[int], kind: str) -> bytes:
    """A picture with a row of top images for each unit."""
    import numpy as np

    from ganlens.images import encode, grid, strip

    if not units:
        raise ValueError("no unit matches a concept clearly, so there is no picture; choose a concept with --concept")
    return encode(grid(np.stack([strip(pictures) for pictures in found.spotlights(units)]), columns=1, gap=9), kind)


# ---- output


def emit(text: str) -> None:
    """Print a result to stdout; a reader who has seen enough, such as ``head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def emit_json(content) -> None:
    emit(json.dumps(content, indent=1))


def tell(text: str) -> None:
    """Print a note to stderr."""
    print(text, file=sys.stderr, flush=True)


def discard_stdout() -> None:
    """Let what is still to be printed vanish, so that Python does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(rows: list[dict]) -> str:
    """Rows of equal keys as aligned columns: numbers to the right, text to the left."""
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    lines = [list(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [isinstance(value, int | float) for value in rows[0].values()]
    aligned = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def check_targets(paths: list[Path], force: bool, sources: Sequence[Path] = ()) -> None:
    """Find out before any work what would keep it from being saved: OSError, or UsageError for a name given twice."""
    taken = {path.resolve() for path in sources}
    for path in paths:
        if path.resolve() in taken:
            raise UsageError(f"{path} is given twice; every file needs a name of its own")
        taken.add(path.resolve())
        if os.path.lexists(path) and not path.is_file():
            raise OSError(f"{path} exists and is no ordinary file; choose another name")
        if os.path.lexists(path) and not force:
            raise FileExistsError(f"{path} exists and was left as it is; --force replaces it")
        try:
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror} (folder {path.parent})") from error


# ---- running


@contextmanager
def usage() -> Iterator[None]:
    """What the library refuses here is wrong usage, not failed work."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def message(error: Exception) -> str:
    """One line about an error."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, ValueError | OSError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="ganlens",
        description="See what the units of an image generator draw. `ganlens COMMAND --help` says more.",
        **presentation(["ganlens dissect layer4 -o layer4.npz", "ganlens show layer4.npz --concept tree"]),
    )
    parser.add_argument("--version", action="version", version=f"ganlens {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (run, arguments, examples) in COMMANDS.items():
        text = inspect.getdoc(run)
        sub = commands.add_parser(name, help=text.splitlines()[0], description=text, **presentation(examples))
        for names, options in (*arguments, DEBUG):
            sub.add_argument(*names, **options)
        sub.set_defaults(run=run)
    return parser


def presentation(examples: list[str]) -> dict:
    """What all parsers have in common: help that ends with examples and the words of the field."""
    epilog = "\n".join(["examples:", *(f"  {example}" for example in examples), "", GLOSSARY, STATUS])
    return {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; `argparse` itself exits after --help and on wrong arguments."""
    try:
        parser = build_parser()
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help(sys.stderr)
            return USAGE
        return run_command(args)
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            discard_stdout()


def run_command(args: argparse.Namespace) -> int:
    """Run a command; an error becomes one line on stderr and an exit status."""
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        tell(f"ganlens {args.command}: error: {message(error)}")
        return USAGE if isinstance(error, UsageError) else FAILED
