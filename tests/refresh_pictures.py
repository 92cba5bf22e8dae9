"""Make the pictures of the README again: ``python tests/refresh_pictures.py``, some minutes."""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import ganlens as gl
from ganlens.embedded.evaluation import HELD_OUT
from ganlens.images import grid, to_uint8
from ganlens.scenes.painter import paint_many

FOLDER = Path(__file__).parent.parent / "notebooks" / "images"
SHOWN = ("tree", "dome", "cloud", "door", "window")  # rows of the first picture
SETUP = """
import ganlens as gl
G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
D = gl.dissect(G, S, ["layer4", "layer6"], n=2000, progress=False)
"""
SEED, TREE = 25, (0.84, 0.68)  # an image with one tree, and where it stands
CANVAS = f"canvas = gl.InterventionCanvas(D, seed={SEED}); canvas"
EXPLORER = f"explorer = gl.Explorer(D, seed={SEED}); explorer"
GALLERY = "gl.UnitGallery(D['layer4'])"


def save(name: str, ax) -> None:
    """Write what a figure shows, a photograph as JPEG."""
    options = {"pil_kwargs": {"quality": 88}} if name.endswith("jpg") else {}
    ax.figure.savefig(FOLDER / name, dpi=100, **options)
    plt.close(ax.figure)


def figures(G, S, dissections) -> None:
    D, every = dissections["layer4"], range(96)
    for name, pictures in {
        "samples": to_uint8(G.generate(every)),
        "paintings": paint_many(range(HELD_OUT, HELD_OUT + len(every)))[0],
    }.items():
        Image.fromarray(grid(pictures, columns=12)).save(FOLDER / f"{name}.jpg", quality=90)
    save("units.jpg", gl.plots.unit_strips(dissections["layer6"], best_units(dissections["layer6"])))
    save("layers.png", gl.plots.layers_bars(dissections)[0])
    save("concepts-by-layer.png", gl.plots.concept_matrix(gl.Comparison(dissections)))
    seeds = with_large(S, G, "tree")
    save("trees-switched-off.jpg", before_and_after(G, D, seeds))
    maps = np.stack([gl.where(D, "door", seed, k=40) for seed in range(24)])
    best = np.argsort(-maps.max((1, 2)))[:6].tolist()
    save("doors.jpg", gl.plots.context_sheet(D, "door", maps[best], seeds=best, k=40))


def best_units(D) -> list[int]:
    """The unit that matches each of a few concepts best."""
    return [D.units(concept, k=1)[0] for concept in SHOWN]


def with_large(S, G, concept: str, k: int = 6, among: int = 64) -> list[int]:
    """The images that show most of a concept."""
    shown = (S.labels(G.generate(range(among))) == S.index(concept) + 1).flatten(1).sum(1)
    return shown.argsort(descending=True)[:k].tolist()


def before_and_after(G, D, seeds):
    edit = gl.ablate(D.layer, D.units("tree", k=20))
    return gl.plots.before_after(G.generate(seeds), G.generate(seeds, [edit]))


def screenshots() -> None:
    """The canvas after a tree was painted away, the gallery and the explorer, in JupyterLab."""
    sys.path.insert(0, str(Path(__file__).parent / "widgets"))
    from lab import jupyterlab, page, run_cells, tell_kernel, write_notebook

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_notebook(folder / "canvas.ipynb", SETUP, CANVAS)
        write_notebook(folder / "gallery.ipynb", SETUP, GALLERY)
        write_notebook(folder / "explorer.ipynb", SETUP, EXPLORER)
        with jupyterlab(folder) as address:
            with page(address, "canvas.ipynb", large) as lab:
                run_cells(lab, 2)
                tell_kernel(lab, "canvas.background.wait(120); canvas.concept = 'tree'")
                tell_kernel(lab, f"canvas.fill(*{TREE}); assert canvas.wait(30)")
                lab.wait_for_timeout(1500)
                keep(lab.locator(".ganlens-panel").last, "canvas.jpg")
            with page(address, "explorer.ipynb", large) as lab:
                run_cells(lab, 2)
                tell_kernel(lab, "explorer.canvas.background.wait(120); explorer.concept = 'tree'")
                lab.wait_for_timeout(4000)
                keep(lab.locator(".ganlens-explorer").last, "explorer.jpg")
            with page(address, "gallery.ipynb") as lab:
                run_cells(lab, 2)
                lab.wait_for_timeout(4000)
                keep(lab.locator(".ganlens-gallery").last, "gallery.jpg")


def large(page) -> None:
    """So large that nothing is cut off or covered."""
    page.set_viewport_size({"width": 1500, "height": 1300})


def keep(element, name: str) -> None:
    """Write what an element of the page shows."""
    element.screenshot(path=FOLDER / name, type="jpeg", quality=88)


def main() -> None:
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    dissections = gl.dissect(G, S, list(G.layers), n=2000)
    figures(G, S, dissections)
    screenshots()


if __name__ == "__main__":
    main()
