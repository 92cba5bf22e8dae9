"""A page that paints as an output of a notebook: there when it is opened again, without a kernel."""

import numpy as np
import pytest
from lab import page, run_cells, write_notebook
from test_painting_page import PIXELS, close

import ganlens as gl

CELLS = (
    "import ganlens as gl\nG, S = gl.load_generator(), gl.load_segmenter()",
    "D = gl.dissect(G, S, 'layer4', n=32, progress=False)\ngl.painting_page(D, seed=7, readout=False, progress=False)",
)


@pytest.mark.browser
def test_it_paints_without_a_kernel(address, folder, pictures, G):
    write_notebook(folder / "painting.ipynb", *CELLS)
    with page(address, "painting.ipynb") as lab:
        run_cells(lab, 2)
        lab.frame_locator("iframe").locator("[data-is=app]:not([hidden])").wait_for(timeout=60_000)
        lab.evaluate("jupyterapp.commands.execute('docmanager:save')")
        lab.wait_for_timeout(2000)
    with page(address, "painting.ipynb") as lab:  # it is opened again, and no cell is run
        lab.frame_locator("iframe").locator("[data-is=app]:not([hidden])").wait_for(timeout=60_000)
        frame = next(frame for frame in lab.frames if frame.evaluate("typeof painting !== 'undefined'"))
        frame.wait_for_function("() => !painting.working && !painting.wanted")
        found = np.array(frame.evaluate(PIXELS, "picture"), np.uint8).reshape(64, 64, 4)[..., :3]
        assert close(found, gl.replay(gl.Recipe.of(G, 7)))
        lab.screenshot(path=pictures / "painting-in-lab.png")
