"""The canvas at first sight: its tiles, what a stroke did in words, tools, and what is painted while measuring."""

import threading

import numpy as np
import pytest

import ganlens as gl
from ganlens.effects.paintable import Start, paint
from ganlens.widgets.canvas_words import result_of
from ganlens.widgets.strokes import fitted

NAMES = ["sky", "tree", "grass", "hill"]


@pytest.fixture(scope="module")
def both(G, S):
    return gl.dissect(G, S, ["layer4", "layer6"], n=96, progress=False)


@pytest.fixture
def canvas(both):
    made = gl.InterventionCanvas(both, seed=3)
    assert made.wait()
    yield made
    made.close()


def send(canvas, part="brush", **message):
    getattr(canvas, part)._handle_custom_msg(message, [])
    assert canvas.wait()


class TestTiles:
    def test_bars_and_layers_are_what_strokes_do(self, canvas, both, G):
        assert canvas.background.wait(120)
        assert canvas.palette.measuring == ""
        names = [str(c) for c in both["layer4"].concepts]
        found = {
            (layer, c): paint(D, Start.of(D, 3), c, D.units(D.concepts[c], 20), "q0.995")
            for layer, D in both.items()
            for c in (names.index("tree"), names.index("door"), names.index("cloud"))
        }
        for mode in ("remove", "add"):
            canvas.mode = mode
            tiles = {tile["name"]: tile for tile in canvas.palette.tiles}
            for name in ("tree", "door", "cloud"):
                of = [found[layer, names.index(name)] for layer in both]
                if mode == "add":
                    values = [one.gained.max() / 256 - one.beside / 256 for one in of]
                    shown, least = [one.gained.max() / 256 for one in of], (0.25, 0.125, 0.0625)
                else:
                    shown = [1 - one.left / one.before if one.before else 0 for one in of]
                    values, least = [a - one.spoiled / 4096 for a, one in zip(shown, of, strict=True)], (0.6, 0.3, 0.1)
                best = int(np.argmax(values))
                assert tiles[name]["how"] == sum(shown[best] >= x for x in least)
                canvas.concept = name
                assert canvas.layer == list(both)[best]
        worth = [tile["worth"] for tile in canvas.palette.tiles]
        assert worth == sorted(worth, reverse=True)
        assert set(canvas.palette.crops) == {tile["name"] for tile in canvas.palette.tiles}

    def test_grey_ones_say_why(self, canvas, S, G):
        assert canvas.background.wait(120)
        there = set(np.unique(S.labels(G.generate([3]))).tolist())
        for tile in canvas.palette.tiles:
            missing = S.index(tile["name"]) + 1 not in there
            assert (tile["reason"] == "not in this picture") == missing
            assert (tile["how"] == 0) >= missing
            if missing:
                assert tile["name"] in canvas.palette.why

    def test_one_layer_stays_chosen(self, canvas):
        assert canvas.background.wait(120)
        send(canvas, "fold", kind="set", name="layer", value="layer6")
        for concept in ("tree", "cloud", "door"):
            canvas.concept = concept
            assert canvas.layer == "layer6"
        send(canvas, "fold", kind="set", name="layer", value="")
        assert canvas.fold.state["layer"] == ""

    def test_typed_units_stay_when_the_layers_are_measured(self, both):
        made = gl.InterventionCanvas(both, seed=3, concept="door")
        made.mode, made.units = "add", (7, 3)
        layer = made.layer  # doors are drawn better in the other one
        assert made.background.wait(120)
        assert (made.layer, made.units) == (layer, (7, 3))
        made.close()

    def test_without_segmenter(self, both):
        from dataclasses import replace

        made = gl.InterventionCanvas(replace(both["layer4"], segmenter=None), concept="tree")
        assert made.wait()
        assert made.background.wait(5)
        assert {tile["how"] for tile in made.palette.tiles} == {None}
        assert not made.tools.segments
        send(made, kind="fill", x=0.5, y=0.5)
        assert "needs a segmenter" in made.failure
        made.close()


