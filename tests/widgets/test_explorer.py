"""The explorer: three widgets that follow each other, alone and in a real JupyterLab."""

import re

import numpy as np
import pytest
import traitlets
from lab import ask_kernel, page, run_cells, write_notebook

import ganlens as gl


@pytest.fixture(scope="module")
def dissections(G, S):
    return gl.dissect(G, S, ["layer4", "layer5"], n=32, progress=False)


@pytest.fixture
def explorer(dissections):
    made = gl.Explorer(dissections, seed=3)
    assert made.wait()
    yield made
    made.wait()


def everywhere(explorer, trait):
    """The trait's value in all of the widgets that have it."""
    parts = (explorer, explorer.gallery, explorer.heatmap, explorer.canvas)
    return [getattr(part, trait) for part in parts if part.has_trait(trait)]


class TestLinks:
    def test_a_selection_in_one_is_one_in_all(self, explorer):
        explorer.canvas.concept = "tree"
        painted = explorer.canvas.units
        for i, part in enumerate((explorer.gallery, explorer.heatmap, explorer)):
            part.units, part.unit = (7, i), i
            assert everywhere(explorer, "units") == [(7, i)] * 3 + [painted]
            assert everywhere(explorer, "unit")[:3] == [i] * 3
        explorer.canvas.units = (3, 4)
        assert everywhere(explorer, "units") == [(3, 4)] * 4

    def test_what_is_looked_at_is_offered_to_the_brush(self, explorer):
        explorer.canvas.concept = "tree"
        painted = explorer.canvas.units
        assert explorer.offer.offer == ["", ""]
        other = next(unit for unit in range(192) if unit not in painted)
        for unit, words in ((painted[2], "one of the 20"), (other, "not among the 20")):
            explorer.gallery.units, explorer.gallery.unit = (unit,), unit
            assert explorer.offer.offer[0] == f"Unit {unit} is {words} that the brush switches."
            assert explorer.canvas.units == painted
        explorer.offer._handle_custom_msg({"kind": "use"}, [])
        assert explorer.canvas.units == (other,)
        assert explorer.offer.offer == ["", ""]
        explorer.heatmap.units = (1, 2, 3)
        assert explorer.offer.offer == ["3 units are selected; the brush switches 1.", "Use these"]

    def test_a_concept_brings_its_units(self, explorer, dissections):
        for part, concept in ((explorer.heatmap, "dome"), (explorer.gallery, "tree"), (explorer.canvas, "cloud")):
            part.concept = concept
            assert everywhere(explorer, "concept") == [concept] * 4
            assert everywhere(explorer, "units") == [tuple(dissections["layer4"].units(concept, 20))] * 4

    def test_a_layer(self, explorer, dissections):
        explorer.concept = "door"
        explorer.gallery.layer = "layer5"
        assert everywhere(explorer, "layer") == ["layer5"] * 4
        assert explorer.canvas.brush.grid == (16, 16)
        units = everywhere(explorer, "units")
        assert all(some == units[0] for some in units)
        assert not units[0] or max(units[0]) < 160

    def test_units_that_are_found_reach_the_gallery(self, explorer):
        explorer.canvas.paint([10, 11], "query")
        assert explorer.wait()
        assert len(explorer.gallery.found) == 20
        assert explorer.gallery.found == explorer.canvas.found == explorer.found

    def test_seed_and_edits(self, explorer):
        explorer.seed = 9
        assert explorer.canvas.seed == 9
        explorer.canvas.units = (1,)
        explorer.canvas.paint([0])
        assert explorer.edits == explorer.canvas.edits != ()
        explorer.edits = ()
        assert explorer.canvas.history.strokes == ()

    def test_two_explorers_are_apart(self, explorer, dissections):
        other = gl.Explorer(dissections)
        explorer.units = (5,)
        assert other.units == other.gallery.units == ()


