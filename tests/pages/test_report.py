"""The report: every number and picture of a dissection on one page, and nothing on it that could run or be missing."""

import base64
import configparser
import csv
import hashlib
import io
import json
import re
import signal
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from test_gallery import synthetic
from torch import nn

import ganlens as gl
from ganlens import Dissection, Generator, plots
from ganlens.images import to_uint8
from ganlens.markup import h, join
from ganlens.models.families.scenes import SceneGenerator
from ganlens.pages import report_pictures as pictures
from ganlens.pages.report_pictures import IMAGES, LARGEST, addresses
from ganlens.plots.svg import as_svg
from ganlens.segmenters.base import Concept

ROOT = Path(__file__).parents[2]
HOSTILE = '<script>alert("1")</script>'
VOID = ("br", "img", "input", "meta")


class Page(HTMLParser):
    """The elements of a page: name, attributes, and the text inside; an error where tags are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag: str, **attributes) -> list[dict]:
        given = {key.rstrip("_"): value for key, value in attributes.items()}
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in given.items())]

    def rows(self) -> dict[int, dict]:
        """For each unit its row: the text of its cells by their heads, and its images."""
        found, row = {}, None
        for element in self.elements:
            if element["tag"] == "tr" and "data-concept" in element:
                row = {"concept": element["data-concept"], "images": [], "class": element.get("class")}
            elif row is not None and element["tag"] == "th":
                found[int(element["text"])] = row
            elif row is not None and "data-head" in element and element["data-head"] != "images":
                row[element["data-head"]] = element["text"]
            elif row is not None and element["tag"] == "img":
                row["images"].append(element)
            elif element["tag"] == "table":
                row = None
        return found


@pytest.fixture
def real(D):
    """The dissection that all tests share, with flags and effects of its own."""
    effects = np.random.default_rng(1).normal(0, 0.03, D.iou.shape)
    effects[5, D.concepts.index(D.labels[5].concept)] = np.nan
    return replace(D, flags={"artifact": [3]}, effects=effects)


@pytest.fixture
def bare(D):
    """The same without generator, as it is loaded from a file: quick to report."""
    return replace(D, generator=None, segmenter=None)


def few(D: Dissection, count: int = 9) -> Dissection:
    """Its first units."""
    names = ("thresholds_by_concept", "on", "overlap", "valid", "top", "top_values")
    parts = {name: getattr(D, name)[:count] for name in names}
    return replace(D, **parts, effects=None if D.effects is None else D.effects[:count])


def written(path: Path) -> Page:
    return Page(path.read_text())


def pixels(address: str) -> np.ndarray:
    kind, content = address.split(";base64,")
    assert kind == "data:image/webp"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def shown(D, tmp_path_factory):
    """A page with pictures, and the text of it."""
    path = tmp_path_factory.mktemp("report") / "layer4.html"
    assert gl.report(replace(D, flags={}), str(path), progress=False) == path
    return written(path)


class TestUnits:
    def test_all_are_there_with_their_numbers(self, D, shown):
        rows = shown.rows()
        assert sorted(rows) == list(range(192))
        for unit, concept, iou, then, then_iou, _, chance, interpretable, low, high, _, certain in D.labels:
            row = rows[unit]
            assert row["concept"] == f"{concept.name}:{concept.category}"
            doubt = "maybe by chance" if interpretable and not certain else ""
            assert row["draws"] == f"{concept.name} {concept.category}{doubt}"
            assert (row["IoU"], row["chance"]) == (f"{iou:.3f}{low:.3f} … {high:.3f}", f"{chance:.3f}")
            assert row["runner-up"] == f"{then.name} {then_iou:.3f}"
            assert row["class"] == (None if interpretable else "vague")
            assert [image["title"] for image in row["images"]] == [f"image {seed}" for seed in D.top[unit, :IMAGES]]

    def test_the_best_come_first(self, D, shown):
        ious = [D.labels[unit].iou for unit in shown.rows()]
        assert ious == sorted(ious, reverse=True)
        assert [head["text"] for head in shown.all("th", aria_sort=None) if head.get("aria-sort")] == ["IoU"]

    def test_pictures_are_lit_where_the_unit_is_on(self, D, G, shown):
        unit = D.units("tree")[0]
        seed = int(D.top[unit, 0])
        picture = pixels(shown.rows()[unit]["images"][0]["src"])
        x, features = G.read(G.latents([seed]), ["layer4"])
        on = nn.functional.interpolate(features["layer4"][:, [unit]], (64, 64), mode="bilinear")[0, 0].numpy()
        on = (on > D.thresholds[unit]).repeat(2, 0).repeat(2, 1)
        original = to_uint8(x)[0].repeat(2, 0).repeat(2, 1).astype(int)
        assert picture.shape == (128, 128, 3)
        assert np.abs(picture - original).mean(2)[on].mean() < 12
        assert np.abs(picture - (0.4 * original + 20)).mean(2)[~on].mean() < 12

    def test_flags(self, real, tmp_path):
        real.generator = None
        page = written(gl.report(real, tmp_path / "a.html"))
        assert page.rows()[3]["draws"].endswith("artifact")
        assert [unit for unit, row in page.rows().items() if "artifact" in row["draws"]] == [3]
        assert len(page.all("select", name="flags")) == 1
        assert len(page.all("select", name="category")) == 1

    def test_no_effects_no_column(self, shown):
        assert "removes" not in shown.rows()[0]
        assert not [head for head in shown.all("h2") if head["text"] == "Matching and causing"]


class TestSummary:
    def test_counts_by_category(self, D, shown):
        drawn = [label.concept for label in D.labels if label.iou > 0.04]
        certain = sum(label.certain for label in D.labels if label.interpretable)
        counts = [len(drawn), certain, len(set(drawn)), 96]
        assert [dd["text"] for dd in shown.all("dd")[:4]] == list(map(str, counts))
        for category in ("object", "part"):
            units = [concept for concept in drawn if concept.category == category]
            vocabulary = [concept for concept in D.concepts if concept.category == category]
            expected = f"{category}{len(units)}{len(set(units))}{len(vocabulary)}"
            assert expected in [row["text"] for row in shown.all("tr")]

    def test_every_concept_with_its_best_unit(self, D, shown):
        rows = [row["text"] for row in shown.all("tr") if "data-concept" not in row]
        drawn = Counter(label.concept for label in D.labels if label.interpretable)
        for i, concept in enumerate(D.concepts):
            unit = D.units(concept, k=1)[0]
            numbers = f"{D.iou[unit, i]:.3f}{D.chance[i]:.3f}{D.area[i] / D.scope[i]:.1%}"
            assert f"{concept.name}{concept.category}{drawn[concept]}{unit}{numbers}" in rows

    def test_settings_and_how_to_get_it_again(self, D, shown):
        text = "".join(element["text"] for element in shown.all("dl", class_="settings"))
        for value in (*D.origin.values(), "8 × 8 cells", "64 × 64 pixels", "96 of sample 0", gl.__version__):
            assert value in text
        lines = next(pre["text"] for pre in shown.all("pre") if "gl.dissect" in pre["text"])
        names = {}
        exec(lines, names)  # what the page says, anybody can do
        assert np.array_equal(names["D"].iou, D.iou)

    def test_incomplete_is_marked(self, bare, tmp_path):
        page = written(gl.report(replace(bare, complete=False), tmp_path / "a.html"))
        assert page.all("p", class_="note")[0]["text"].startswith("Incomplete. The dissection was interrupted after 96")
        assert "96 of sample 0, incomplete" in page.all("dl", class_="settings")[0]["text"]

    def test_without_a_generator(self, bare, tmp_path):
        page = written(gl.report(bare, tmp_path / "a.html"))
        assert page.all("img") == []
        assert len(page.rows()) == 192
        assert "Dissection.load(path, generator=G)" in page.all("p", class_="note")[0]["text"]

    def test_nothing_found(self, bare, tmp_path):
        nothing = replace(bare, overlap=bare.overlap * 0)
        page = written(gl.report(nothing, tmp_path / "a.html"))
        assert [dd["text"] for dd in page.all("dd")[:2]] == ["0", "0"]
        assert {row["class"] for row in page.rows().values()} == {"vague"}


class TestEffects:
    @pytest.fixture
    def page(self, real, tmp_path):
        real.generator = None
        return written(gl.report(real, tmp_path / "a.html"))

    def test_what_each_unit_removes(self, real, page):
        for unit, row in page.rows().items():
            share = real.effects[unit, real.concepts.index(real.labels[unit].concept)]
            if unit == 5:
                assert row["removes"] == "–"
            else:
                assert row["removes"].replace("−", "-") == f"{share:.0%}".replace("-0%", "0%")

    def test_what_matches_and_what_causes(self, real, page):
        rows = [row["text"] for row in page.all("tr")]
        for i, concept in enumerate(real.concepts):
            matches, effects = real.iou[:, i] > max(0.04, real.chance[i]), real.effects[:, i]
            if np.isnan(effects).any():
                continue
            causes = effects >= 0.02
            counts = (matches & causes).sum(), (matches & ~causes).sum(), (~matches & causes).sum()
            strongest = f"{effects.argmax()}{effects.max():.0%}"
            assert concept.name + "".join(map(str, counts)) + strongest in rows

    def test_further_results(self, D, bare, tmp_path):
        rankings = gl.compare_rankings(D, "tree", {"a": [1, 2], "b": [2, 1]}, k=2, n=4, draws=0, progress=False)
        effect = gl.ablation_effect(D, "door", n=4, draws=0, progress=False)
        axes = plots.concept_bars(D)
        results = [rankings, effect, axes, f"seen: {HOSTILE}"]
        page = written(gl.report(bare, tmp_path / "a.html", effects=iter(results)))
        plt.close(axes.figure)
        words = [pre["text"] for pre in page.all("pre") if "article" in pre["inside"]]
        assert words == [f"a: {rankings['a']!r}\nb: {rankings['b']!r}", repr(effect), repr(results[3])]
        assert len([svg for svg in page.all("svg") if "article" in svg["inside"]]) == 3

    def test_effects_of_some_units(self, bare, tmp_path):
        bare.effects = np.full(bare.iou.shape, np.nan)
        bare.effects[:40] = 0.5
        page = written(gl.report(bare, tmp_path / "a.html"))
        assert page.all("p", class_="note")[0]["text"].startswith("40 of 192 units are measured; to go on: D.effects =")
        assert [row["removes"] for _, row in sorted(page.rows().items())] == ["50%"] * 40 + ["–"] * 152

    def test_effects_of_other_units(self, bare, tmp_path):
        bare.effects = np.zeros((3, 2))
        with pytest.raises(ValueError, match=r"of shape \(3, 2\)"):
            gl.report(bare, tmp_path / "a.html")
        assert list(tmp_path.iterdir()) == []


class TestFiles:
    def test_tables_beside_the_page(self, D, bare, tmp_path):
        gl.report(bare, tmp_path / "all.v1.html")
        assert {path.name for path in tmp_path.iterdir()} == {"all.v1.html", "all.v1.csv", "all.v1.json"}
        rows = list(csv.DictReader((tmp_path / "all.v1.csv").read_text().splitlines()))
        assert [row["concept"] for row in rows] == [label.concept.name for label in D.labels]
        assert json.loads((tmp_path / "all.v1.json").read_text()) == json.loads(D.to_json())

    def test_several_dissections(self, bare, tmp_path):
        other = replace(few(bare), layer="b")
        page = written(gl.report({"a/1": bare, "b": other}, tmp_path / "both.html"))
        tables = {f"both-{name}.{ending}" for name in ("a-1", "b") for ending in ("csv", "json")}
        assert {path.name for path in tmp_path.iterdir()} == tables | {"both.html"}
        assert [head["text"] for head in page.all("h2")][:2] == ["a/1", "b"]
        assert [a["href"] for a in page.all("a")][:2] == ["#part-0", "#part-1"]
        assert [section["id"] for section in page.all("section") if "id" in section] == ["part-0", "part-1"]
        assert len([row for row in page.all("tr") if "data-concept" in row]) == 192 + 9

    def test_the_same_every_time(self, real, tmp_path):
        some = few(real)
        pages = [
            gl.report(some, tmp_path / f"{i}/a.html", progress=False) for i in "ab" if (tmp_path / i).mkdir() is None
        ]
        assert pages[0].read_bytes() == pages[1].read_bytes()

    def test_interrupt_leaves_the_old_file(self, real, tmp_path):
        (tmp_path / "a.html").write_text("old")

        def interrupt(done, total):
            assert total == 192 * IMAGES
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            gl.report(real, tmp_path / "a.html", progress=interrupt)
        assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
        assert (tmp_path / "a.html").read_text() == "old"
        assert plt.get_fignums() == []

    def test_existing_files_are_replaced(self, bare, tmp_path):
        for name in ("a.html", "a.csv", "a.json"):
            (tmp_path / name).write_text("old")
        gl.report(bare, tmp_path / "a.html")
        assert min(path.stat().st_size for path in tmp_path.iterdir()) > 1000

    def test_assets_are_packed(self):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        patterns = re.split(r",\s*", config["options.package_data"]["ganlens.pages"])
        folder = Path(pictures.__file__).parent
        assets = {path.name for path in folder.iterdir() if path.suffix not in ("", ".py")}
        assert (
            assets
            == {name for name in assets if any(fnmatch(name, p) for p in patterns)}
            >= {"report.css", "report.js"}
        )


class TestSafety:
    def test_names_are_text(self, bare, tmp_path):
        concepts = [Concept(f"{HOSTILE} $\\x$ {i}", '"&amp;<b>') for i in range(len(bare.concepts))]
        origin = bare.origin | {"generator": HOSTILE, "segmenter": "'''\n<b>"}
        hostile = replace(bare, concepts=tuple(concepts), layer=HOSTILE, origin=origin)
        page = written(gl.report({HOSTILE: hostile, "<b>": hostile}, tmp_path / "a.html"))
        assert len(page.all("script")) == 1
        assert {element["text"] for element in page.all("b")} <= {concept.name for concept in concepts}
        assert page.all("h2")[0]["text"] == HOSTILE
        unit = bare.interpretable[0]
        assert page.rows()[unit]["draws"].startswith(hostile.labels[unit].concept.name)

    def test_only_the_own_script_may_run(self, shown):
        policy = next(meta["content"] for meta in shown.all("meta") if meta.get("http-equiv"))
        digest = hashlib.sha256(shown.all("script")[0]["text"].encode()).digest()
        assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert policy.startswith("default-src 'none'")

    def test_needs_nothing_else(self, shown):
        sources = [e[key] for e in shown.elements for key in ("src", "href", "xlink:href", "action") if e.get(key)]
        elsewhere = [a["href"] for a in shown.all("a")]
        assert [s for s in sources if not s.startswith(("data:", "#")) and s not in elsewhere] == []
        assert [link for link in elsewhere if not link.startswith("https://")] == ["layer4.csv", "layer4.json"]
        assert not shown.all("link") + shown.all("iframe") + shown.all("object")

    def test_for_those_who_do_not_see_it(self, shown):
        assert {head["scope"] for head in shown.all("th")} == {"row", "col"}
        assert all(re.fullmatch(r"image \d+, lit where unit \d+ is on", image["alt"]) for image in shown.all("img"))
        assert {image["loading"] for image in shown.all("img")} == {"lazy"}
        assert all("label" in field["inside"] for tag in ("input", "select") for field in shown.all(tag))
        assert [form.get("hidden", "shown") for form in shown.all("form")] == [None]  # there without a value
        ids = [element["id"] for element in shown.elements if "id" in element]
        assert len(ids) == len(set(ids))

    def test_markup(self):
        assert h("p", "a<b", h("i", 1), None, title='"', hidden=False) == '<p title="&quot;">a&lt;b<i>1</i></p>'
        assert join("<", h("br")) == "&lt;<br>"


class Wide(nn.Module):
    """More units of the same: the first are those of the layer in front."""

    def forward(self, r):
        return torch.cat([r, r.flip(1), r.flip(2)], 1)[:, :512]


class Narrow(nn.Module):
    def forward(self, r):
        return r[:, :192]


class TestSize:
    @pytest.mark.slow
    def test_512_units_are_under_10_megabytes(self, G, tmp_path):
        net = SceneGenerator()
        net.load_state_dict(G.net.state_dict())
        parts = dict(net.named_children())
        names = list(parts)
        order = [*names[:4], "wide", "narrow", *names[4:]]
        chain = nn.Sequential()
        for name in order:
            chain.add_module(name, {"wide": Wide(), "narrow": Narrow()}.get(name) or parts[name])
        made_up = synthetic(512, 150)
        top = np.random.default_rng(0).integers(0, 48, (512, 32))
        big = replace(made_up, layer="wide", generator=Generator.wrap(chain, 128), top=top)
        big.thresholds_by_concept[:] = 0.6
        big.effects = np.random.default_rng(0).normal(0, 0.02, (512, 150))
        path = gl.report(big, tmp_path / "big.html", progress=False)
        page = written(path)
        assert len(page.rows()) == 512
        assert len(page.all("img")) == 512 * IMAGES
        assert path.stat().st_size < 10e6

    @pytest.mark.parametrize("size", [(128, 128), (128, 96)])
    def test_pictures_are_as_good_as_there_is_room(self, size):
        random = np.random.default_rng(0)
        plain = np.full((6, *size, 3), 90, np.uint8)
        coarse = random.integers(0, 255, (6, size[0] // 8, size[1] // 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        for pictures_ in (plain, coarse):
            found = addresses(pictures_)
            assert sum(map(len, found)) < LARGEST * 4 / 3 + 6 * 30
            assert np.abs(pixels(found[0]) - pictures_[0]).mean() < 12

    def test_large_images_are_shrunk(self):
        net = nn.Sequential(
            nn.Linear(8, 3 * 4 * 6), nn.Unflatten(1, (3, 4, 6)), nn.Upsample(scale_factor=64), nn.Tanh()
        )
        generator = Generator.wrap(net, 8)
        S = gl.Segmenter.wrap(lambda x: (x.mean(1) > 0).int(), ["bright"])
        D = gl.dissect(generator, S, "1", n=8, progress=False)
        found = pictures.pictures_of(D, lambda count: None)
        assert {pixels(address).shape for images in found.values() for _, address in images} == {(128, 192, 3)}


class TestSvg:
    def test_takes_the_ink_of_the_page(self, D):
        text = as_svg(lambda: plots.concept_bars(D), "bars")
        assert text.startswith("<svg")
        assert "currentColor" in text
        assert not re.search(r"#222222|#000000|#ffffff|<style|<script|<!--|<\?xml", text, re.IGNORECASE)

    def test_names_are_its_own(self, D):
        first, second = (as_svg(lambda: plots.concept_bars(D), name) for name in "ab")
        ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
        assert not ids[0] & ids[1]
        for text, known in zip((first, second), ids, strict=True):
            assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(i, "") for i in known} | {
                ("", i) for i in known
            }

    def test_leaves_no_figure_open(self):
        kept = plt.figure()
        as_svg(lambda: plt.subplots()[1], "a")
        with pytest.raises(ZeroDivisionError):
            as_svg(lambda: plt.subplots()[1].plot([1 / 0]), "b")
        assert plt.get_fignums() == [kept.number]
        plt.close(kept)


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("layer4.npz", r"report of a str: .*gl.Dissection.load\('layer4.npz'\)"),
            ([1], r"report of a list: .*\{'layer4': D4, 'layer5': D5\}"),
            (None, r"report of a NoneType: expected a Dissection"),
            ({}, "no dissections"),
            ({"layer4": 3}, "report of an int for 'layer4': expected a Dissection, as gl.dissect returns it"),
        ],
    )
    def test_no_dissection(self, given, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            gl.report(given, tmp_path / "a.html")
        assert list(tmp_path.iterdir()) == []

    def test_no_page(self, bare, tmp_path):
        with pytest.raises(
            ValueError, match=r"named 'layer4.npz': expected a name that ends in .html, .*'layer4.html'"
        ):
            gl.report(bare, tmp_path / "layer4.npz")
        with pytest.raises(ValueError, match="a report at a Dissection: expected a path"):
            gl.report("a.html", bare)
        with pytest.raises(OSError, match=r"a.html cannot be written: No such file or directory"):
            gl.report(bare, tmp_path / "none" / "a.html")
        (tmp_path / "b.csv").mkdir()
        with pytest.raises(OSError, match=r"b.csv exists and is no ordinary file"):
            gl.report(bare, tmp_path / "b.html")

    def test_results_are_a_list(self, D, bare, tmp_path):
        effect = gl.ablation_effect(D, "door", n=4, draws=0, progress=False)
        for wrong in (effect, {"a": effect}, "effect"):
            with pytest.raises(ValueError, match=r"expected a list of results, such as \[effect\]"):
                gl.report(bare, tmp_path / "a.html", effects=wrong)

    def test_is_the_function_whatever_is_imported(self):
        import ganlens.pages.report_page  # noqa: F401

        assert callable(gl.report)
        assert isinstance(Dissection, type)