class TestWords:
    def check(self, concept, before, after):
        return result_of(NAMES, concept, np.array(before), np.array(after), 1000)

    def test_all_of_it_and_what_took_its_place(self):
        head, more, warns = self.check(1, [500, 62, 200, 100], [500, 0, 228, 112])
        assert head == "tree −6.2 % of the picture: all of it"
        assert more == "In its place grass (+2.8 %) and hill (+1.2 %). Everything else within 0.0 %."
        assert not warns

    def test_a_part_of_it(self):
        head, more, _ = self.check(1, [500, 60, 200, 100], [508, 30, 222, 100])
        assert head == "tree −3.0 % of the picture: 50% of it"
        assert more == "In its place grass (+2.2 %) and sky (+0.8 %). Everything else within 0.0 %."

    def test_what_was_covered(self):
        head, more, _ = self.check(1, [500, 0, 200, 100], [498, 43, 173, 86])
        assert head == "tree +4.3 % of the picture"
        assert more == "Less of grass (−2.7 %) and hill (−1.4 %). Everything else within 0.2 %."

    def test_nothing_came_of_it(self):
        head, more, warns = self.check(1, [500, 0, 200, 100], [502, 0, 198, 100])
        assert (head, warns) == ("tree: nothing changed", True)
        assert more.startswith("Everything else within 0.2 %.")

    def test_units_without_a_name(self):
        assert self.check(None, [500, 0, 200, 100], [400, 0, 290, 100]).head == "sky −10.0 % of the picture: 20% of it"

    def test_on_the_canvas(self, canvas, S, G):
        canvas.concept, canvas.layer = "cloud", "layer4"
        send(canvas, kind="stroke", cells=[3, 4, 11, 12], grid=[8, 8])
        c = S.index("cloud") + 1
        counts = [int((S.labels(canvas.renderer.render(3, some)[0]) == c).sum()) for some in ((), canvas.edits)]
        percent = f"{100 * (counts[1] - counts[0]) / 4096:+.1f} %".replace("-", "−")
        assert canvas.list.rows[0]["change"] == percent
        if abs(counts[1] - counts[0]) > 2:
            assert canvas.list.result[0].startswith(f"cloud {percent}")


class TestTools:
    def test_fill_takes_the_thing_at_a_point(self, canvas, S, G):
        labels = S.labels(G.generate([3]))[0, 0].numpy()
        y, x = np.argwhere(labels == S.index("wall") + 1)[40]
        canvas.concept, canvas.layer = "wall", "layer4"
        send(canvas, kind="fill", x=(x + 0.5) / 64, y=(y + 0.5) / 64)
        region = np.asarray(canvas.edits[0].region)
        wall = (labels == S.index("wall") + 1).reshape(8, 8, 8, 8).mean((1, 3))
        assert (region[wall > 0.9] == 1).all()
        assert (region[wall < 0.1] == 0).all()

    def test_eraser_takes_cells_out_of_strokes(self, canvas):
        canvas.concept, canvas.layer = "tree", "layer4"
        canvas.paint([0, 1, 2])
        canvas.paint([2, 3])
        canvas.tool = "erase"
        send(canvas, kind="stroke", cells=[2, 3], grid=[8, 8])
        assert [stroke.cells for stroke in canvas.history.strokes] == [[0, 1]]
        canvas.undo()
        assert [stroke.cells for stroke in canvas.history.strokes] == [[0, 1, 2], [2, 3]]
        canvas.tool = "brush"

    def test_strength_afterwards(self, canvas):
        canvas.concept = "tree"
        canvas.paint([0, 1, 2])
        send(canvas, "list", kind="strength", index=0, value=0.35)
        assert canvas.edits[0].strength == 0.35
        send(canvas, "list", kind="strength", index=0, value=2)
        assert "strength=2" in canvas.failure
        canvas.undo()
        assert canvas.edits[0].strength == 1
        assert canvas.wait()
        assert np.array_equal(canvas.image, gl.replay(canvas.recipe))

    def test_a_stroke_on_the_grid_of_another_layer_is_fitted(self, canvas):
        canvas.concept, canvas.layer = "tree", "layer4"
        send(canvas, kind="stroke", cells=[0, 1, 16, 17, 255], grid=[16, 16])
        assert canvas.history.strokes[0].cells == [0]
        small = np.zeros((16, 16))
        small[5, 5] = 1
        assert np.argwhere(fitted(small, (8, 8))).tolist() == [[2, 2]]
        assert fitted(fitted(small, (32, 32)), (16, 16)).tolist() == small.tolist()

    def test_the_same_edit_on_all_seeds(self, canvas, G):
        from ganlens.images import encode, to_uint8

        canvas.concept, canvas.layer = "tree", "layer4"
        canvas.paint([40, 41, 48, 49])
        assert canvas.wait()
        plain = list(canvas.strip.pictures)
        canvas.strip.edited = True
        assert canvas.wait()
        assert canvas.strip.pictures != plain
        assert canvas.strip.pictures[1] == encode(to_uint8(G.generate([1], canvas.edits))[0])
        canvas.strip.edited = False
        assert canvas.wait()
        assert canvas.strip.pictures == plain

    def test_one_line_of_python_is_the_picture(self, canvas):
        canvas.concept = "tree"
        canvas.paint([1, 2])
        assert canvas.wait()
        assert np.array_equal(eval(canvas.fold.state["python"], {"gl": gl}), canvas.image)

    def test_found_units_are_painted_with(self, canvas):
        send(canvas, "fold", kind="act", command="query")
        send(canvas, kind="stroke", cells=[9, 10], grid=list(canvas.shape))
        assert canvas.fold.state["found"]
        send(canvas, "fold", kind="act", command="use")
        assert canvas.units == canvas.found
        assert canvas.mode == "remove"


