"""The report in a real browser: from the disk, without a network, with and without scripts, on paper."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lab import CHROMIUM, FLAGS, need_chromium

import ganlens as gl
from ganlens.segmenters.base import Concept

pytestmark = pytest.mark.browser
RESULTS = Path(__file__).parents[2] / "test-results"
ROWS = "[...document.querySelectorAll('.list tbody tr')]"
SHOWN = f"{ROWS}.filter(row => !row.hidden).map(row => +row.cells[0].textContent)"
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth)"


@pytest.fixture(scope="module")
def dissection(D):
    effects = np.random.default_rng(1).normal(0, 0.03, D.iou.shape)
    effects[7, D.concepts.index(D.labels[7].concept)] = np.nan
    return replace(D, flags={"artifact": [3, 5], "favourite": [5]}, effects=effects)


@pytest.fixture(scope="module")
def file(dissection, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "layer4.html"
    return gl.report(dissection, path, progress=False)


@pytest.fixture(scope="module")
def browser():
    need_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Open a file without a network; at the end nothing must have been said in the console, nor asked of a server."""
    said, contexts = [], []

    def open_page(file: Path, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_offline(True)
        context.set_default_timeout(5000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def page(look, file):
    return look(file)


def keep(page, name: str, **options) -> None:
    """A picture of the page, to be looked at."""
    RESULTS.mkdir(exist_ok=True)
    page.screenshot(path=RESULTS / f"report-{name}.png", **options)


def shown(page) -> list[int]:
    return page.evaluate(SHOWN)


def sort(page, head: str) -> str:
    """Click on the head of a column; what a screen reader is told."""
    button = page.get_by_role("button", name=head, exact=True)
    button.click()
    return page.locator("thead th", has=button).last.get_attribute("aria-sort")


class TestSorting:
    def test_by_number(self, page):
        assert sort(page, "unit") == "ascending"
        assert shown(page) == list(range(192))
        assert sort(page, "unit") == "descending"
        assert shown(page) == list(range(191, -1, -1))

    def test_by_iou(self, page, dissection):
        ious = np.array([label.iou for label in dissection.labels])
        assert (np.diff(ious[shown(page)]) <= 0).all()
        assert sort(page, "IoU") == "ascending"
        assert (np.diff(ious[shown(page)]) >= 0).all()

    def test_by_what_a_unit_removes(self, page, dissection):
        own = [dissection.concepts.index(label.concept) for label in dissection.labels]
        removes = dissection.effects[np.arange(192), own]
        for order, sign in (("descending", -1), ("ascending", 1)):
            assert sort(page, "removes") == order
            units = shown(page)
            assert units[-1] == 7
            assert (np.diff(sign * removes[units[:-1]]) >= -1e-6).all()

    def test_by_concept(self, page, dissection):
        sort(page, "draws")
        names = [dissection.labels[unit].concept.name for unit in shown(page)]
        assert names == sorted(names)
        assert len(set(names)) > 9

    def test_by_keyboard(self, page):
        button = page.get_by_role("button", name="chance", exact=True)
        button.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        assert page.locator("thead th[aria-sort]").inner_text().startswith("chance")


class TestFiltering:
    def test_by_concept(self, page, dissection):
        page.locator("[name=concept]").select_option("tree:object")
        assert sorted(shown(page)) == [label.unit for label in dissection.labels if label.concept.name == "tree"]
        assert page.get_by_role("status").inner_text() == f"{len(shown(page))} of 192 units"

    def test_by_category_and_iou(self, page, dissection):
        page.get_by_label("Category").select_option("part")
        page.get_by_label("IoU at least").fill("0.05")
        passes = [label.unit for label in dissection.labels if label.concept.category == "part" and label.iou >= 0.05]
        assert sorted(shown(page)) == passes

    def test_by_words(self, page, dissection):
        labels = dissection.labels
        page.get_by_label("Search").fill("DOOR")
        assert sorted(shown(page)) == [x.unit for x in labels if "door" in (x.concept.name, x.runner_up.name)]
        page.get_by_label("Search").fill("17")
        assert shown(page) == [17]
        page.get_by_label("Search").fill("no such thing")
        assert shown(page) == []
        assert page.get_by_role("status").inner_text() == "0 of 192 units"

    def test_by_flag_and_clearness(self, page, dissection):
        page.get_by_label("Flag").select_option("artifact")
        assert sorted(shown(page)) == [3, 5]
        page.get_by_role("button", name="Reset").click()
        assert len(shown(page)) == 192
        page.get_by_label("only units that draw a concept").check()
        assert sorted(shown(page)) == dissection.interpretable
        sort(page, "unit")
        assert shown(page) == dissection.interpretable

    def test_two_layers_do_not_disturb_each_other(self, look, D, tmp_path):
        bare = replace(D, generator=None)
        page = look(gl.report({"one": bare, "two": bare}, tmp_path / "two.html"))
        page.get_by_label("Search").first.fill("3")
        assert page.get_by_role("status").all_inner_texts() == ["1 of 192 units", "192 units"]
        keep(page, "two-layers")


class TestLooks:
    @pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 1000), ("dark", 390)])
    def test_fits(self, look, file, scheme, width):
        page = look(file, width, color_scheme=scheme)
        page.wait_for_function(LOADED)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (np.array(json.loads(f"[{ground[4:-1]}]")).mean() < 60) == (scheme == "dark")
        keep(page, f"{scheme}-{width}")
        page.locator(".units").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.units').scrollIntoView()")
        keep(page, f"{scheme}-{width}-units")
        assert page.locator(".list img").first.bounding_box()["width"] > 70

    def test_on_paper(self, look, file):
        page = look(file, 690, color_scheme="dark")
        page.wait_for_function(LOADED)
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator(".tools").is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") == 690
        keep(page, "print", clip={"x": 0, "y": 0, "width": 690, "height": 3000}, full_page=True)

    def test_without_scripts(self, look, file, dissection):
        page = look(file, java_script_enabled=False)
        assert page.locator(".list tbody tr").count() == 192
        assert page.locator(".list tbody tr >> visible=true").count() == 192
        assert page.locator(".tools").is_hidden()
        assert page.locator("thead button").count() == 0
        assert page.locator(".list tbody th").first.inner_text() == str(np.argmax([x.iou for x in dissection.labels]))
        page.locator(".units").scroll_into_view_if_needed()
        keep(page, "without-scripts")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser, file, scheme):
    """No violation of WCAG 2.1, level A or AA, as axe-core finds them."""
    import axe_core_python

    page = browser.new_context(color_scheme=scheme).new_page()
    page.goto(file.as_uri())
    page.evaluate((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate(
        """async () => {
            const { violations } = await axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] });
            return violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map(node => node.html.slice(0, 200))]);
        }"""
    )
    assert found == []


def test_names_do_nothing(look, D, tmp_path):
    names = ['<script>alert("1")</script>', '"><img src=x onerror=alert(2)>', "$\\frac$", "'); alert(3); ('"]
    concepts = tuple(Concept(f"{names[i % 4]}{i}", names[-i % 4]) for i in range(len(D.concepts)))
    hostile = replace(D, generator=None, concepts=concepts, layer=names[1], origin=D.origin | {"generator": names[0]})
    page = look(gl.report(hostile, tmp_path / "hostile.html"))
    label = hostile.labels[D.interpretable[0]]
    page.locator("[name=concept]").select_option(f"{label.concept.name}:{label.concept.category}")
    page.wait_for_timeout(100)
    assert label.unit in shown(page)
    assert page.locator(".list b:visible").first.inner_text() == label.concept.name
    assert page.locator("h1").inner_text() == f"What the units of {names[1]} draw"


def test_only_the_own_script_runs(browser, file, tmp_path):
    changed = tmp_path / "changed.html"
    changed.write_text(file.read_text().replace("</main>", "</main><script>document.title = 'other'</script>"))
    page = browser.new_page()
    page.goto(changed.as_uri())
    assert page.title() == "What the units of layer4 draw"
    page.close()
