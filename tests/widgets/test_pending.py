"""Strokes that wait for their units, strokes beside changes of the layer, and what is left when a widget ends."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from traitlets import TraitError

import ganlens as gl
from ganlens.widgets.worker import Worker


@pytest.fixture(scope="module")
def both(G, S):
    return gl.dissect(G, S, ["layer4", "layer6"], n=32, progress=False)


@pytest.fixture
def canvas(both):
    """Its palette is measured no further; an order that was asked for stays unknown until `measured`."""
    canvas = gl.InterventionCanvas(both, seed=3, concept="tree", k=4)
    canvas.background.stop()
    assert canvas.wait()
    for D in both.values():
        D.rankings = {}
    canvas.layer = "layer4"
    canvas.long_worker.stop()  # so that nothing is measured
    canvas.order = "gradient"
    yield canvas
    canvas.close()


def measured(canvas, layer="layer4"):
    """Let the order be known, backwards, and the strokes be painted."""
    D = canvas.dissections[layer]
    D.keep_ranking("gradient", -D.iou)
    canvas.paint_what_waits()


class TestWaiting:
    def test_painted_with_what_was_chosen_then(self, canvas, both):
        canvas.strength = 0.5
        canvas.paint([1, 2], "add")
        assert canvas.edits == ()
        canvas.k, canvas.strength, canvas.level, canvas.layer = 9, 1.0, "mean", "layer6"
        measured(canvas)
        (edit,) = canvas.edits
        D = both["layer4"]
        assert (edit.layer, edit.strength) == ("layer4", 0.5)
        assert list(edit.units) == D.units("tree", 4, by="gradient")
        np.testing.assert_allclose(edit.level, D.levels.quantile(0.995)[list(edit.units)])

    def test_undo_and_reset_take_it_back(self, canvas):
        canvas.paint([1])
        canvas.paint([2])
        canvas.undo()
        measured(canvas)
        assert [np.flatnonzero(edit.region).tolist() for edit in canvas.edits] == [[1]]
        canvas.dissections["layer4"].rankings = {}
        canvas.paint([3])
        canvas.reset()
        measured(canvas)
        assert canvas.edits == ()

    def test_a_recipe_takes_its_place(self, canvas):
        recipe = canvas.recipe
        canvas.paint([1])
        canvas.load(recipe)
        measured(canvas)
        assert canvas.recipe == recipe

    def test_the_eraser_takes_its_cells(self, canvas):
        canvas.paint([1, 2])
        canvas.paint([2])
        canvas.erase([2])
        measured(canvas)
        assert [np.flatnonzero(edit.region).tolist() for edit in canvas.edits] == [[1]]

    def test_typed_units_need_no_order(self, canvas):
        canvas.units = (7, 3)
        canvas.paint([1])
        assert [edit.units for edit in canvas.edits] == [(7, 3)]
        assert canvas.units == (7, 3)

    @pytest.mark.parametrize("region", [np.full((8, 8), 2.0), np.zeros((8, 8)), np.ones((4, 4)), "abc"])
    def test_what_does_not_fit_is_refused_at_once(self, canvas, region):
        with pytest.raises(ValueError, match="region"):
            canvas.paint(region=region)
        assert canvas.waiting == []


def test_no_stroke_falls_between_a_layer_and_its_units(both):
    canvas = gl.InterventionCanvas(both, seed=3, concept="tree", k=4)
    canvas.background.stop()
    expected = {layer: tuple(D.units("tree", 4)) for layer, D in both.items()}
    for i in range(60):
        other = threading.Thread(target=setattr, args=(canvas, "layer", ("layer4", "layer6")[i % 2]))
        other.start()
        canvas._receive({"kind": "stroke", "cells": [i], "grid": [8, 8]})
        other.join()
    assert canvas.failure == ""
    assert [edit.units for edit in canvas.edits] == [expected[edit.layer] for edit in canvas.edits]
    assert len(canvas.edits) == 60
    canvas.close()


def test_what_a_stroke_would_do_is_shown_and_not_done(both, monkeypatch):
    canvas, sent = gl.InterventionCanvas(both["layer4"], seed=3, concept="tree", k=4), []
    canvas.paint([20, 21], "add")
    assert canvas.wait()
    monkeypatch.setattr(canvas.brush, "send", lambda message, buffers: sent.append((message, buffers)))
    canvas.easel.spent = 0.01
    before, image = canvas.recipe, canvas.image
    canvas._receive({"kind": "preview", "cells": [44, 45], "grid": [8, 8]})
    assert canvas.wait()
    ((message, (png,)),) = sent
    assert message == {"kind": "preview", "cells": [44, 45]}
    assert (canvas.recipe, canvas.image is image) == (before, True)
    canvas.paint([44, 45])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), gl.replay(canvas.recipe))
    for name, value in (("tool", "erase"), ("units", ())):
        setattr(canvas, name, value)
        canvas._receive({"kind": "preview", "cells": [44, 45], "grid": [8, 8]})
    canvas.tool, canvas.concept, canvas.easel.spent = "brush", "door", 1.0  # too slow to be tried
    canvas._receive({"kind": "preview", "cells": [44, 45], "grid": [8, 8]})
    assert canvas.wait()
    assert len(sent) == 1
    canvas.close()


def test_a_level_beyond_single_precision_is_refused(both):
    with pytest.raises(ValueError, match="not finite"):
        gl.insert("layer4", [3], 1e39)
    with pytest.raises(ValueError, match="not finite"):
        gl.InterventionCanvas(both, level="1e39")


def test_nothing_is_left_of_a_widget_that_could_not_be_made(both):
    before = {*widgets()}
    for wrong in ({"concept": "treee"}, {"seed": -1}, {"k": 0}, {"order": "size"}):
        with pytest.raises((ValueError, TraitError)):
            gl.InterventionCanvas(both, **wrong)
    with pytest.raises(TraitError, match="seed"):
        gl.Explorer(both, seed=-1)
    assert {*widgets()} <= before


def widgets():
    from ipywidgets.widgets import widget

    return dict(widget._instances)


def test_an_explorer_that_is_closed_computes_nothing(both):
    explorer = gl.Explorer(both)
    workers = [explorer.canvas.background, explorer.canvas.worker, explorer.canvas.long_worker, explorer.gallery.worker]
    explorer.close()
    assert all(worker.stopped and worker.thread is None for worker in workers)


def test_a_job_that_ends_python_ends_only_itself():
    seen, done = [], []
    worker = Worker(seen.append)
    worker.request("bad", lambda: sys.exit(3))
    assert worker.wait(5)
    worker.request("good", lambda: done.append(1))
    assert worker.wait(5)
    assert [type(error) for error in seen] == [SystemExit]
    assert done == [1]
    worker.stop()


SCRIPT = """
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
canvas = gl.InterventionCanvas(gl.dissect(G, S, ["layer3", "layer4", "layer5", "layer6"], n=16, progress=False))
"""


def test_python_ends_while_the_palette_is_measured():
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (0, "")
