"""Dissections side by side: counts by brute force, the best units, tables, and what cannot be compared."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.comparisons.side_by_side import Comparison
from ganlens.dissection.result import Dissection
from ganlens.segmenters.base import Concept
from ganlens.statistics import Levels, Scale

VOCABULARY = (Concept("sky"), Concept("tree"), Concept("glass"), Concept("glass", "material"), Concept("door", "part"))


def made_up(units: int, key: int, **changes) -> Dissection:
    """A dissection of random counts, of which some units are interpretable."""
    rng = np.random.default_rng(key)
    shape = units, len(VOCABULARY)
    settings = {"layer": f"layer{key}", "rule": "quantile", "quantile": 0.01, "n": 10, "sample": 0, "complete": True}
    arrays = {"on": np.full(shape, 1000), "overlap": rng.integers(0, 110, shape), "area": np.full(shape[1], 700)}
    arrays |= {"scope": np.full(shape[1], 40960), "valid": np.ones(shape, bool), "top": np.ones((units, 4), int)}
    origin = {"generator": f"model {key}", "segmenter": "made up", "generator_fingerprint": f"{key}"}
    D = Dissection(
        **settings | arrays,
        concepts=VOCABULARY,
        within_category=False,
        shape=(8, 8, 64, 64),
        thresholds_by_concept=np.ones(shape),
        top_values=np.ones((units, 4)),
        levels=Levels(Scale(torch.zeros(units), torch.ones(units))),
        origin=origin | {"segmenter_fingerprint": "f0"},
    )
    return replace(D, **changes)


@pytest.fixture
def C():
    return gl.compare({"early": made_up(30, 1), "late": made_up(50, 2), "other": made_up(20, 3)})


@pytest.fixture(scope="module")
def layers(G, S):
    return gl.dissect(G, S, ["layer3", "layer6"], n=32, progress=False)


class TestCounts:
    def test_agree_with_brute_force(self, C):
        for k, D in enumerate(C.values()):
            for c, concept in enumerate(VOCABULARY):
                drawing = [u for u in range(len(D.iou)) if D.iou[u].argmax() == c and D.iou[u, c] > 0.04]
                assert C.unit_counts[k, c] == len(drawing)
                assert C.iou[k, c] == max(D.overlap[:, c] / (1700 - D.overlap[:, c]))
                best = C.best_units(concept).best[k]
                assert (best.unit, best.iou, best.unit_count) == (D.overlap[:, c].argmax(), C.iou[k, c], len(drawing))
        assert 0 < C.unit_counts.sum() < 100

    def test_summary_by_category(self, C):
        for row, D in zip(C.summary_rows(), C.values(), strict=True):
            labels = [label for label in D.labels if label.interpretable]
            assert row["units"] == len(D.labels)
            assert row["interpretable"] == len(labels)
            assert row["distinct"] == len({label.concept for label in labels})
            for category in ("object", "material", "part"):
                own = [label.concept for label in labels if label.concept.category == category]
                assert (row[f"{category} units"], row[f"{category} concepts"]) == (len(own), len(set(own)))

    def test_where_a_concept_is_found(self, C):
        silent = replace(C["late"], overlap=np.zeros((50, 5), int))
        found = gl.compare({"early": C["early"], "silent": silent}).drawn_in("tree")
        assert found == ["early"]
        assert gl.compare({"early": C["early"], "silent": silent}).best_units("tree").best[1].unit_count == 0

    def test_the_best_units_of_real_layers(self, layers):
        best = gl.compare(layers).best_units("door")
        assert [unit.unit for unit in best.best] == [D.units("door", 1)[0] for D in layers.values()]
        for name, picture in best.strips(3).items():
            assert np.array_equal(picture, layers[name].strip(layers[name].units("door", 1)[0], 3))


class TestMapping:
    def test_names_and_dissections(self, C):
        assert list(C) == ["early", "late", "other"]
        assert len(C) == 3
        assert C["late"].layer == "layer2"
        with pytest.raises(KeyError, match="did you mean 'late'"):
            C["lates"]

    def test_models_and_layers_may_differ(self, C):
        assert [row["generator"] for row in C.summary_rows()] == ["model 1", "model 2", "model 3"]
        assert "model 1, model 2, model 3" in repr(C)


class TestTables:
    def test_csv(self, C, tmp_path):
        C.to_csv(tmp_path / "comparison.csv")
        with open(tmp_path / "comparison.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 15
        assert {(row["concept"], row["category"]) for row in rows} == set(VOCABULARY)
        for row, found in zip(rows, C.rows(), strict=True):
            assert float(row["iou"]) == found["iou"]

    def test_frames(self, C):
        pandas = pytest.importorskip("pandas")
        assert isinstance(C.table(), pandas.DataFrame)
        assert C.summary_table().loc["late", "units"] == 50

    def test_texts(self, C, layers):
        assert "30 units draw one of" in repr(C)
        html = C._repr_html_()
        assert all(name in html for name in ("early", "late", "other", "material units"))
        assert "<img" not in C.best_units("tree")._repr_html_()
        real = gl.compare(layers)
        assert real.best_units("tree")._repr_html_().count("<img") == 2
        assert "layer6  unit" in repr(real.best_units("tree"))


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n": 20}, r"n: 10 and 20.*gl\.dissect\(G, S, layer, n=10"),
            ({"sample": 4}, "sample: 0 and 4"),
            ({"rule": "iou"}, "rule: quantile and iou"),
            ({"quantile": 0.005}, r"quantile: 0\.01 and 0\.005"),
            ({"within_category": True}, "within_category: False and True"),
            ({"origin": {"segmenter": "colors", "segmenter_fingerprint": "f1"}}, "same segmenter S"),
            ({"concepts": VOCABULARY[::-1]}, "concepts: sky, tree, glass, glass, door and door"),
        ],
    )
    def test_dissections_made_in_different_ways(self, changes, message):
        with pytest.raises(ValueError, match=message):
            gl.compare({"a": made_up(5, 1), "b": made_up(5, 2), "c": made_up(5, 3, **changes)})

    def test_all_differences_are_named_at_once(self):
        with pytest.raises(ValueError, match=r"'a' and 'b' cannot be compared.*n: 10 and 9; sample: 0 and 1"):
            gl.compare({"a": made_up(5, 1), "b": made_up(5, 2, n=9, sample=1)})

    def test_the_quantile_does_not_matter_under_other_rules(self):
        both = {"a": made_up(5, 1, rule="iou"), "b": made_up(5, 2, rule="iou", quantile=0.3)}
        assert isinstance(gl.compare(both), Comparison)

    def test_interrupted_passes_of_equal_length_can_be_compared(self):
        assert len(gl.compare({"a": made_up(5, 1, complete=False), "b": made_up(5, 2, complete=False)})) == 2

    def test_what_is_no_set_of_dissections(self):
        D = made_up(5, 1)
        with pytest.raises(TypeError, match="expected a dict"):
            gl.compare([D, D])
        with pytest.raises(TypeError, match="choose one rule"):
            gl.compare({"a": D, "b": {"quantile": D}})
        with pytest.raises(ValueError, match="at least two"):
            gl.compare({"a": D})

    def test_unknown_and_ambiguous_concepts(self, C):
        with pytest.raises(ValueError, match="did you mean 'tree'"):
            C.best_units("treee")
        with pytest.raises(ValueError, match="ambiguous"):
            C.drawn_in("glass")
        assert C.best_units("glass:material").concept == Concept("glass", "material")
