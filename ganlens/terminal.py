"""What a terminal gets from a command: results on stdout, notes and errors on stderr, and an exit status."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(ValueError):
    """What was asked for cannot be: an unknown name, a number out of range."""


@contextmanager
def usage() -> Iterator[None]:
    """What the library refuses here is wrong usage, not failed work."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
    except FileExistsError as error:
        raise FileExistsError(f"{error}; --force replaces it") from error


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
        tell(f"ganlens {args.command}: error: {one_line(error)}")
        return USAGE if isinstance(error, UsageError) else FAILED


def emit(text: str) -> None:
    """Print a result; a reader who has seen enough, such as ``head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def emit_json(content) -> None:
    emit(json.dumps(content, indent=1))


def tell(text: str) -> None:
    """Print a note."""
    print(text, file=sys.stderr, flush=True)


def note(args: argparse.Namespace, text: str) -> None:
    """Tell what is good to know, unless --quiet."""
    if not args.quiet:
        tell(text)


def one_line(error: Exception) -> str:
    """What an error says; of those that nobody expects, also their kind."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, ValueError | OSError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


def flush() -> None:
    """Print what waits to be printed; if nobody takes it, there is nobody to tell."""
    try:
        print(end="", flush=True)
    except OSError:
        discard_stdout()


def discard_stdout() -> None:
    """Let what is still to be printed vanish, so that Python does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