def test_strokes_from_several_threads_are_all_kept(canvas):
    """The page's messages come on the main thread and on others."""
    canvas.concept, canvas.layer = "tree", "layer4"

    def paint(first):
        for cell in range(first, first + 16):
            canvas.brush._handle_custom_msg({"kind": "stroke", "cells": [cell], "grid": [8, 8]}, [])

    threads = [threading.Thread(target=paint, args=[16 * i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert canvas.wait()
    assert sorted(cell for stroke in canvas.history.strokes for cell in stroke.cells) == list(range(64))
    assert len(canvas.edits) == 64
    assert np.array_equal(canvas.image, gl.replay(canvas.recipe))


class TestWhatIsPaintedWhileMeasuring:
    @pytest.fixture
    def slow(self, G, S, monkeypatch):
        """A canvas whose measurement of an order waits for us."""
        D = gl.dissect(G, S, "layer9", n=16, progress=False)
        gate, started = threading.Event(), threading.Event()
        from ganlens.widgets import canvas_jobs

        measure = canvas_jobs.measure_order

        def held(*arguments):
            started.set()
            assert gate.wait(60)
            measure(*arguments)

        monkeypatch.setattr(canvas_jobs, "measure_order", held)
        canvas = gl.InterventionCanvas(D, concept="tree", k=4)
        canvas.order = "effect"
        assert started.wait(60)
        yield canvas, D, gate.set
        gate.set()
        canvas.close()

    def test_waits_and_is_painted_with_the_units_that_were_asked_for(self, slow):
        canvas, D, release = slow
        for cell in (1, 2, 3):
            canvas.brush._handle_custom_msg({"kind": "stroke", "cells": [cell], "grid": list(canvas.shape)}, [])
        assert canvas.failure == ""
        assert "waits" in canvas.list.result[0]
        release()
        assert canvas.wait(120)
        best = tuple(D.units("tree", 4, by="effect"))
        assert [(edit.units, np.flatnonzero(edit.region).tolist()) for edit in canvas.edits] == [
            (best, [1]),
            (best, [2]),
            (best, [3]),
        ]

    @pytest.mark.parametrize("how", ["another concept", "cancel"])
    def test_is_painted_all_the_same_when_it_is_not_measured(self, slow, how):
        canvas, D, release = slow
        canvas.paint([1])
        if how == "cancel":
            canvas.controls.act_cancel()
        else:
            canvas.concept = "door"
        release()
        assert canvas.wait(120)
        assert [stroke.label for stroke in canvas.history.strokes] == ["remove tree"]
        if how == "cancel":
            assert canvas.edits[0].units == tuple(D.units("tree", 4))
        assert canvas.failure == ""
