"""The commands that make pictures: images of seeds, with edits, and recipes again."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganlens.command_parser import FORCE, PICTURES, QUIET, argument, command, picture_file
from ganlens.files import check_targets, write_atomically
from ganlens.terminal import note, usage

if TYPE_CHECKING:
    from ganlens.models.base import Generator

MOST_PICTURES = 1024  # on one sheet
COLUMNS, GAP = 8, 2
OUTPUT = argument(
    "-o",
    "--output",
    type=picture_file,
    required=True,
    metavar="FILE.png",
    help="the picture, by its ending PNG or JPEG",
)
HOW_EDIT = (
    "switch units off, as in layer4:3,17,40-43, or on, as in layer4:3,17=q0.995 (or =mean, or =2.5); or a recipe's "
    "edits, by its file; may be repeated, and the edits follow upon each other"
)


def numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges, such as 0-7,12."""
    from ganlens.widgets.strokes import parse_units

    try:
        return parse_units(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("units ")) from None


def edit_of(text: str, G: "Generator") -> Sequence:
    """The edits that an argument names, for a generator."""
    from ganlens.models.editing import ablate, insert
    from ganlens.recipe import Recipe
    from ganlens.widgets.canvas_traits import NUMBER

    if text.endswith(".json"):
        recipe = Recipe.load(text)
        recipe.check(G)
        return recipe.edits
    parts = re.fullmatch(r"([^:=]+):([^:=]+)(?:=([^:=]+))?", text)
    if not parts:
        raise ValueError(f"--edit {text}: expected a layer and its units, such as layer4:3,17 or layer4:3=q0.995")
    layer, units, level = parts.groups()
    try:
        found = numbers(units)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--edit {text}: {error}") from None
    if level is None:
        return [ablate(layer, found)]
    return [insert(layer, found, float(level) if NUMBER.fullmatch(level) else level)]


@command(
    argument("seeds", nargs="+", type=numbers, metavar="SEED", help="which images: numbers and ranges, such as 0-7 12"),
    OUTPUT,
    argument("--edit", action="append", default=[], metavar="EDIT", help=HOW_EDIT),
    argument("--generator", default="scenes", metavar="NAME", help="what draws them; `ganlens models` lists them"),
    argument("--truncation", type=float, metavar="PSI", help="for StyleGAN2: 1 is none, 0 the mean image"),
    argument("--label", type=int, metavar="CLASS", help="for generators of classes: the class of all images"),
    FORCE,
    QUIET,
    examples=["ganlens generate 0-15 -o sheet.png", "ganlens generate 3 --edit layer4:151,11,146 -o less-tree.png"],
)
def generate(args) -> None:
    """Write a sheet of the images of seeds, with edits if some are given.

    Images stand in rows of eight, in the order of their seeds, pixel by pixel.
    """
    import numpy as np

    from ganlens.images import encode, grid
    from ganlens.models import load_generator
    from ganlens.progress import progress_bar
    from ganlens.recipe import Renderer

    seeds = list(dict.fromkeys(seed for some in args.seeds for seed in some))
    with usage():
        if len(seeds) > MOST_PICTURES:
            raise ValueError(f"{len(seeds)} images on one sheet: at most {MOST_PICTURES}")
        check_targets([args.output], args.force)
        chosen = {name: getattr(args, name) for name in ("truncation", "label") if getattr(args, name) is not None}
        G = load_generator(args.generator, progress=not args.quiet, **chosen)
        edits = [edit for text in args.edit for edit in edit_of(text, G)]
        for edit in edits:
            G.check_edit(edit)
    renderer, pictures = Renderer(G), []  # as the canvas draws them, bit for bit
    with progress_bar(not args.quiet and len(seeds) > COLUMNS, len(seeds), "images") as done:
        for seed in seeds:
            pictures.append(renderer.render(seed, edits)[1])
            done(1)
    picture = grid(np.stack(pictures), COLUMNS, GAP)
    write_atomically(args.output, encode(picture, PICTURES[args.output.suffix.lower()]))
    note(args, f"saved {len(seeds)} image{'s' * (len(seeds) > 1)} in {args.output}")


@command(
    argument("recipe", type=Path, metavar="RECIPE.json", help="what “save recipe” of the canvas writes"),
    OUTPUT,
    argument("--generator", metavar="NAME", help="what draws it; by default the generator that the recipe names"),
    FORCE,
    QUIET,
    examples=["ganlens replay recipe.json -o out.png", "ganlens replay recipe.json -o out.jpg --force"],
)
def replay(args) -> None:
    """Write the picture of a recipe, bit for bit what the canvas showed."""
    from ganlens.images import encode
    from ganlens.models import list_models, load_generator
    from ganlens.recipe import Recipe
    from ganlens.recipe import replay as picture_of

    with usage():
        check_targets([args.output], args.force, sources=[args.recipe])
        recipe = Recipe.load(args.recipe)
        if args.generator is None and recipe.generator not in list_models():
            raise ValueError(f"the recipe's generator {recipe.generator} is not known by name; --generator gives it")
        G = load_generator(args.generator or recipe.generator, progress=not args.quiet)
        recipe.check(G)
    write_atomically(args.output, encode(picture_of(recipe, G), PICTURES[args.output.suffix.lower()]))
    note(
        args, f"saved seed {recipe.seed} with {len(recipe.edits)} edit{'s' * (len(recipe.edits) != 1)} in {args.output}"
    )