class TestErrors:
    def test_bad_values(self, explorer):
        for trait, value in (("layer", "layer6"), ("units", (192,)), ("concept", "treee"), ("seed", -1)):
            with pytest.raises(traitlets.TraitError):
                setattr(explorer, trait, value)
        assert everywhere(explorer, "layer") == ["layer4"] * 4

    def test_what_is_no_dissection(self, dissections, G, S):
        with pytest.raises(TypeError, match="expected a Dissection"):
            gl.Explorer("layer4")
        by_rule = gl.dissect(G, S, "layer4", n=8, rule=["quantile", "iou"], progress=False)
        with pytest.raises(ValueError, match="same layer"):
            gl.Explorer(by_rule)
        with pytest.raises(TypeError, match="seeds"):
            gl.Explorer(dissections, seeds=3)


def test_picture_shows_gallery_and_canvas(explorer):
    picture, gallery, canvas = explorer.picture(), explorer.gallery.picture(), explorer.canvas.picture()
    assert np.array_equal(picture[: len(gallery), : gallery.shape[1]], gallery)
    assert np.array_equal(picture[len(gallery) + 8 : -8, : canvas.shape[1]], canvas)
    assert "image/png" in explorer.saved.bundle()[0]


SETUP = """
import torch
torch.set_num_threads(1)
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
dissections = gl.dissect(G, S, ["layer4", "layer5"], n=64, progress=False)
"""


@pytest.mark.browser
def test_in_jupyterlab(address, folder, pictures):
    write_notebook(folder / "explorer.ipynb", SETUP, "explorer = gl.Explorer(dissections, seed=2)\nexplorer")
    with page(address, "explorer.ipynb") as lab:
        lab.set_viewport_size({"width": 1400, "height": 1500})
        run_cells(lab, 2)
        rows = lab.locator(".ganlens-gallery [role=row]")
        rows.nth(2).wait_for()
        lab.wait_for_function("document.querySelectorAll('.ganlens-seeds img').length === 8")

        rows.nth(2).click()
        lab.get_by_text(re.compile(r"Unit \d+ is selected\.")).wait_for()  # now the kernel has heard of the click
        unit = ask_kernel(lab, "explorer.unit")
        assert ask_kernel(lab, "explorer.units") == [unit]
        lab.get_by_text(f"Unit {unit} is selected.").wait_for()
        lab.get_by_role("button", name="Use it alone").click()
        lab.wait_for_function("document.querySelector('.ganlens-offer').hidden")
        assert ask_kernel(lab, "list(explorer.canvas.units)") == [unit]
        lab.get_by_role("tab", name="Heatmap").click()
        lab.get_by_text(f"Selected: unit {unit}").wait_for()
        lab.get_by_role("tab", name="Units").click()

        lab.locator(".ganlens-fold summary").click()
        lab.get_by_label("Units of", exact=True).select_option("door")
        best = ask_kernel(lab, "dissections['layer4'].units('door', 20)")
        lab.wait_for_function(
            "unit => document.querySelector('.ganlens-gallery [role=row][aria-selected=true]')"
            "?.getAttribute('aria-label').startsWith(`unit ${unit},`)",
            arg=best[0],
        )
        lab.screenshot(path=pictures / "explorer.png")

        lab.get_by_role("button", name="Which units?", exact=True).click()
        brush = lab.locator(".ganlens-brush canvas")
        brush.scroll_into_view_if_needed()
        box = brush.bounding_box()
        lab.mouse.move(box["x"] + 200, box["y"] + 100)
        lab.mouse.down()
        lab.mouse.move(box["x"] + 260, box["y"] + 100, steps=4)
        lab.mouse.up()
        lab.get_by_text("20 units found in the region").wait_for()
        lab.screenshot(path=pictures / "explorer-found.png")

        lab.locator(".ganlens-gallery select", has=lab.locator("option", has_text="layer5")).select_option("layer5")
        lab.get_by_role("tab", name="Heatmap").click()
        lab.wait_for_function("document.querySelector('.ganlens-heatmap').innerText.includes('160 of 160 units')")
        assert ask_kernel(lab, "[explorer.layer, explorer.canvas.layer, explorer.heatmap.layer]") == ["layer5"] * 3
        assert lab.locator(".ganlens-failure").count() == 0
