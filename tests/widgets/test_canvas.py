"""The intervention canvas without a page: through its traits, its methods and the messages that a page sends."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from planted import Residual, Z

import ganlens as gl
from ganlens.images import encode, to_uint8
from ganlens.recipe import Renderer
from ganlens.widgets.canvas_parts import batch
from ganlens.widgets.canvas_traits import MODES
from ganlens.widgets.change_tables import change_of, change_table, share_table
from ganlens.widgets.strokes import History, Stroke, parse_units, region_of, shifted, union, write_units

CELLS = [20, 21, 28, 29]
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def canvas(D):
    made = gl.InterventionCanvas(D, seed=3, concept="tree")
    assert made.wait()
    yield made
    made.wait()
    made.close()


@pytest.fixture(scope="module")
def styled():
    """Of a generator that has truncation."""
    G = gl.load_generator(DATA / "stylegan2_rosinality_32.pt")
    return gl.dissect(G, gl.load_segmenter("colors"), "convs.1", n=8, progress=False)


def send(canvas, part="brush", **message):
    """What the page sends."""
    getattr(canvas, part)._handle_custom_msg(message, [])
    assert canvas.wait()


def button(canvas, name):
    """Press a button of the list of strokes."""
    send(canvas, "list", kind="key", command=name)


def choose(canvas, name, value):
    """Type or choose something in the fold."""
    send(canvas, "fold", kind="set", name=name, value=value)


class TestPainting:
    def test_a_stroke_forces_the_concepts_units_in_its_cells(self, canvas, D, G):
        send(canvas, kind="stroke", mode="remove", cells=CELLS)
        region = np.zeros((8, 8))
        region.flat[CELLS] = 1
        expected = gl.ablate("layer4", D.units("tree", 20), region)
        assert canvas.edits == (expected,)
        direct = gl.plots.sheets.as_pictures(G.generate([3], [expected]))[0]
        assert np.abs(canvas.image.astype(int) - direct).max() <= 1
        assert not np.array_equal(canvas.image, canvas.before)
        assert canvas.screen.content == encode(canvas.image, "png")

    def test_add_forces_to_the_quantile_that_the_dissection_measured(self, canvas, D):
        canvas.mode = "add"
        canvas.paint(CELLS)
        levels = D.levels.quantile(0.995)[D.units("tree", 20)]
        assert canvas.edits[0].level == tuple(levels.tolist())

    def test_strength_and_count_and_units_are_used(self, canvas, D):
        canvas.strength, canvas.k = 0.5, 4
        canvas.paint(CELLS)
        canvas.units = (7, 3)
        canvas.paint(CELLS)
        assert [edit.strength for edit in canvas.edits] == [0.5, 0.5]
        assert [edit.units for edit in canvas.edits] == [tuple(D.units("tree", 4)), (7, 3)]
        assert [row["label"] for row in rows(canvas)] == ["remove tree", "remove units 7, 3"]

    def test_a_recipe_replays_to_the_same_bytes(self, canvas, tmp_path):
        canvas.paint(CELLS)
        canvas.concept, canvas.mode = "cloud", "add"
        canvas.paint([1, 2, 3])
        canvas.paint(CELLS, "copy")
        canvas.paste(-2, 1)
        canvas.wait()
        canvas.recipe.save(tmp_path / "r.json")
        assert np.array_equal(gl.replay(tmp_path / "r.json"), canvas.image)

    def test_edits_of_two_layers_stack(self, G, S):
        both = gl.dissect(G, S, ["layer4", "layer5"], n=16, progress=False)
        canvas = gl.InterventionCanvas(both, concept="tree")
        canvas.paint(CELLS)
        canvas.layer = "layer5"
        assert canvas.brush.grid == (16, 16)
        assert canvas.units == tuple(both["layer5"].units("tree", 20))
        canvas.paint([100, 101])
        canvas.paint([100, 101], "copy")
        canvas.paste(3, 0)
        canvas.wait()
        assert [edit.layer for edit in canvas.edits] == ["layer4", "layer5", "layer5"]
        assert np.array_equal(gl.replay(canvas.recipe), canvas.image)

    def test_paste_puts_what_units_do_elsewhere_and_in_another_image(self, canvas, G, D):
        canvas.units = (7, 3)
        canvas.paint(CELLS, "copy")
        there = G.open("layer4", 3).features[0, [7, 3]]
        assert canvas.mode == "paste"
        canvas.seed = 5
        send(canvas, kind="paste", down=1, right=2)
        found = canvas.renderer.features(5, canvas.edits, "layer4")[0, [7, 3]]
        assert torch.equal(found[:, 3:5, 6:8], there[:, 2:4, 4:6])
        untouched = G.open("layer4", 5).features[0, [7, 3]]
        assert torch.equal(found[:, :3], untouched[:, :3])

    def test_query_finds_the_unit_that_is_forced_there(self, canvas):
        """Unit 50 is switched on in a corner: nothing there can be more active."""
        region = np.zeros((8, 8))
        region[0, :2] = 1
        canvas.edits = (gl.insert("layer4", [50], 100.0, region=region),)
        send(canvas, kind="stroke", mode="query", cells=[0, 1])
        assert canvas.found[0] == 50
        assert "unit 50" in canvas.fold.state["answer"]
        assert len(canvas.edits) == 1

    def test_images_that_are_not_square(self):
        class Wide(Residual):
            def forward(self, z):
                return super().forward(z)[:, :, :5]

        G = gl.Generator.wrap(Wide(), Z)
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["bright"])
        canvas = gl.InterventionCanvas(gl.dissect(G, S, "block1", n=8, progress=False), concept="bright", width=320)
        canvas.paint([0])
        canvas.wait()
        assert canvas.brush.size == (320, 200)
        assert canvas.image.shape == (5, 8, 3)
        assert canvas.failure == ""


class TestHistory:
    def test_undo_gives_the_first_picture_back(self, canvas):
        first = canvas.image
        send(canvas, kind="stroke", mode="remove", cells=CELLS)
        changed = canvas.image
        button(canvas, "undo")
        assert np.array_equal(canvas.image, first)
        button(canvas, "redo")
        assert np.array_equal(canvas.image, changed)
        button(canvas, "reset")
        assert np.array_equal(canvas.image, first)
        send(canvas, kind="key", command="undo")
        assert np.array_equal(canvas.image, changed)

    def test_strokes_are_switched_off_and_deleted(self, canvas):
        for cell in range(3):
            canvas.paint([cell])
        send(canvas, "list", kind="switch", index=1)
        assert [row["on"] for row in rows(canvas)] == [True, False, True]
        assert len(canvas.edits) == 2
        send(canvas, "list", kind="delete", index=0)
        assert [np.flatnonzero(edit.region).tolist() for edit in canvas.edits] == [[2]]
        send(canvas, kind="key", command="undo")
        send(canvas, kind="key", command="undo")
        assert len(canvas.edits) == 3

    def test_hovered_stroke_is_highlighted(self, canvas):
        canvas.paint(CELLS)
        canvas.list.hovered = 0
        assert canvas.brush.highlight == CELLS
        canvas.list.hovered = None
        assert canvas.brush.highlight == []

    def test_buttons_are_off_where_there_is_nothing_to_do(self, canvas):
        strokes = canvas.list
        assert (strokes.undoable, strokes.redoable) == (False, False)
        canvas.paint(CELLS)
        canvas.wait()
        assert (strokes.undoable, strokes.redoable) == (True, False)
        button(canvas, "undo")
        assert (strokes.undoable, strokes.redoable) == (False, True)

    def test_a_new_stroke_forgets_what_was_undone(self):
        history = History()
        a, b, c = (Stroke(gl.ablate("layer4", [u]), str(u)) for u in range(3))
        history.add(a)
        history.add(b)
        history.undo()
        history.add(c)
        assert (history.strokes, history.redo()) == ((a, c), False)
        assert history.undo()
        assert history.undo()
        assert (history.strokes, history.undo()) == ((), False)

    def test_edits_from_outside_can_be_undone(self, canvas):
        canvas.paint(CELLS)
        mine = canvas.edits
        canvas.edits = (gl.ablate("layer4", [1]),)
        canvas.wait()
        assert len(rows(canvas)) == 1
        canvas.undo()
        assert canvas.edits == mine


class TestSeeds:
    def test_steps_and_strip(self, canvas, G):
        assert canvas.strip.seeds == list(range(8))
        assert canvas.strip.pictures[5] == encode(gl.plots.sheets.as_pictures(G.generate(range(8)))[5])
        send(canvas, kind="key", command="next")
        assert canvas.seed == canvas.strip.seed == 4
        send(canvas, "strip", kind="seed", seed=7)
        send(canvas, kind="key", command="next")
        assert (canvas.seed, canvas.strip.seeds[0]) == (8, 8)
        send(canvas, "strip", kind="page", by=-1)
        assert (canvas.seed, canvas.strip.seeds[0]) == (8, 0)
        send(canvas, "strip", kind="page", by=-1)
        assert canvas.strip.seeds[0] == 0

    def test_first_and_last_seed(self, canvas):
        canvas.seed = 0
        canvas.step(-1)
        assert canvas.seed == 0
        canvas.seed = 2**32 - 1
        assert canvas.wait()
        assert canvas.strip.seeds[-1] == 2**32 - 1
        send(canvas, kind="key", command="next")
        assert "at most 4,294,967,295" in canvas.failure
        assert canvas.seed == 2**32 - 1

    def test_edits_stay(self, canvas):
        canvas.paint(CELLS)
        edits = canvas.edits
        send(canvas, "strip", kind="seed", seed=11)
        assert canvas.edits == edits
        assert canvas.brush.before == encode(canvas.renderer.render(11)[1], "png")


class TestErrors:
    """Each is shown, and takes nothing away."""

    @pytest.mark.parametrize(
        ("message", "says"),
        [
            ({"kind": "stroke", "mode": "remove", "cells": []}, "expected some of 0 … 63"),
            ({"kind": "stroke", "mode": "remove", "cells": [64]}, "expected some of 0 … 63"),
            ({"kind": "paste", "down": 0, "right": 0}, "nothing was copied yet"),
        ],
    )
    def test_in_the_widget(self, canvas, message, says):
        canvas.paint(CELLS)
        work, shown = canvas.edits, canvas.brush.shown
        send(canvas, **message)
        assert says in canvas.failure
        assert "<details>" in canvas.fold.failure
        assert canvas.edits == work
        assert canvas.brush.shown > shown
        send(canvas, kind="stroke", mode="remove", cells=[1])
        assert canvas.failure == ""

    def test_no_units(self, canvas):
        canvas.concept = None
        canvas.units = ()
        send(canvas, kind="stroke", mode="add", cells=CELLS)
        assert "choose a concept" in canvas.failure

    @pytest.mark.parametrize(
        ("trait", "value", "says"),
        [
            ("units", (3, 192), "192"),
            ("unit", 192, "192"),
            ("layer", "layer5", "layer5"),
            ("concept", "treee", "tree"),
            ("seed", -1, "at most 4,294,967,295"),
            ("k", 0, "at least 1"),
            ("edits", (gl.ablate("layer99", [0]),), "layer99"),
            ("mode", "erase", "erase"),
        ],
    )
    def test_traits_refuse(self, canvas, trait, value, says):
        with pytest.raises(traitlets.TraitError, match=says):
            setattr(canvas, trait, value)

    @pytest.mark.parametrize("mode", ["erase", "Remove", "delete", "paste", "", 3])
    def test_a_mode_that_is_none_paints_nothing(self, canvas, mode):
        with pytest.raises(ValueError, match=r"no mode .* paint"):
            canvas.paint(CELLS, mode)
        assert canvas.edits == ()

    def test_typed_units_that_are_wrong(self, canvas):
        for text, says in (("3, x", "x"), ("3-", "3-"), ("500", "500")):
            choose(canvas, "units", text)
            assert says in canvas.failure
            assert canvas.fold.state["units"] == write_units(canvas.units)

    def test_unknown_keyword(self, D):
        with pytest.raises(TypeError, match="sede"):
            gl.InterventionCanvas(D, sede=3)
        with pytest.raises(ValueError, match=r"q1\.5"):
            gl.InterventionCanvas(D, level="q1.5")
        with pytest.raises(TypeError, match="expected a Dissection"):
            gl.InterventionCanvas([D])

    def test_no_generator(self, D, tmp_path):
        D.save(tmp_path / "d.npz")
        with pytest.raises(ValueError, match="generator"):
            gl.InterventionCanvas(gl.Dissection.load(tmp_path / "d.npz"))

    def test_recipes_that_are_none(self, canvas, tmp_path):
        canvas.paint(CELLS)
        work = canvas.edits
        other = json.loads(canvas.recipe.to_json()) | {"fingerprint": "0" * 16}
        (tmp_path / "broken.json").write_text('{"format": 1,')
        for recipe, says in ((json.dumps(other), "fingerprint"), (tmp_path / "broken.json", "broken")):
            with pytest.raises(ValueError, match=says):
                canvas.load(recipe)
        assert canvas.edits == work

    def test_an_opened_file(self, canvas):
        canvas.paint(CELLS)
        text, work = canvas.recipe.to_json(), canvas.edits
        canvas.reset()
        upload(canvas, b'{"format": 1')
        assert "not a recipe" in canvas.failure
        upload(canvas, b"\xff\xfe")
        assert "no text" in canvas.failure
        upload(canvas, text.encode())
        assert (canvas.failure, canvas.edits) == ("", work)

    def test_a_generator_that_raises(self, G, S):
        net = Residual()
        G = gl.Generator.wrap(net, Z)
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["bright"])
        canvas = gl.InterventionCanvas(gl.dissect(G, S, "block1", n=8, progress=False), concept="bright")
        canvas.wait()
        net.fail = True
        canvas.paint([0])
        canvas.wait()
        assert "as asked" in canvas.failure
        net.fail = False
        canvas.paint([1])
        canvas.wait()
        assert np.array_equal(canvas.image, gl.replay(canvas.recipe, G))


class TestManyStrokes:
    def test_only_the_newest_image_is_shown(self, D):
        canvas = gl.InterventionCanvas(D, seed=3, concept="tree")
        canvas.wait()
        render, gate, started = canvas.renderer.render, threading.Event(), threading.Event()

        def slow(*arguments):
            started.set()
            assert gate.wait(30)
            return render(*arguments)

        canvas.renderer.render = slow
        shown = []
        canvas.screen.show = shown.append
        for cell in range(64):
            canvas.paint([cell])
        assert started.wait(30)
        gate.set()
        canvas.wait()
        assert len(canvas.edits) == 64
        assert len(shown) == 1
        assert np.array_equal(shown[0], gl.replay(canvas.recipe))

    def test_drawing_that_raises_does_not_stop_the_next_one(self, canvas):
        with pytest.raises(RuntimeError, match="on purpose"), batch():
            raise RuntimeError("on purpose")
        shown = canvas.brush.shown
        canvas.paint(CELLS)
        canvas.wait()
        assert canvas.brush.shown > shown
        assert canvas.failure == ""


class TestOrder:
    def test_by_effect(self, G, S):
        D = gl.dissect(G, S, "layer9", n=16, progress=False)
        canvas = gl.InterventionCanvas(D, concept="tree", k=4)
        canvas.order = "effect"
        assert canvas.wait(120)
        assert D.effects.shape == (32, 13)
        assert canvas.units == tuple(np.argsort(-D.effects[:, 6], kind="stable")[:4])
        assert canvas.fold.state["long"] is None

    @pytest.mark.slow
    def test_by_gradient_and_optimised(self, G, S):
        D = gl.dissect(G, S, "layer9", n=16, progress=False)
        canvas = gl.InterventionCanvas(D, concept="tree", k=4)
        for order in ("gradient", "ace"):
            canvas.order = order
            assert canvas.wait(300)
            assert canvas.failure == ""
            assert canvas.units == tuple(D.units("tree", 4, by=order))
        assert set(D.rankings) == {"gradient", "ace"}

    def test_an_order_that_cannot_be_measured(self, G):
        S = gl.Segmenter.wrap(lambda x: (x[:, 0] > 0).int(), ["bright"])
        canvas = gl.InterventionCanvas(gl.dissect(G, S, "layer9", n=8, progress=False), concept="bright")
        units = canvas.units
        canvas.order = "ace"
        assert canvas.wait(60)
        assert "scores" in canvas.failure
        assert (canvas.order, canvas.units) == ("iou", units)

    def test_cancelled(self, G, S):
        D = gl.dissect(G, S, "layer4", n=16, progress=False)
        canvas = gl.InterventionCanvas(D, concept="tree")
        units = canvas.units
        canvas.order = "effect"
        for _ in range(1000):
            if canvas.fold.state["long"]:
                break
            time.sleep(0.01)
        send(canvas, "fold", kind="act", command="cancel")
        assert D.effects is None
        assert (canvas.order, canvas.fold.state["order"], canvas.units) == ("iou", "iou", units)
        assert canvas.failure == ""


class TestWhere:
    def test_the_map_is_that_of_the_context_experiment(self, canvas, D):
        canvas.k = 10
        choose(canvas, "where", True)
        pixels = gl.where(D, "tree", 3, k=10)
        expected = {"gains": pixels.flatten().tolist(), "grid": [8, 8], "pixels": 4096, "clear": False}
        assert canvas.brush.map == expected
        best, good = int(pixels.max()), int((pixels >= 16).sum())
        assert canvas.brush.note.startswith(f"drawing tree: the best cell gains {best} of 4,096 pixels")
        assert (f"{good} cell" in canvas.brush.note) == (good > 0)
        assert ("hardly anywhere" in canvas.brush.note) == (good == 0)
        canvas.seed = 4
        assert canvas.wait()
        assert canvas.brush.map["gains"] == gl.where(D, "tree", 4, k=10).flatten().tolist()
        canvas.paint([1])
        assert canvas.wait()
        assert canvas.brush.map["clear"]
        choose(canvas, "where", False)
        assert (canvas.brush.map, canvas.brush.note) == ({}, "")

    def test_without_a_concept(self, D):
        canvas = gl.InterventionCanvas(D)
        choose(canvas, "where", True)
        assert "Choose a concept" in canvas.failure
        assert not canvas.where


class TestReadout:
    def test_change_is_counted_by_hand(self, canvas, S):
        canvas.paint(CELLS)
        canvas.wait()
        before, after = (S.labels(canvas.renderer.render(3, e)[0])[0].numpy() for e in ((), canvas.edits))
        inside = np.zeros((64, 64), bool)
        for cell in CELLS:
            inside[cell // 8 * 8 : cell // 8 * 8 + 8, cell % 8 * 8 : cell % 8 * 8 + 8] = True
        assert np.array_equal(union(canvas.edits, (64, 64)), inside)
        change = change_of(before, after, inside, 13)
        for c in range(13):
            assert change.inside_after[c] == ((after[0] == c + 1) & inside).sum()
            assert change.outside_before[c] == ((before[0] == c + 1) & ~inside).sum()
            assert (
                change.collateral[c] == ((after[0] == c + 1) & ~inside).sum() - ((before[0] == c + 1) & ~inside).sum()
            )
        assert canvas.fold.state["readout"] == change_table(change, S.concepts, 4096)

    def test_without_edits_it_says_what_the_image_shows(self, canvas, S):
        labels = S.labels(canvas.renderer.render(3)[0])[0].numpy()
        assert canvas.fold.state["readout"] == share_table(labels, S.concepts)

    def test_an_edit_everywhere_has_no_outside(self):
        assert union([gl.ablate("layer4", [1])], (5, 7)).all()


class TestSettings:
    """Truncation and class, where the generator has them."""

    def test_truncation_is_that_of_the_image_the_strip_and_the_recipe(self, styled):
        canvas = gl.InterventionCanvas(styled, seed=3)
        assert canvas.wait()
        whole, strip, table = canvas.image, canvas.strip.pictures, canvas.fold.state["readout"]
        canvas.units = (0, 1)
        canvas.paint([0, 5])
        choose(canvas, "truncation", 0.5)
        other = styled.generator.variant(truncation=0.5)
        assert not np.array_equal(canvas.before, whole)
        assert np.array_equal(canvas.before, Renderer(other).render(3)[1])
        assert np.array_equal(canvas.image, gl.replay(canvas.recipe, styled.generator))
        assert len(canvas.edits) == 1
        assert canvas.recipe.settings == {"truncation": 0.5}
        assert len(canvas.strip.pictures) == len(strip)
        assert canvas.strip.pictures != strip
        assert canvas.fold.state["readout"] != table
        assert styled.generator.settings["truncation"] == 1

    def test_a_recipe_brings_its_truncation(self, styled):
        canvas = gl.InterventionCanvas(styled, seed=3)
        canvas.load(gl.Recipe.of(styled.generator.variant(truncation=0.25), 5, []))
        assert canvas.wait()
        assert canvas.truncation == canvas.fold.state["settings"]["truncation"] == 0.25
        canvas.load(gl.Recipe.of(styled.generator, 5, []))
        assert canvas.wait()
        assert canvas.truncation == 1

    def test_a_value_that_it_does_not_have(self, styled, canvas):
        other = gl.InterventionCanvas(styled)
        for wrong, name, value in ((other, "truncation", 3.0), (canvas, "truncation", 0.5), (other, "label", 1)):
            before = getattr(wrong, name)
            with pytest.raises(traitlets.TraitError, match=name):
                setattr(wrong, name, value)
            assert getattr(wrong, name) == before
        assert other.wait()

    def test_classes(self):
        class Classes(Residual):
            def forward(self, z, labels):
                return super().forward(z + labels[:, None])

        G = gl.Generator.wrap(Classes(), Z, classes=3)
        D = gl.dissect(G, gl.load_segmenter("colors"), "stem", n=8, progress=False)
        canvas = gl.InterventionCanvas(D, seed=3)
        assert canvas.wait()
        assert canvas.label is None
        assert canvas.fold.state["classes"] == [["by seed", ""], ["0", 0], ["1", 1], ["2", 2]]
        assert canvas.fold.state["settings"] == {"label": ""}
        shown = []
        for label in (0, 1, 2, None):
            canvas.label = label
            assert canvas.wait()
            shown.append(canvas.image)
            assert np.array_equal(shown[-1], to_uint8(G.variant(label=label).generate([3, 4]))[0])
        assert len({picture.tobytes() for picture in shown}) == 3


class TestStatic:
    def test_bundle_has_a_picture_and_few_words(self, canvas):
        canvas.paint(CELLS)
        assert canvas.saved.bundle()[0]["image/jpeg"]
        assert canvas._repr_mimebundle_()[0]["text/plain"] == "<InterventionCanvas layer4 of scenes>"

    def test_picture_is_before_and_after(self, canvas):
        canvas.paint(CELLS)
        canvas.wait()
        canvas.smooth = False
        picture = canvas.picture()
        assert picture.shape == (432, 872, 3)
        middles = np.arange(64) * 27 // 4 + 3
        assert np.array_equal(picture[middles][:, middles], canvas.before)
        assert np.array_equal(picture[middles][:, 440 + middles], canvas.image)
        assert canvas.snapshot().data[:4] == b"\x89PNG"


class TestPure:
    def test_units_as_text(self):
        assert parse_units("3, 17 40-43,3") == (3, 17, 40, 41, 42, 43)
        assert parse_units("") == ()
        assert parse_units(write_units((5, 1, 9))) == (5, 1, 9)

    def test_shifted(self):
        maps = np.arange(2 * 4 * 5).reshape(2, 4, 5)
        for rows, columns in ((0, 0), (1, -2), (-3, 4), (9, 9)):
            moved = shifted(maps, rows, columns)
            for i in range(4):
                for j in range(5):
                    y, x = i - rows, j - columns
                    expected = maps[:, y, x] if 0 <= y < 4 and 0 <= x < 5 else 0
                    assert (moved[:, i, j] == expected).all()

    def test_region_of(self):
        assert region_of([1, 5], (2, 4)).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]

    def test_modes_are_those_of_the_canvas(self, canvas):
        assert set(MODES) == set(canvas.traits()["mode"].values)


def rows(canvas):
    canvas.wait()
    return canvas.list.rows


def upload(canvas, content):
    """What the file control sends."""
    canvas.fold._handle_custom_msg({"kind": "open"}, [memoryview(content)])
    canvas.wait()
