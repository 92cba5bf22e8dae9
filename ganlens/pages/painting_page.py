"""A page that paints: generator, units and brush in one file, without a kernel, a server or a network."""

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ganlens.arguments import check_integer
from ganlens.borrowed import borrowed, call
from ganlens.dissection.result import Dissection, generator_of
from ganlens.files import check_targets, write_atomically
from ganlens.images import palette
from ganlens.markup import Markup, h
from ganlens.models.base import Generator
from ganlens.models.bit_exact import GRANULE
from ganlens.models.editing import Edit, ablate, insert
from ganlens.models.latents import as_seeds
from ganlens.pages.document import digest, whole
from ganlens.pages.program import Program
from ganlens.pages.report import check_dissections, check_path
from ganlens.pages.tracing import traced
from ganlens.progress import progress_bar
from ganlens.segmenters.base import known_as
from ganlens.segmenters.scenes import SceneSegmenter

HERE = Path(__file__).parent
ENGINE = ("numbers.js", "kernels.js", "network.js", "worker.js")
SCRIPTS = ("engine/client.js", "painting.js", "painting-recipes.js", "painting-controls.js")
LEVELS = {"mean": None, "q0.995": 0.995}
TOLERANCE = 1 / 255  # of images in [-1, 1], half a step of their colours
CHECKED = 8  # seeds


def painting_page(
    dissections: Dissection | Mapping[str, Dissection],
    path: str | Path | None = None,
    *,
    seed: int = 0,
    k: int = 20,
    readout: bool = True,
    progress: bool | Callable[[int, int], None] = True,
) -> "Path | InNotebook":
    """Write a page that paints with units: one file that runs the generator by itself, offline.

    What the page computes is compared with torch before it is written, on 8 seeds with and without edits.

    Parameters
    ----------
    dissections : Dissection, or dict of str to Dissection
        Layers of one generator, which is built of convolutions (also transposed), linear maps, batch and pixel norm,
        nearest and bilinear upsampling, ReLU, leaky ReLU, tanh.
    path : str or Path, optional
        The page, a name that ends in ``.html``; without one, the page stands in the notebook, below the cell, and stays
        there when it is saved (6 to 8 MB with the embedded generator).
    seed : int
        The first picture.
    k : int
        Units of each concept: those that remove most of it where the dissection knows effects, else of highest IoU.
    readout : bool
        Whether the page says what a stroke changed, if the segmenter is one that it can run (the embedded one).
    progress : bool or callable
        As for `ganlens.dissect`.

    Returns
    -------
    Path, or InNotebook
        The page.

    Raises
    ------
    ValueError
        The generator has a part that cannot run in a page (the module is named), or takes classes.

    Examples
    --------
    >>> import ganlens as gl, tempfile
    >>> D = gl.dissect(gl.load_generator("scenes"), gl.load_segmenter("scenes"), "layer4", n=16, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = gl.painting_page(D, f"{folder}/paint.html", readout=False, progress=False)
    ...     page.stat().st_size < 7e6
    True
    """
    seed, k = as_seeds([seed])[0], check_integer("k", k)
    layers = {D.layer: D for D in check_dissections(dissections).values()}
    if path is None:
        return InNotebook(page_of(layers, seed, k, readout, progress))
    path = check_path(path)
    check_targets([path], replace=True)
    write_atomically(path, page_of(layers, seed, k, readout, progress).encode())
    return path


class InNotebook(NamedTuple):
    """A page as an output of a notebook: the text of its file.

    It works where a front end shows HTML that was saved, JupyterLab and Notebook in notebooks that are trusted.
    """

    text: str

    def _repr_html_(self) -> Markup:
        style = "width: 100%; height: 960px; border: 0"
        return h("iframe", srcdoc=self.text, title="Paint with units", style=style)

    def __repr__(self) -> str:
        return f"<a page that paints, {len(self.text) / 1e6:.1f} MB>"


def page_of(layers: Mapping[str, Dissection], seed: int, k: int, readout: bool, progress) -> str:
    """The text of the file."""
    first = next(iter(layers.values()))
    G = generator_of(first)
    if len({D.origin["generator_fingerprint"] for D in layers.values()}) > 1:
        raise ValueError("the dissections are of several generators; expected layers of one")
    if G.classes:
        raise ValueError(f"{G.name} draws {G.classes} classes, which a page cannot choose yet")
    if G.image_shape[0] != 3:
        raise ValueError(f"{G.name} makes images of {G.image_shape[0]} channels; a page shows those of 3")
    program = program_of(G, list(G.layers))
    check_program(program, G, list(layers), progress)
    segmenter = (
        segmenter_program(first.segmenter, G) if readout and isinstance(first.segmenter, SceneSegmenter) else None
    )
    packed = program.packed()
    scores = segmenter.packed() if segmenter else (None, b"")
    told = told_of(G, layers, seed, k) | {
        "program": packed[0],
        "segmenter": scores[0],
        "readout": segmenter is not None,
    }
    return document(f"Paint with units of {G.title}", told, packed[1], scores[1])


def program_of(G: Generator, layers: list[str]) -> Program:
    """The generator as steps."""
    with borrowed(G.net):
        return traced(G.net, lambda z: G._output(call(G.net, G._arguments(z, None))), G.latents(range(GRANULE)), layers)


def segmenter_program(S: SceneSegmenter, G: Generator) -> Program:
    """The embedded segmenter as steps, from images to scores."""
    return traced(S.net, S.logits, G.generate(range(GRANULE)), [])


