"""The first notebook, as somebody sees it who types ``make lab``: real JupyterLab, real kernel, real Chromium."""

import shutil

import pytest
from lab import jupyterlab, need_chromium, page, run_cells
from refresh_notebooks import NOTEBOOKS


@pytest.mark.browser
def test_first_notebook_in_jupyterlab(tmp_path, request):
    need_chromium()
    notebook = NOTEBOOKS[0].name
    shutil.copy(NOTEBOOKS[0], tmp_path / notebook)
    with jupyterlab(tmp_path) as address, page(address, notebook) as lab:
        lab.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        lab.wait_for_function("document.querySelectorAll('.jp-RenderedImage img').length === 0")
        run_cells(lab, 4)  # title, load, "What does it draw?", images
        picture = lab.locator(".jp-RenderedImage img").first
        picture.wait_for(timeout=60_000)
        box = picture.bounding_box()
        folder = request.config.rootpath / "test-results"
        folder.mkdir(exist_ok=True)
        lab.screenshot(path=folder / "first-notebook.png")
        errors = lab.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
    assert box["width"] > 600
    assert not [text for text in errors if "Error" in text]
