"""Painting pages as their readers use them: from the disk, offline, in Chromium and Firefox."""

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from firefox import Firefox, need_firefox
from pages import chromium, opened

import ganlens as gl
from ganlens.models.editing import ablate
from ganlens.pages.painting_page import ENGINE, SCRIPTS, program_of, read
from ganlens.segmenters.base import Concept

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("painting page")]
SEED = 33
ROOT = Path(__file__).parents[2]
PIXELS = """name => {
    const canvas = document.querySelector(`[data-is=${name}]`);
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def file(D, folder):
    return gl.painting_page(D, folder / "paint.html", seed=SEED, progress=False)


@pytest.fixture(scope="module")
def context():
    with chromium() as context:
        yield context


@pytest.fixture
def page(context, file):
    said = []
    page = opened(context, file, said)
    yield page
    assert said == []
    page.close()


def idle(page) -> None:
    page.wait_for_function("() => !painting.working && !painting.wanted")


def picture(page, name: str = "picture") -> np.ndarray:
    return np.array(page.evaluate(PIXELS, name), np.uint8).reshape(64, 64, 4)[..., :3]


def drag(page, *points: tuple[float, float]) -> None:
    """Drag over the picture, from 0 to 1 across and down."""
    box = page.locator("[data-is=stage]").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    idle(page)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b).max() <= 1)


def test_a_tree_goes_and_comes_back(page, D, pictures, tree_cells):
    unedited = gl.replay(gl.Recipe.of(D.generator, SEED))
    assert close(picture(page), unedited)
    page.locator("[data-concept=tree]").click()
    page.locator("[data-is=remove]").click()
    page.locator("[data-is=size]").fill("2.5")
    ys, xs = np.divmod(tree_cells, 8)
    drag(page, *((x / 8 + 1 / 16, y / 8 + 1 / 16) for y, x in zip(ys, xs, strict=True)))
    page.screenshot(path=pictures / "painting-page.png")
    words = page.locator("[data-is=result]").inner_text()
    assert re.search(r"tree −\d+\.\d %", words)
    recipe = gl.Recipe.from_json(page.evaluate("() => painting.recipe"))
    assert recipe.edits[0].units == tuple(D.units("tree"))
    painted = picture(page)
    assert not close(painted, unedited)
    assert close(painted, gl.replay(recipe))
    page.keyboard.press("Control+z")
    idle(page)
    assert close(picture(page), unedited)
    page.keyboard.press("Control+Shift+z")
    idle(page)
    assert close(picture(page), painted)
    page.locator("[data-is=seed]").fill("4294967295")
    page.locator("[data-is=seed]").press("Tab")
    idle(page)
    other = gl.Recipe.from_json(page.evaluate("() => painting.recipe"))
    assert (other.seed, other.edits) == (2**32 - 1, recipe.edits)
    assert close(picture(page), gl.replay(other))
    assert close(picture(page, "before"), gl.replay(gl.Recipe.of(D.generator, other.seed)))


def test_recipes_of_python_are_taken(page, D):
    G = D.generator
    region = np.zeros((8, 8))
    region[2:5, 1:7] = 0.5
    edits = [
        gl.insert("layer4", [3, 5], "q0.995", region=region),
        gl.insert("layer6", [9], 3.5),
        gl.insert("layer4", [7, 8], [1.0, -2.0], strength=0.5),
        gl.insert("layer4", [2], np.random.default_rng(0).normal(size=(1, 8, 8))),
        ablate("layer4", [11], to="mean"),
        ablate("layer9", [0]),
    ]
    recipe = gl.Recipe.of(G, 12, edits)
    page.evaluate("text => painting.load(text)", recipe.to_json())
    idle(page)
    assert close(picture(page), gl.replay(recipe))
    again = gl.Recipe.from_json(page.evaluate("() => painting.recipe"))
    assert (again.seed, again.edits) == (recipe.seed, recipe.edits)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"fingerprint": "0"}, "another generator"),
        ({"format": 2}, "format 1"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"settings": {"truncation": 0.5}}, "other settings"),
        ({"edits": [None]}, "it is none"),
        ({"edits": [{"layer": ["layer4"], "units": [1]}]}, "no layer"),
        ({"edits": [{"layer": "layer4", "units": [1], "level": 1e300}]}, "level"),
        ({"edits": [{"layer": "layer4", "units": [1], "level": {"length": 1}}]}, "level"),
        ({"edits": [{"layer": "layer4", "units": [1], "region": ["aaaaaaaa"] * 8}]}, "region"),
        ({"edits": [{"layer": "layer44", "units": [1]}]}, "no layer layer44"),
        ({"edits": [{"layer": "__proto__", "units": [1]}]}, "no layer __proto__"),
        ({"edits": [{"layer": "layer4", "units": [192]}]}, "0 … 191"),
        ({"edits": [{"layer": "layer4", "units": []}]}, "0 … 191"),
        ({"edits": [{"layer": "layer4", "units": [1], "level": "q0.5"}]}, "does not know the level q0.5"),
        ({"edits": [{"layer": "layer4", "units": [1], "level": [1, 2]}]}, "level"),
        ({"edits": [{"layer": "layer4", "units": [1], "region": [[2]]}]}, "region is not 8 x 8"),
        ({"edits": [{"layer": "layer4", "units": [1], "strength": 2}]}, "strength"),
    ],
)
def test_bad_recipes_change_nothing(page, D, damage, message):
    recipe = json.loads(gl.Recipe.of(D.generator, 12).to_json()) | damage
    page.locator("[data-is=load]").click()
    page.locator("[data-is=recipe]").fill(json.dumps(recipe))
    page.locator("[data-is=load]").click()
    assert message in page.locator("[data-is=result]").inner_text()
    assert page.evaluate("() => [painting.seed, painting.strokes.length]") == [SEED, 0]


def test_the_list_of_units(page, D):
    page.locator("summary").click()
    page.locator("[data-is=list] input").nth(2).check()
    best = sorted(D.labels, key=lambda label: (not label.interpretable, -label.iou))[2].unit
    drag(page, (0.2, 0.2), (0.4, 0.2))
    units = json.loads(page.evaluate("() => painting.recipe"))["edits"][0]["units"]
    assert best in units
    stroke = page.locator("[data-is=strokes] input")
    stroke.uncheck()
    idle(page)
    assert close(picture(page), gl.replay(gl.Recipe.of(D.generator, SEED)))
    page.locator("[data-is=strokes] button").click()
    assert page.locator("[data-is=strokes] li").count() == 0


def test_the_keyboard_is_enough(page):
    page.locator("[data-is=stage]").focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", " "):
        page.keyboard.press(key)
    idle(page)
    region = np.array(json.loads(page.evaluate("() => painting.recipe"))["edits"][0]["region"])
    assert region[2:4, 1:3].any()
    assert region[5:].sum() + region[:, 5:].sum() == 0
    page.keyboard.press("x")
    assert page.locator("[data-is=remove]").get_attribute("aria-checked") == "true"


def test_everything_can_be_undone(page):
    for x in (0.2, 0.5):
        drag(page, (x, 0.7), (x + 0.1, 0.7))
    two = page.evaluate("() => painting.recipe")
    page.locator("[data-is=reset]").click()
    idle(page)
    assert json.loads(page.evaluate("() => painting.recipe"))["edits"] == []
    page.locator("[data-is=undo]").click()
    idle(page)
    assert page.evaluate("() => painting.recipe") == two
    page.locator("[data-is=strokes] button").first.click()
    page.locator("[data-is=undo]").click()
    idle(page)
    assert page.evaluate("() => painting.recipe") == two
    page.evaluate("text => painting.load(text)", two)
    assert page.locator("[data-is=strokes]").inner_text().count("draw tree") == 2


def test_a_seed_that_is_none(page):
    page.locator("[data-is=seed]").fill("")
    page.locator("[data-is=seed]").press("Enter")
    assert "whole number" in page.locator("[data-is=result]").inner_text()
    assert page.evaluate("() => painting.seed") == SEED


def test_units_without_a_concept(context, folder, S):
    """A network that draws nothing still paints, with units that are picked by hand."""
    G = gl.load_generator(ROOT / "tests" / "data" / "proggan_32.pth")
    D = gl.dissect(G, gl.load_segmenter("colors"), "layer3", n=32, progress=False)
    D = replace(D, overlap=0 * D.overlap)
    said = []
    page = opened(context, gl.painting_page(D, folder / "none.html", progress=False), said)
    page.locator("summary").click()
    page.locator("[data-is=list] input").first.check()
    drag(page, (0.3, 0.3), (0.6, 0.6))
    recipe = gl.Recipe.from_json(page.evaluate("() => painting.recipe"))
    assert len(recipe.edits[0].units) == 1
    found = np.array(page.evaluate(PIXELS, "picture"), np.uint8).reshape(32, 32, 4)[..., :3]
    assert close(found, gl.replay(recipe, generator=G))
    assert said == []
    page.close()


def test_a_picture_is_saved(page, D, tmp_path):
    with page.expect_download() as download:
        page.locator("[data-is=png]").click()
    download.value.save_as(tmp_path / "picture.png")
    from PIL import Image

    saved = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))
    assert close(saved, gl.replay(gl.Recipe.of(D.generator, SEED)))


def test_on_a_telephone_and_in_the_dark(context, file, pictures):
    said = []
    page = opened(context, file, said)
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    page.screenshot(path=pictures / "painting-page-small.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_without_webassembly(context, file, folder, D):
    """Where compiling is forbidden plain JavaScript does the same."""
    text = file.read_text().replace(" &#x27;wasm-unsafe-eval&#x27;", "")
    (folder / "plain.html").write_text(text)
    said = []
    page = opened(context, folder / "plain.html", said)
    assert page.locator("[data-is=plain]").is_visible()
    assert close(picture(page), gl.replay(gl.Recipe.of(D.generator, SEED)))
    page.close()


def test_nothing_leaves_the_page(context, file):
    assert "default-src &#x27;none&#x27;" in file.read_text()[:2000]
    page = opened(context, file, [])
    refused = page.evaluate(
        """async () => {
            const tries = [() => fetch("https://example.org"), () => import("data:text/javascript,1")];
            return (await Promise.allSettled(tries.map(async act => act()))).map(outcome => outcome.status);
        }"""
    )
    assert refused == ["rejected", "rejected"]
    page.close()


def test_names_are_no_markup(D, folder, context):
    name = "</script><img src=x onerror=alert(1)>"
    concepts = tuple(Concept(name, "part") if c.name == "tree" else c for c in D.concepts)
    odd = replace(D, concepts=concepts)
    said = []
    page = opened(context, gl.painting_page(odd, folder / "odd.html", readout=False, progress=False), said)
    assert name in page.locator("[data-is=tiles]").inner_text()
    assert page.locator("img").count() == 0
    assert said == []
    page.close()


def test_a_broken_unit_and_names_of_javascript(D, folder, context):
    """Levels that are no numbers, and names that every object has."""
    names = {"tree": "constructor", "sky": "toString", "door": "__proto__"}
    concepts = tuple(Concept(names.get(c.name, c.name), c.category) for c in D.concepts)
    G = D.generator
    odd, said = replace(D, concepts=concepts), []
    page = opened(context, gl.painting_page(odd, folder / "names.html", readout=False, progress=False), said)
    tiles = page.locator("[data-is=tiles] button")
    for i in range(tiles.count()):
        tiles.nth(i).click()
        assert page.evaluate("() => painting.units.length") == 20
    drag(page, (0.3, 0.7), (0.4, 0.7))
    assert close(picture(page), gl.replay(gl.Recipe.from_json(page.evaluate("() => painting.recipe")), generator=G))
    assert said == []
    page.close()


def test_the_last_state_is_shown(page, D):
    """Seeds and strokes faster than they are computed, one of them impossible."""
    page.evaluate(
        """() => {
            painting.setSeed(3);
            const edit = { layer: "layer4", units: [7], level: "x", region: null, strength: 1 };
            painting.strokes = [{ on: true, concept: null, mode: "edit", edit }];
            painting.render();
            painting.strokes = [];
            for (let seed = 4; seed < 12; seed++) painting.setSeed(seed);
        }"""
    )
    idle(page)
    assert close(picture(page), gl.replay(gl.Recipe.of(D.generator, 11)))


def test_sizes(D, file, folder):
    assert file.stat().st_size <= 9e6
    alone = gl.painting_page(D, folder / "alone.html", readout=False, progress=False)
    assert alone.stat().st_size <= 7e6


def test_a_report_that_paints(context, D, folder):
    said = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.goto(gl.report(D, folder / "live.html", live=True, progress=False).as_uri())
    page.frame_locator(".painting").locator("[data-is=app]:not([hidden])").wait_for()
    frame = page.frames[1]
    idle(frame)
    assert close(picture(frame), gl.replay(gl.Recipe.of(D.generator, 0)))
    assert page.locator("h2", has_text="What").count() + page.locator("table").count() > 0  # the rest is there
    assert (said, (folder / "live.html").stat().st_size <= 9e6) == ([], True)
    page.close()


def test_the_page_of_the_docs_is_made_anew(G):
    """After a change of the generator or of a script: ``make page``."""
    text = (ROOT / "docs" / "paint.html").read_text()
    assert f'"fingerprint": "{G.fingerprint}"' in text
    squeezed = re.search(r'<script id="weights"[^>]*>([^<]+)', text).group(1)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(squeezed), -15), np.uint8).reshape(2, -1)
    assert planes.T.tobytes() == program_of(G, list(G.layers)).packed()[1]
    parts = [*(f"engine/{name}" for name in ENGINE), *SCRIPTS, "painting.css"]
    assert [name for name in parts if read(name).rstrip() not in text] == []


class TestErrors:
    def test_what_is_no_dissection(self, tmp_path):
        with pytest.raises(ValueError, match="expected a Dissection"):
            gl.painting_page("layer4", tmp_path / "x.html")

    def test_another_ending(self, D, tmp_path):
        with pytest.raises(ValueError, match=r"\.html"):
            gl.painting_page(D, tmp_path / "x.txt")

    def test_a_generator_that_cannot_run(self, S, tmp_path):
        G = gl.load_generator("tests/data/stylegan2_rosinality_32.pt")
        D = gl.dissect(G, gl.load_segmenter("colors"), list(G.layers)[2], n=8, progress=False)
        with pytest.raises(ValueError, match=r"cannot run in a page"):
            gl.painting_page(D, tmp_path / "x.html", progress=False)
        assert not (tmp_path / "x.html").exists()


def test_in_firefox(file, D, tmp_path):
    need_firefox()
    with Firefox(tmp_path) as firefox:
        firefox.open(file.as_uri())
        firefox.wait("!document.querySelector('[data-is=app]').hidden")
        firefox.wait("!window.painting.working")
        assert firefox.ask("document.querySelector('[data-is=plain]').hidden")  # compiled
        region = [[1 if y > 3 and x < 3 else 0 for x in range(8)] for y in range(8)]
        firefox.ask(f"(painting.setMode('add'), painting.paint({json.dumps(region)}), true)")
        firefox.wait("!painting.working && !painting.wanted")
        recipe = gl.Recipe.from_json(firefox.ask("painting.recipe"))
        found = np.array(firefox.ask(f"({PIXELS})('picture')"), np.uint8).reshape(64, 64, 4)[..., :3]
        assert close(found, gl.replay(recipe))
        assert "tree +" in firefox.ask("document.querySelector('[data-is=result]').innerText")
