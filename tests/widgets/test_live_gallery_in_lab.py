"""A gallery that is open while the dissection goes on, in real JupyterLab."""

import pytest
from lab import page, tell_kernel, write_notebook

SETUP = "import ganlens as gl\nG, S = gl.load_generator(), gl.load_segmenter()"
DISSECT = "D = gl.dissect(G, S, 'layer3', n='auto', progress=False, watch=gl.UnitGallery.live(minimum=0.04))"
ROWS = "[...document.querySelectorAll('.ganlens-gallery [role=row]')].map(row => row.innerText)"


@pytest.mark.browser
def test_labels_are_seen_as_they_settle(address, folder, pictures):
    write_notebook(folder / "live.ipynb", SETUP, DISSECT)
    with page(address, "live.ipynb") as lab:
        lab.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")  # and do not wait for it
        note = lab.locator(".ganlens-gallery .ganlens-note")
        note.filter(has_text="384 images so far").wait_for(timeout=120_000)
        assert "of the labels are settled" in note.inner_text()
        first = lab.evaluate(ROWS)
        assert len(first) >= 4
        assert lab.locator(".ganlens-gallery img[src]").count() == 0  # the generator is at work
        lab.screenshot(path=pictures / "live-gallery.png")
        note.filter(has_text="512 images so far").wait_for(timeout=120_000)
        lab.locator(".ganlens-gallery [role=row] img[src]").first.wait_for(timeout=180_000)
        assert note.inner_text() == ""
        assert lab.locator(".ganlens-gallery").count() == 1
        assert lab.evaluate(ROWS) != first
        lab.screenshot(path=pictures / "live-gallery-done.png")
        assert tell_kernel(lab, "print(D.complete, D.generator is G)") == "True True"
