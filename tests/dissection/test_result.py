"""What a dissection answers, and the files that it is kept in."""

import csv
import html.parser
import io
import json
import pickle
import re
import zipfile
from dataclasses import fields

import numpy as np
import pytest
import torch
from planted import TWO_PLANES, Discs, Lattice, Z, two_planes

import ganlens as gl
from ganlens.dissection.saved import ARRAYS, SETTINGS
from ganlens.files import with_header
from ganlens.models.editing import insert
from ganlens.statistics import information_quality, plogp


@pytest.fixture(scope="module")
def small():
    """A dissection of a few kilobytes."""
    S = gl.Segmenter.wrap(two_planes, TWO_PLANES)
    return gl.dissect(gl.Generator.wrap(Lattice(), Z), S, "layer", n=24, rule="iqr", top=4, progress=False)


@pytest.fixture
def saved(small, tmp_path):
    small.save(tmp_path / "small.npz")
    return tmp_path / "small.npz"


OTHERS = {"concepts", "levels", "generator", "segmenter", "effects", "rankings", "painting", "certificates", "control"}
OTHERS |= {"formulas"}


def assert_equal(a: gl.Dissection, b: gl.Dissection):
    """Everything that a dissection holds, to the bit and the type."""
    assert {field.name for field in fields(a)} == {*SETTINGS, *ARRAYS, *OTHERS}
    for name in ("concepts", *SETTINGS):
        assert getattr(a, name) == getattr(b, name), name
    for name in ARRAYS:
        assert getattr(a, name).dtype == getattr(b, name).dtype
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_equal(a.painting, b.painting)
    np.testing.assert_equal(a.control, b.control)
    assert (a.formulas and a.formulas.state()) == (b.formulas and b.formulas.state())
    for name in a.certificates.names:
        np.testing.assert_array_equal(getattr(a.certificates, name), getattr(b.certificates, name), err_msg=name)
    assert a.levels.state().keys() == b.levels.state().keys()
    for name, array in a.levels.state().items():
        np.testing.assert_array_equal(array, b.levels.state()[name], err_msg=name)
    assert a.labels == b.labels
    np.testing.assert_array_equal(a.effects, b.effects)
    np.testing.assert_equal(a.rankings, b.rankings)


