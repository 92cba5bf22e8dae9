"""The commands of `ganlens` by name, the types of their arguments, and the parser that is made of them."""

import argparse
import difflib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ganlens import __version__

PICTURES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
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


class Command(NamedTuple):
    """A command: its function, its arguments for `argparse`, and examples."""

    function: Callable[[argparse.Namespace], int | None]
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


def seed_number(text: str) -> int:
    """Type of a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to {2**32 - 1}")
    return int(text)


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


def whole_or_auto(text: str) -> int | str:
    """Type of a number that may be found out."""
    return text if text == "auto" else whole(text)


def page_file(text: str) -> Path:
    """Type of a path whose ending names a page."""
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name that ends in .html")
    return Path(text)


FORCE = argument("--force", action="store_true", help="replace files that exist; without it they are left alone")
GENERATOR = argument(
    "--generator", metavar="NAME", help="draws the images; by default the one the dissection was made with"
)
QUIET = argument("--quiet", action="store_true", help="no progress and no notes, only the result and errors")
DEBUG = argument("--debug", action="store_true", help="show the traceback of an error")


class Parser(argparse.ArgumentParser):
    """A parser that suggests what may have been meant in place of a word that it does not know."""

    def error(self, message: str):
        unknown = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if unknown:
            near = difflib.get_close_matches(unknown[1], re.findall(r"[\w-]+", unknown[2]), n=1, cutoff=0.5)
            message += f"; did you mean {near[0]!r}?" if near else ""
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="ganlens",
        description="See what the units of an image generator draw. `ganlens COMMAND --help` says more.",
        **presentation(["ganlens dissect layer4 -o layer4.npz", "ganlens show layer4.npz --concept tree"]),
    )
    parser.add_argument("--version", action="version", version=f"ganlens {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (function, arguments, examples) in COMMANDS.items():
        text = inspect.getdoc(function) or ""
        sub = commands.add_parser(name, help=text.splitlines()[0], description=text, **presentation(examples))
        for names, options in (*arguments, DEBUG):
            sub.add_argument(*names, **options)
        sub.set_defaults(run=function)
    return parser


def presentation(examples: list[str]) -> dict:
    """What all parsers have in common: help that ends with examples and the words of the field."""
    epilog = "\n".join(["examples:", *(f"  {example}" for example in examples), "", GLOSSARY, STATUS])
    return {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