def check_program(program: Program, G: Generator, layers: list[str], progress) -> None:
    """ValueError if the steps give other images than the network, with edits or without."""
    total = CHECKED * (1 + 2 * len(layers))
    with progress_bar(progress, total, "check") as done:
        for layer in [None, *layers]:
            edits: list[list[Edit]] = [[]] if layer is None else [[edit] for edit in edits_for(G, layer)]
            for edit in edits:
                expected = G.generate(range(CHECKED), edit)
                change = partial(applied, G, edit)
                for z, image in zip(G.latents(range(CHECKED)), expected, strict=True):
                    found = program.run(z.cpu(), change)
                    worst = float((found[0].float().expand_as(image) - image.cpu()).abs().max())
                    if not worst <= TOLERANCE:
                        raise ValueError(
                            f"{G.name} computes something else in a page: up to {127.5 * worst:.1f} of 255"
                        )
                    done(1)


def edits_for(G: Generator, layer: str) -> list[Edit]:
    """Two edits of a layer: a few units forced in a corner, and some switched off."""
    units, height, width = G.layers[layer]
    region = np.zeros((height, width))
    region[: -(-height // 2), : -(-width // 2)] = 0.5
    some = sorted({0, units // 2, units - 1})
    return [insert(layer, some, level="q0.995", region=region), ablate(layer, some)]


def applied(G: Generator, edits: Sequence[Edit], layer: str, r: torch.Tensor) -> torch.Tensor:
    """A layer's map with the edits that are meant for it."""
    for edit in edits:
        if edit.layer == layer:
            r = edit.apply(r.to(G.device).float(), G.level(edit)).cpu().double()
    return r


# ---- what the page knows


def told_of(G: Generator, layers: Mapping[str, Dissection], seed: int, k: int) -> dict:
    """Names and numbers of generator, layers, units and concepts."""
    first = next(iter(layers.values()))
    names = known_as(first.concepts)
    colors = ["#" + color.tobytes().hex() for color in palette(len(names))]
    shown = [layer_of(D, names, k) for D in layers.values()]
    ranked = [name for layer in shown for name in layer["ranked"]]
    height, width = G.image_shape[1:]
    return {
        "generator": G.name,
        "fingerprint": G.fingerprint,
        "settings": G.chosen,
        "latents": {"length": G.z_dim, "law": G.law},
        "seed": seed,
        "size": [width, height],
        "shapes": {name: list(shape) for name, shape in G.layers.items()},
        "levels": {name: levels_of(G, name) for name in layers},
        "layers": shown,
        "concepts": [list(pair) for pair in zip(names, colors, strict=True)],
        "start": "tree" if "tree" in ranked else ranked[0] if ranked else None,  # without, units are picked by hand
    }


def levels_of(G: Generator, layer: str) -> dict[str, list[float]]:
    """Named levels of all units of a layer, as numbers."""
    levels = G.levels(layer)
    found = {name: levels.mean() if q is None else levels.quantile(q) for name, q in LEVELS.items()}
    known = {name: values.nan_to_num(0.0).tolist() for name, values in found.items()}  # broken units have none
    return {name: [float(f"{value:.9g}") for value in values] for name, values in known.items()}


def layer_of(D: Dissection, names: list[str], k: int) -> dict:
    """Units of a layer, and those of each concept that it can paint with."""
    by = "effect" if D.effects is not None and not np.isnan(D.effects).any() else "iou"
    drawn = [c for c, concept in enumerate(D.concepts) if D.unit_counts[concept]]
    best = sorted(D.labels, key=lambda label: (not label.interpretable, -label.iou))
    index = {concept: name for concept, name in zip(D.concepts, names, strict=True)}
    return {
        "name": D.layer,
        "grid": list(generator_of(D).layers[D.layer][1:]),
        "ranked": {names[c]: D.units(D.concepts[c], k, by=by) for c in drawn},
        "units": [[b.unit, index[b.concept], round(b.iou, 3), bool(b.interpretable)] for b in best],
    }


# ---- the file


def document(title: str, told: dict, weights: bytes, scores: bytes) -> str:
    """The page around what it knows."""
    policy = (
        f"default-src 'none'; script-src {' '.join(runs())}; worker-src blob:; "
        "style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; base-uri 'none'"
    )
    parts = [
        data("worker", "text/plain", "\n".join(read(f"engine/{name}") for name in ENGINE)),
        data("told", "application/json", json.dumps(told, allow_nan=False).replace("<", "\\u003c")),
        numbers("weights", weights),
        numbers("segmenter-weights", scores) if scores else None,
        numbers("kernel", (HERE / "engine" / "kernel.wasm").read_bytes()),
        h("script", Markup(own_script())),
    ]
    body = Markup(read("painting.html").replace("{{title}}", h("h1", title)))
    return whole(title, policy, read("painting.css"), h("body", body, *parts))


def own_script() -> str:
    """The page's own script; the engine's is text of a worker."""
    return "\n".join(read(name) for name in SCRIPTS)


def runs() -> list[str]:
    """What a page that paints may run, as a policy says it."""
    return [digest(own_script()), "'wasm-unsafe-eval'", "blob:"]


def data(name: str, kind: str, text: str, **attributes: object) -> Markup:
    """An element that holds data, not code; nothing in it may end it."""
    if "</script" in text.lower():
        raise AssertionError(f"{name} would end its element")
    return h("script", Markup(text), id=name, type=kind, **attributes)


def numbers(name: str, content: bytes) -> Markup:
    """Bytes as text; of numbers of two bytes the first ones of all, then the second ones, deflated: 14 % shorter."""
    even = content + b"\0" * (len(content) % 2)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = base64.b64encode(squeezer.compress(even[::2] + even[1::2]) + squeezer.flush()).decode()
    return data(name, "text/plain", text, data_length=len(content))


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