class TestNumbers:
    def test_iou_and_shapes(self, D, G, S):
        units, concepts = G.layers["layer4"][0], len(S.concepts)
        assert D.iou.shape == D.iqr.shape == D.on.shape == D.overlap.shape == (units, concepts)
        assert D.chance.shape == D.area.shape == (concepts,)
        assert D.thresholds.shape == D.achieved.shape == (units,)
        assert D.shape == (8, 8, 64, 64)
        for u, c in np.ndindex(D.iou.shape):
            union = D.on[u, c] + D.area[c] - D.overlap[u, c]
            assert D.iou[u, c] == (D.overlap[u, c] / union if union else 0)

    def test_counts_are_possible(self, D):
        assert (D.overlap <= np.minimum(D.on, D.area)).all()
        assert (D.on <= 96 * 64 * 64).all()
        assert D.area.sum() == 96 * 64 * 64  # every pixel of a scene carries one concept

    def test_labels_are_the_best_and_the_second(self, D):
        for label in D.labels:
            ranked = sorted(range(len(D.concepts)), key=lambda c, u=label.unit: -D.iou[u, c])
            assert (label.iou, label.runner_up_iou) == (D.iou[label.unit].max(), D.iou[label.unit, ranked[1]])
            assert label.concept == D.concepts[ranked[0]]
            assert label.interpretable == (label.iou > 0.04)
            assert label.chance == D.chance[ranked[0]]
        assert D.interpretable == [label.unit for label in D.labels if label.interpretable]

    def test_labels_by_information(self, small):
        for label in small.labels:
            best = small.iqr[label.unit].argmax()
            assert label.concept == small.concepts[best]
            assert label.interpretable == (label.iou > 0.05 and label.iqr > 0.01)
            assert small.thresholds[label.unit] == small.thresholds_by_concept[label.unit, best]

    @pytest.mark.parametrize("by", ["iou", "iqr"])
    def test_units(self, D, by):
        merit = getattr(D, by)[:, D.concepts.index(("tree", "object"))]
        units = D.units("tree", k=None, by=by)
        assert sorted(units) == list(range(len(merit)))
        assert (np.diff(merit[units]) <= 0).all()
        assert D.units("tree", k=7, by=by) == D.units(("tree", "object"), k=7, by=by) == units[:7]
        assert all(type(unit) is int for unit in units)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("tre",), "no concept 'tre' in the vocabulary of scenes; did you mean 'tree'"),
            (("tree", 0), "k=0: layer4 has"),
            (("tree", 5, "area"), "by='area': expected 'iou', 'iqr', 'f1'"),
        ],
    )
    def test_units_bad_input(self, D, arguments, message):
        with pytest.raises(ValueError, match=message):
            D.units(*arguments)

    def test_information_quality(self):
        """0 for independent masks, 1 for equal ones and for complements; symmetric."""
        table = np.array([[0.12, 0.28], [0.18, 0.42]])
        assert information_quality(400, 120, 300, 1000) == pytest.approx(0, abs=1e-12)
        assert table.sum() == pytest.approx(1)
        assert information_quality(400, 400, 400, 1000) == pytest.approx(1)
        assert information_quality(400, 0, 600, 1000) == pytest.approx(1)
        assert information_quality(400, 50, 100, 1000) == pytest.approx(information_quality(100, 50, 400, 1000))
        assert information_quality(0, 0, 0, 1000) == 0

    def test_plogp(self):
        assert plogp(np.array([0, 0.5, 1])).tolist() == [0, 0.5, 0]

    def test_levels_are_those_of_the_sample(self, G, D):
        with torch.inference_mode():
            r = torch.cat([G.read(G.latents(range(i, i + 8)), ["layer4"])[1]["layer4"] for i in range(0, 96, 8)])
        assert torch.equal(D.levels.highest, r.amax((0, 2, 3)))
        torch.testing.assert_close(D.levels.mean(), r.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
        above = (r > D.levels.quantile(0.9)[:, None, None]).float().mean((0, 2, 3))
        assert (above - 0.1).abs().max() < 0.01


class TestPictures:
    def test_spotlights_show_the_disc(self):
        G = gl.Generator.wrap(Discs(), Z)
        S = gl.Segmenter.wrap(lambda x: (x[:, :1] > 0).int(), ["disc"])
        D = gl.dissect(G, S, "layer", n=16, progress=False)
        pictures = D.spotlights([7, 2], k=5)
        assert [p.shape for p in pictures] == [(5, 96, 96, 3)] * 2
        for picture, seed in zip(pictures[0], D.top[7], strict=False):
            disc = (G.generate(int(seed))[0, 0] == 1).repeat_interleave(3, 0).repeat_interleave(3, 1).numpy()
            assert (picture[disc] == 255).all()
            assert not (picture[~disc] == 255).all(1).any()
        assert D.strip(7, k=3).shape == (96, 3 * 99 - 3, 3)

    def test_bad_units(self, D):
        for unit in (-1, 10_000):
            with pytest.raises(ValueError, match=f"unit {unit} is out of range: layer4 has units 0 …"):
                D.spotlights([unit])

    def test_needs_a_generator(self, saved):
        with pytest.raises(ValueError, match=r"no generator at hand; .*load\(path, generator=…\)"):
            gl.Dissection.load(saved).strip(0)


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.opened, self.closed, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.opened.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        self.closed.append(tag)


class TestShown:
    def test_repr_is_short(self, D, small):
        for some in (D, small):
            lines = repr(some).splitlines()
            assert len(lines) <= 13
            assert max(map(len, lines)) < 130
            assert f"{len(some.interpretable)} of {len(some.iou)} units" in lines[0]

    def test_html_runs_nothing(self, D):
        tags = Tags(D._repr_html_())
        assert not {"script", "iframe", "object", "link", "style"} & set(tags.opened)
        assert not [name for name, _ in tags.attributes if name.startswith("on")]
        assert all(value.startswith("data:image/") for name, value in tags.attributes if name == "src")
        for tag in ("table", "tr", "th", "td"):
            assert tags.opened.count(tag) == tags.closed.count(tag) > 0
        assert tags.opened.count("img") == tags.opened.count("tr") - 1 == len(D.best_labels())

    def test_html_escapes_names(self):
        """Also those of a file from somebody else."""
        S = gl.Segmenter.wrap(lambda x: (x[:, :1] > 0).int(), ["<script>alert(1)</script>"], name="<b>")
        G = gl.Generator.wrap(Discs(), Z, name="<script>x</script>")
        D = gl.dissect(G, S, "layer", n=8, progress=False)
        D.segmenter = D.generator = None
        assert set(Tags(D._repr_html_()).opened) <= {"p", "b", "table", "tr", "th", "td"}

    def test_table(self, D):
        pandas = pytest.importorskip("pandas")
        table = D.table()
        assert isinstance(table, pandas.DataFrame)
        assert table.index.tolist() == list(range(len(D.iou)))
        np.testing.assert_allclose(table["iou"], D.iou.max(1), atol=1e-6)
        assert table["concept"].tolist() == [label.concept.name for label in D.labels]

    def test_table_without_pandas(self, D, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        table = D.table()
        assert [row["unit"] for row in table] == list(range(len(D.iou)))
        assert table[3]["concept"] == D.labels[3].concept.name

    def test_csv_parses_back(self, D, tmp_path):
        D.to_csv(tmp_path / "table.csv")
        with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(D.iou)
        for row, label, threshold in zip(rows, D.labels, D.thresholds, strict=True):
            assert (int(row["unit"]), row["concept"], row["category"]) == (label.unit, *label.concept)
            assert float(row["iou"]) == pytest.approx(label.iou, abs=1e-6)
            assert np.float32(row["threshold"]) == threshold
            assert row["interpretable"] == str(label.interpretable)

    def test_matches_of_a_concept(self, D):
        for concept in D.concepts:
            rows, column = D.matches(concept), D.concepts.index(concept)
            assert [row["unit"] for row in rows] == D.units(concept, k=None)
            for row in rows:
                label = D.labels[row["unit"]]
                assert (row["concept"], row["category"]) == concept
                assert row["draws"] == (label.concept.name if label.interpretable else "")
                numbers = D.iou[row["unit"], column], D.chance[column], D.iqr[row["unit"], column]
                assert (row["iou"], row["chance"], row["iqr"]) == pytest.approx(numbers, abs=1e-6)

    def test_csv_of_awkward_names(self, tmp_path):
        S = gl.Segmenter.wrap(lambda x: (x[:, :1] > 0).int(), ['a "b", c; d', "é"])
        D = gl.dissect(gl.Generator.wrap(Discs(), Z), S, "layer", n=8, progress=False)
        D.to_csv(tmp_path / "table.csv")
        with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
            assert [row["concept"] for row in csv.DictReader(file)] == [label.concept.name for label in D.labels]

    def test_json_parses_back(self, D, tmp_path):
        text = D.to_json(tmp_path / "table.json")
        assert (tmp_path / "table.json").read_text("utf-8") == text
        content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert (content["layer"], content["n"], content["rule"]) == ("layer4", 96, "quantile")
        assert content["complete"] is True
        assert [tuple(pair) for pair in content["concepts"]] == list(D.concepts)
        assert [unit["unit"] for unit in content["units"]] == list(range(len(D.iou)))
        assert content["summary"]["interpretable"] == len(D.interpretable)
        found = {unit for units in content["summary"]["concepts"].values() for unit in units}
        assert found == set(D.interpretable)

    def test_best_shows_every_concept_first(self, D):
        best, summary = D.best_labels(k=len(D.iou)), D.summary()
        assert sorted(b.unit for b in best) == D.interpretable
        heads = best[: summary["distinct"]]
        assert {b.concept.name for b in heads} == set(summary["concepts"])
        for head in heads:
            assert head.iou == max(b.iou for b in best if b.concept == head.concept)


class TestFiles:
    def test_round_trip(self, D, G, S, tmp_path):
        D.save(tmp_path / "layer4.npz")
        again = gl.Dissection.load(tmp_path / "layer4.npz", generator=G, segmenter=S)
        assert_equal(again, D)
        assert again.generator is G
        assert again.segmenter is S
        assert repr(again) == repr(D)
        again.save(tmp_path / "again.npz")
        assert_equal(gl.Dissection.load(tmp_path / "again.npz"), D)

    def test_levels_go_on_working(self, D, tmp_path):
        D.save(tmp_path / "d.npz")
        again = gl.Dissection.load(tmp_path / "d.npz")
        for q in (0, 0.3, 0.995, 1):
            assert torch.equal(again.levels.quantile(q), D.levels.quantile(q))
        assert again.generator is again.segmenter is None

    def test_round_trip_of_numpy_settings(self, tmp_path):
        """Settings may come from arrays."""
        G, S = gl.Generator.wrap(Lattice(), Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)
        settings = {"sample": np.int64(2), "n": np.int32(9), "quantile": np.float32(0.05), "within_category": np.True_}
        D = gl.dissect(G, S, "layer", progress=False, **settings)
        D.save(tmp_path / "d.npz")
        assert_equal(gl.Dissection.load(tmp_path / "d.npz"), D)

    def test_saving_is_repeatable(self, small, saved, tmp_path):
        """The path is taken as it is, and an old file is replaced."""
        (tmp_path / "other").write_bytes(b"old")
        small.save(str(tmp_path / "other"))
        assert_equal(gl.Dissection.load(tmp_path / "other"), small)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "small.npz"]

    def test_nothing_is_half_written(self, small, saved, tmp_path):
        resource = pytest.importorskip("resource")
        before = saved.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
        try:
            for write in (small.save, small.to_csv, small.to_json):
                with pytest.raises(OSError, match=r"small.npz was not written: .*nothing was changed"):
                    write(saved)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert saved.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["small.npz"]

    def test_another_generator_is_refused(self, saved, G, S):
        with pytest.raises(ValueError, match=r"the generator Lattice \(.*\), not with scenes .* without a generator"):
            gl.Dissection.load(saved, generator=G)
        with pytest.raises(ValueError, match=r"made with the segmenter two_planes \(.*\), not with scenes"):
            gl.Dissection.load(saved, segmenter=S)
        other = Lattice()
        other.mix[0, 0, 0, 0] += 1e-3
        with pytest.raises(ValueError, match="made with the generator Lattice"):
            gl.Dissection.load(saved, generator=gl.Generator.wrap(other, Z))
        assert gl.Dissection.load(saved, generator=gl.Generator.wrap(Lattice(), Z)).generator


DAMAGED = r"\.npz|small"


class TestDamaged:
    """Whatever is in the file: a ValueError that names it, and nothing is executed."""

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            gl.Dissection.load(tmp_path / "nowhere.npz")

    def test_truncated(self, saved):
        content = saved.read_bytes()
        for length in [*range(0, 60, 7), *range(60, len(content), 211), len(content) - 1]:
            saved.write_bytes(content[:length])
            with pytest.raises(ValueError, match=DAMAGED):
                gl.Dissection.load(saved)

    def test_flipped_bytes(self, small, saved):
        """Refused; or, where the byte says nothing (a date, for instance), read as it was."""
        content, rng, refused = saved.read_bytes(), np.random.default_rng(0), 0
        positions = [*rng.integers(0, len(content), 150), *range(0, 90), *range(len(content) - 120, len(content))]
        for position in positions:
            damaged = bytearray(content)
            damaged[position] ^= int(rng.integers(1, 256))
            saved.write_bytes(damaged)
            message = ""
            try:
                assert_equal(gl.Dissection.load(saved), small)
            except ValueError as error:
                message = str(error)
            refused += bool(message)
            assert not message or re.search(DAMAGED, message)
        assert refused > 150

    @pytest.mark.parametrize(
        "content",
        [b"", b"# text\n" * 100, b"\x00" * 1000, b"PK\x03\x04", pickle.dumps({"layer": 1}), b"\x93NUMPY\x01\x00"],
        ids=["empty", "text", "zeros", "half a zip", "pickle", "half an array"],
    )
    def test_something_else(self, tmp_path, content):
        path = tmp_path / "some.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"some.npz"):
            gl.Dissection.load(path)

    def test_single_array(self, tmp_path):
        buffer = io.BytesIO()
        np.save(buffer, np.ones(3))
        (tmp_path / "some.npz").write_bytes(buffer.getvalue())
        with pytest.raises(ValueError, match=r"some.npz"):
            gl.Dissection.load(tmp_path / "some.npz")

    @pytest.mark.parametrize(
        "arrays",
        [
            {"weights": np.ones(3)},
            {"header": np.ones(3)},
            {"header": np.array("{")},
            {"header": np.array("[1]")},
            {"header": np.array('{"format": 1}')},
            {"header": np.array('{"format": 99}')},
        ],
        ids=str,
    )
    def test_foreign_arrays(self, tmp_path, arrays):
        np.savez(tmp_path / "some.npz", **arrays)
        with pytest.raises(ValueError, match=r"some.npz"):
            gl.Dissection.load(tmp_path / "some.npz")

    def rewritten(self, saved, change):
        with np.load(saved) as file:
            arrays = dict(file)
        header = json.loads(str(arrays.pop("header")))
        change(header, arrays)
        header.pop("digest")
        if any(array.dtype.hasobject for array in arrays.values()):
            np.savez(saved, header=np.array(json.dumps(header)), **arrays)
        else:
            np.savez(saved, **with_header(header, arrays))

    def test_what_was_changed_is_noticed(self, saved):
        """Numbers that could be right, but are not those that were written."""
        with np.load(saved) as file:
            arrays = dict(file)
        arrays["on"] = arrays["on"] + (arrays["on"] < arrays["scope"]) * (arrays["on"] > arrays["overlap"])
        np.savez(saved, **arrays)
        with pytest.raises(ValueError, match="its content is not what was written"):
            gl.Dissection.load(saved)

    def test_other_version(self, saved):
        self.rewritten(saved, lambda header, arrays: header.update(format=header["format"] + 1))
        with pytest.raises(ValueError, match=r"small.npz has format version \d+; this ganlens reads version \d"):
            gl.Dissection.load(saved)

    def test_any_part_missing(self, saved):
        content = saved.read_bytes()
        with np.load(saved) as file:
            header, names = json.loads(str(file["header"])), set(file.files) - {"header"}
        for name in sorted(names):
            self.rewritten(saved, lambda header, arrays, name=name: arrays.pop(name))
            with pytest.raises(ValueError, match=r"small.npz"):
                gl.Dissection.load(saved)
            saved.write_bytes(content)
        for name in sorted(header.keys() - {"digest"}):
            self.rewritten(saved, lambda header, arrays, name=name: header.pop(name))
            with pytest.raises(ValueError, match=r"small.npz"):
                gl.Dissection.load(saved)
            saved.write_bytes(content)
        for name in header["origin"]:
            self.rewritten(saved, lambda header, arrays, name=name: header["origin"].pop(name))
            with pytest.raises(ValueError, match=rf"small.npz is incomplete: it lacks origin\.{name}$"):
                gl.Dissection.load(saved)
            saved.write_bytes(content)

    def test_parts_that_do_not_fit(self, saved):
        """Arrays of other shapes would fail later, far from the file."""
        content = saved.read_bytes()
        for name in ("on", "overlap", "area", "scope", "thresholds_by_concept", "valid", "top", "top_values"):
            self.rewritten(saved, lambda header, arrays, name=name: arrays.update({name: arrays[name][:-1]}))
            with pytest.raises(ValueError, match=rf"small.npz.*{name}"):
                gl.Dissection.load(saved)
            saved.write_bytes(content)

    def test_nothing_is_executed(self, saved, tmp_path):
        """A pickle hidden in an array, or beside them, is not opened."""

        class Bomb:
            def __reduce__(self):
                return (open, (str(tmp_path / "executed"), "w"))

        def plant(header, arrays):
            arrays["on"] = np.array([Bomb()], dtype=object)

        self.rewritten(saved, plant)
        with pytest.raises(ValueError, match=r"small.npz is damaged or no dissection"):
            gl.Dissection.load(saved)
        with zipfile.ZipFile(saved, "w") as file:
            file.writestr("header.npy", pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match=r"small.npz"):
            gl.Dissection.load(saved)
        saved.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match=r"small.npz"):
            gl.Dissection.load(saved)
        assert not (tmp_path / "executed").exists()


def test_a_dissection_leads_to_edits(G, D):
    """Units of a dissection, switched on, change the pictures of its generator."""
    units = D.units("tree", k=5)
    edited = G.generate(range(2), insert(D.layer, units, level="q0.995"))
    assert (edited - G.generate(range(2))).abs().mean() > 1e-3
