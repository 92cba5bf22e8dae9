"""Make the embedded weights again: ``python -m ganlens.embedded paint | segmenter | generator | export | evaluate``."""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

FIRST = 1_000_000  # seed of the first training painting


def main(argv: list[str] | None = None) -> int:
    """Run one step; the steps share a folder, and each may be interrupted and called again."""
    for name, value in (("MMAP_THRESHOLD", 2**30), ("TRIM_THRESHOLD", 2**31)):
        os.environ.setdefault(f"MALLOC_{name}_", str(value))  # large blocks are reused, not returned to the system
    options = parse(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    options.step(options)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m ganlens.embedded", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="step")

    def add(name: str, step, text: str) -> argparse.ArgumentParser:
        command = steps.add_parser(name, help=text, description=text)
        command.add_argument("--folder", type=Path, default=Path("runs/scenes"), help="default: %(default)s")
        command.set_defaults(step=step)
        return command

    add("paint", paint, "paint images with labels").add_argument("-n", type=int, default=80_000)
    add("segmenter", segmenter, "train the segmenter on paintings and labels").add_argument(
        "--steps", type=int, default=1400
    )
    command = add("generator", generator, "train the generator on paintings alone, going on where it stopped")
    command.add_argument("--images", type=int, default=780_000, help="length of the training (default: %(default)s)")
    command.add_argument("--processes", type=int, default=2, help="one-thread processes (default: %(default)s)")
    add("export", export, "put the trained weights into the package")
    command = add("evaluate", evaluate, "measure the embedded networks; writes scores.json and sheets")
    command.add_argument("-n", type=int, default=2000, help="images on each side (default: %(default)s)")
    command.add_argument(
        "--layers", nargs="*", default=["layer4", "layer5"], help="layers to switch units off and on in"
    )
    return parser.parse_args(argv)


def paint(options) -> None:
    """Paint training images and labels into ``images.npy`` and ``labels.npy``."""
    from tqdm import tqdm

    from ganlens.scenes.painter import paint_many

    seeds = range(FIRST, FIRST + options.n)
    chunks = [seeds[i : i + 500] for i in range(0, options.n, 500)]
    with ProcessPoolExecutor() as pool:
        parts = list(tqdm(pool.map(paint_many, chunks), total=len(chunks), unit="x500"))
    for name, arrays in zip(("images", "labels"), zip(*parts, strict=True), strict=True):
        np.save(options.folder / f"{name}.npy", np.concatenate(arrays))


def segmenter(options) -> None:
    """Train the segmenter into the package."""
    from ganlens.embedded.segmentation import train
    from ganlens.segmenters.scenes import WEIGHTS

    train(options.folder, WEIGHTS, options.steps)


def generator(options) -> None:
    """Train the generator in the folder."""
    from ganlens.embedded.training import Recipe, train

    train(options.folder, Recipe(images=options.images), options.processes)


def export(options) -> None:
    """Put the averaged weights of the training into the package."""
    from ganlens.embedded.training import export
    from ganlens.models.families.scenes import WEIGHTS

    export(options.folder, WEIGHTS)


def evaluate(options) -> None:
    """Measure both networks and draw 96 samples and 96 paintings."""
    from PIL import Image

    from ganlens.embedded.evaluation import (
        HELD_OUT,
        evaluate_addition,
        evaluate_generator,
        evaluate_layers,
        evaluate_removal,
        evaluate_segmenter,
    )
    from ganlens.images import grid, to_uint8
    from ganlens.models import load_generator
    from ganlens.scenes.painter import paint_many
    from ganlens.segmenters.scenes import SceneSegmenter

    G, S = load_generator("scenes"), SceneSegmenter()
    scores = {
        "segmenter": evaluate_segmenter(S),
        "generator": evaluate_generator(G, S, options.n),
        "layers": evaluate_layers(G, S, options.n),
        "removal": {layer: evaluate_removal(G, S, layer, options.n // 4) for layer in options.layers},
        "addition": {layer: evaluate_addition(G, S, layer, options.n // 4) for layer in options.layers},
    }
    text = json.dumps(scores, indent=1, default=float)
    (options.folder / "scores.json").write_text(text)
    sys.stdout.write(text + "\n")
    sheets = {"samples": to_uint8(G.generate(range(96))), "paintings": paint_many(range(HELD_OUT, HELD_OUT + 96))[0]}
    for name, pictures in sheets.items():
        Image.fromarray(grid(pictures, columns=12)).save(options.folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
