"""What a saved notebook shows of widgets: opened again in JupyterLab, after a restart, and by nbconvert."""

import base64
import subprocess
import sys

import nbformat
import pytest
from lab import page, run_cells, tell_kernel, write_notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("saved in lab"),
]  # the second test reads what the first saved

SETUP = """
import torch
torch.set_num_threads(1)
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
D = gl.dissect(G, S, ["layer4", "layer5"], n=32, progress=False)
"""
WIDGETS = {
    "UnitGallery": "gl.UnitGallery(D)",
    "IoUHeatmap": "gl.IoUHeatmap(D)",
    "InterventionCanvas": "canvas = gl.InterventionCanvas(D, concept='tree'); canvas",
    "Explorer": "gl.Explorer(D)",
    "ComparisonView": "gl.ComparisonView(D)",
}
OUTPUTS = "i => [...document.querySelectorAll('.jp-CodeCell')][i].querySelector('.jp-Cell-outputArea')"
# Of the outputs of a cell: how many saved pictures can be seen, how large, and the words below.
SEEN = f"""i => {{
    const area = ({OUTPUTS})(i);
    const pictures = [...area.querySelectorAll('.jp-RenderedImage img')].filter(x => x.offsetWidth > 0);
    const broken = [...area.querySelectorAll('img[src]')].filter(x => x.complete && !x.naturalWidth && x.src);
    const last = [...area.querySelectorAll('.jupyter-widgets')].at(-1);
    return {{
        pictures: pictures.map(x => [x.naturalWidth, x.naturalHeight]), broken: broken.length,
        gone: [...area.querySelectorAll('.ganlens-gone')].filter(x => x.offsetWidth > 0).map(x => x.textContent),
        instead: last && !last.children.length ? getComputedStyle(last, '::after').content : '',
    }};
}}"""


def all_on_the_page(page):
    """So large that no cell is taken off it."""
    page.set_viewport_size({"width": 1280, "height": 6000})


def save(lab):
    lab.evaluate("jupyterapp.commands.execute('docmanager:save')")
    lab.wait_for_timeout(1000)


def test_pictures_survive(address, folder, pictures):
    write_notebook(folder / "saved.ipynb", SETUP, *WIDGETS.values())
    with page(address, "saved.ipynb", all_on_the_page) as lab:
        run_cells(lab, 1 + len(WIDGETS))
        lab.wait_for_timeout(3000)
        for i in range(1, 1 + len(WIDGETS)):
            assert lab.evaluate(f"i => ({OUTPUTS})(i).querySelectorAll('.jp-RenderedImage img').length", i) == 1
            seen = lab.evaluate(SEEN, i)
            assert (seen["pictures"], seen["gone"], seen["broken"]) == ([], [], 0)
        tell_kernel(lab, "canvas.paint([40, 41], 'add'); assert canvas.wait()")
        lab.wait_for_timeout(3000)  # the picture follows what is painted
        save(lab)
        wide = lab.evaluate(f"i => ({OUTPUTS})(i).querySelector('.jp-RenderedImage img').naturalWidth", 3)
        assert wide == 872  # before and after
        lab.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()")
        for i in range(1, 1 + len(WIDGETS)):
            lab.wait_for_function(f"i => ({SEEN})(i).gone.length > 0", arg=i, timeout=30_000)
            assert lab.evaluate(SEEN, i)["gone"][0] == "The kernel is gone: run the cell again."
        lab.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        lab.wait_for_timeout(1000)
    with page(address, "saved.ipynb", all_on_the_page) as lab:
        for i in range(1, 1 + len(WIDGETS)):
            lab.wait_for_function(f"i => ({SEEN})(i).instead", arg=i, timeout=30_000)
            seen = lab.evaluate(SEEN, i)
            assert len(seen["pictures"]) == 1
            assert min(seen["pictures"][0]) > 100
            assert "Run the cell again" in seen["instead"]
            assert seen["broken"] == 0
            lab.locator(".jp-CodeCell").nth(i).scroll_into_view_if_needed()
            lab.screenshot(path=pictures / f"saved-{i}.png")
    pictures_are_in_the_file(folder)


def pictures_are_in_the_file(folder):
    """What other front ends read, without a kernel: pictures with words for those who do not see them."""
    notebook = nbformat.read(folder / "saved.ipynb", as_version=4)
    assert "widgets" not in notebook.metadata
    pictures = []
    for cell, name in zip(notebook.cells[1:], WIDGETS, strict=True):
        output = cell.outputs[0]
        (kind,) = {"image/png", "image/jpeg"} & output.data.keys()
        assert base64.b64decode(output.data[kind])[:4] in (b"\x89PNG", b"\xff\xd8\xff\xfe")
        assert output.metadata[kind]["alt"].startswith(f"picture of <{name} ")
        pictures.append(output.data[kind].replace("\n", "")[:200])
    convert = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", str(folder / "saved.ipynb")]
    subprocess.run(convert, check=True, capture_output=True)
    page_ = (folder / "saved.html").read_text().replace("\n", "")
    assert [picture in page_ for picture in pictures] == [True] * len(pictures)


def test_slow_images_are_in_the_file_when_they_are_there(address, folder):
    """A gallery as a cell's last line, whose generator takes longer than the display waits."""
    slow = SETUP.replace("D = ", "import time\nread = G.read\nD = ")
    slow += "\nfrom ganlens.widgets import thumbnails\nmake = thumbnails.strips\n"
    slow += "from ganlens.widgets import gallery\n"
    slow += "gallery.strips = lambda *given: (time.sleep(1.5), make(*given))[1]"
    write_notebook(folder / "slow.ipynb", slow, "gallery_ = gl.UnitGallery(D); gallery_")
    with page(address, "slow.ipynb") as lab:
        run_cells(lab, 2)
        length = f"i => ({OUTPUTS})(i).querySelector('.jp-RenderedImage img')?.src.length"
        first = lab.evaluate(length, 1)
        lab.wait_for_function(f"n => ({length})(1) > 1.5 * n", arg=first, timeout=60_000)
        save(lab)
    notebook = nbformat.read(folder / "slow.ipynb", as_version=4)
    assert len(notebook.cells[1].outputs[0].data["image/jpeg"]) > 1.4 * first


def test_a_kernel_that_is_shut_down(address, folder):
    write_notebook(folder / "shut.ipynb", SETUP, "canvas = gl.InterventionCanvas(D, seed=3); canvas")
    with page(address, "shut.ipynb") as lab:
        run_cells(lab, 2)
        lab.locator(".ganlens-picture").wait_for()
        assert lab.evaluate(SEEN, 1)["gone"] == []
        lab.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        lab.wait_for_function(f"() => ({SEEN})(1).gone.length > 0", timeout=10_000)
        assert lab.evaluate(SEEN, 1)["gone"][0] == "The kernel is gone: run the cell again."
