"""The view of a comparison: its state and messages without a page, and itself in a real JupyterLab."""

from dataclasses import replace

import numpy as np
import pytest
import traitlets
from lab import ask_kernel, page, run_cells, show_theme, write_notebook

import ganlens as gl
from ganlens.widgets.thumbnails import strips


@pytest.fixture(scope="module")
def C(G, S):
    return gl.compare(gl.dissect(G, S, ["layer3", "layer5", "layer7"], n=32, progress=False))


@pytest.fixture
def view(C):
    made = gl.ComparisonView(C, concept="tree", best=2)
    yield made
    assert made.wait()


@pytest.fixture
def sent(view, monkeypatch):
    """What the view sends to the page: messages with their buffers."""
    messages = []
    monkeypatch.setattr(view, "send", lambda content, buffers=None: messages.append((content, buffers or [])))
    return messages


class TestTraits:
    def test_table(self, view, C):
        table = view.table
        assert table["names"] == ["layer3", "layer5", "layer7"]
        assert [name for _, name in table["concepts"]] == [concept.name for concept in C.concepts]
        for c, concept in enumerate(C.concepts):
            for k, (D, row) in enumerate(zip(C.values(), table["rows"][concept.name], strict=True)):
                assert row["draw"] == C.unit_counts[k, c]
                assert [unit for unit, _ in row["units"]] == D.units(concept, 2)
                assert [iou for _, iou in row["units"]] == pytest.approx(D.iou[D.units(concept, 2), c], abs=1e-4)

    def test_the_first_concept_is_the_best_matched(self, C):
        assert gl.ComparisonView(C).concept == C.concepts[C.iou.max(0).argmax()].name

    def test_a_click_selects(self, view):
        view._handle_custom_msg({"type": "pick", "name": "layer7", "unit": 40}, [])
        assert (view.layer, view.unit, view.units) == ("layer7", 40, (40,))
        view.layer = "layer3"
        assert (view.unit, view.units) == (None, ())

    def test_is_linked_by_names(self, view, C):
        gallery = gl.UnitGallery(C)
        for trait in ("layer", "unit", "units", "concept"):
            traitlets.link((view, trait), (gallery, trait))
        assert gallery.concept == "tree"
        view.pick("layer5", 100)
        assert (gallery.layer, gallery.unit, gallery.units) == ("layer5", 100, (100,))
        gallery.concept = "door"
        assert view.concept == "door"

    def test_bad_values(self, view, C):
        for trait, value in (("layer", "layer4"), ("unit", 500), ("concept", "treee")):
            with pytest.raises(traitlets.TraitError):
                setattr(view, trait, value)
        with pytest.raises(ValueError, match="best=0"):
            gl.ComparisonView(C, best=0)
        with pytest.raises(ValueError, match="at least two"):
            gl.ComparisonView({"a": C["layer3"]})
        view._handle_custom_msg({"type": "pick", "name": "layer7", "unit": 64}, [])
        assert "unit 64 is out of range" in view.failure

    def test_models_side_by_side(self, C):
        other = replace(C["layer5"], origin=C["layer5"].origin | {"generator_fingerprint": "other"})
        view = gl.ComparisonView({"mine": C["layer5"], "yours": other})
        view.pick("yours", 3)
        assert (view.layer, view.D is other) == ("yours", True)


class TestPictures:
    def test_strips_of_every_dissection(self, view, C, sent):
        view._handle_custom_msg({"type": "strips", "concept": "door"}, [])
        assert view.wait()
        assert [content["name"] for content, _ in sent] == list(C)
        for content, buffers in sent:
            D = C[content["name"]]
            assert buffers == strips(D, D.units("door", 2), 3)

    def test_without_generators(self, C, sent):
        alone = {name: replace(D, generator=None) for name, D in C.items()}
        view = gl.ComparisonView(alone)
        assert view.table["images"] == [0, 0, 0]
        view._handle_custom_msg({"type": "strips", "concept": "door"}, [])
        assert view.wait()
        assert view.picture().shape[2] == 3
        assert view.failure == ""

    def test_fallback(self, view):
        bundle, _ = view.saved.bundle()
        assert bundle["image/png"]
        tree = view.picture()
        view.concept = "door"
        assert not np.array_equal(view.picture(), tree)
        view.concept = None
        assert view.picture().shape[0] == tree.shape[0]


SETUP = """
import torch
torch.set_num_threads(1)
import ganlens as gl
G, S = gl.load_generator(), gl.load_segmenter()
C = gl.compare(gl.dissect(G, S, ["layer3", "layer5", "layer7"], n=64, progress=False))
"""


@pytest.mark.browser
def test_in_jupyterlab(address, folder, pictures):
    write_notebook(folder / "comparison.ipynb", SETUP, 'view = gl.ComparisonView(C, concept="tree")\nview')
    with page(address, "comparison.ipynb") as lab:
        run_cells(lab, 2)
        loaded = (
            "[...document.querySelectorAll('.ganlens-comparison img')].filter(img => img.naturalWidth).length === 9"
        )
        lab.wait_for_function(loaded)
        options = lab.locator(".ganlens-comparison [role=option]")
        expected = ask_kernel(lab, "[[name, unit] for name, D in C.items() for unit in D.units('tree', 3)]")
        labels = [options.nth(i).get_attribute("aria-label") for i in range(9)]
        assert [label.rsplit(",", 1)[0] for label in labels] == [f"{name}, unit {unit}" for name, unit in expected]

        options.nth(4).click()
        lab.locator(".ganlens-comparison [aria-selected=true]").wait_for()
        assert ask_kernel(lab, "[view.layer, view.unit, view.units]") == [*expected[4], [expected[4][1]]]
        lab.keyboard.press("ArrowDown")
        lab.keyboard.press("ArrowLeft")
        lab.keyboard.press("Enter")
        lab.wait_for_function(
            "label => document.querySelector('.ganlens-comparison [aria-selected=true]')?.ariaLabel === label",
            arg=labels[6],
        )
        assert ask_kernel(lab, "[view.layer, view.unit]") == expected[6]
        lab.screenshot(path=pictures / "comparison.png")

        lab.get_by_label("Concept").select_option("door")
        best = ask_kernel(lab, "C['layer7'].units('door', 3)[0]")
        lab.locator(f".ganlens-comparison [data-name=layer7][data-unit='{best}']").wait_for()
        lab.wait_for_function(loaded)
        assert ask_kernel(lab, "view.concept") == "door"
        show_theme(lab, "Dark")
        lab.screenshot(path=pictures / "comparison-dark.png")
        assert lab.locator(".ganlens-failure").count() == 0
