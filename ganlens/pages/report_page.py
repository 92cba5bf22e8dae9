"""The page: what was looked at, what was found, what it causes, every unit, and how to get it all again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ganlens import __version__, plots
from ganlens.dissection.result import Dissection
from ganlens.effects.ablation import Effect
from ganlens.effects.context_result import Context
from ganlens.effects.rankings import match_and_cause
from ganlens.markup import Markup, h, join, table
from ganlens.models import list_models
from ganlens.pages.document import digest, whole
from ganlens.pages.painting_page import runs
from ganlens.pages.report_units import percent, units_table
from ganlens.plots.svg import as_svg
from ganlens.segmenters import list_segmenters

HERE = Path(__file__).parent
MOST_BESIDE = 16  # concepts whose numbers stand on the page; those of more are opened by a click
MOST_FIGURES = 4  # of causes, of the concepts that most units draw
PAPERS = (
    (
        "GAN Dissection: Visualizing and Understanding Generative Adversarial Networks",
        "ICLR 2019",
        "arxiv.org/abs/1811.10597",
    ),
    (
        "Understanding the role of individual units in a deep neural network",
        "Proceedings of the National Academy of Sciences 117 (48), 2020",
        "doi.org/10.1073/pnas.1907375117",
    ),
)


# ---- the whole


def document(
    parts: Mapping[str, Dissection],
    results: Sequence,
    pictures: Callable[[Dissection], dict],
    files,
    painting: str | None = None,
) -> str:
    """The text of the file.

    Parameters
    ----------
    parts : dict of str to Dissection
        By name, as the headings have it.
    results : sequence
        What else was measured.
    pictures : callable
        Gives the pictures of a dissection by unit, as `ganlens.pages.report_pictures.pictures_of` does.
    files : dict of str to list of Path
        For each dissection the files beside the page.
    painting : str, optional
        The text of a page that paints, to stand in this one.
    """
    several = len(parts) > 1
    title = f"What the units of {in_a_sentence(parts)} draw"
    body: list[Markup | None] = [header(title, parts), paint(painting)]
    last = [further(results), again(parts, files), cite()]
    if several:
        contents = [h("li", h("a", name, href=f"#part-{i}")) for i, name in enumerate(parts)]
        body.append(h("nav", h("ul", *contents), aria_label="Layers"))
        body.append(
            figure(
                lambda: plots.layers_bars(shortened(parts)),
                "layers",
                "Units that draw a concept, and distinct concepts",
            )
        )
    for i, (name, D) in enumerate(parts.items()):
        heading = h("h2", name) if several else None
        body.append(h("section", heading, *part(D, name, i, pictures, 3 if several else 2), id=f"part-{i}"))
    body += last
    script = read("report.js")
    images = "data: blob:; worker-src blob:" if painting else "data:"
    allowed = " ".join([digest(script), *(runs() if painting else [])])
    policy = f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src {allowed}"
    return whole(title, policy, read("report.css"), h("body", h("main", *body), h("script", script)))


def paint(painting: str | None) -> Markup | None:
    """The page that paints, in a frame of its own."""
    if painting is None:
        return None
    return h("section", h("h2", "Paint"), h("iframe", srcdoc=painting, title="Paint with units", class_="painting"))


def shortened(parts: Mapping[str, Dissection], longest: int = 24) -> dict[str, Dissection]:
    """The same under names that fit below bars."""
    names = (name if len(name) <= longest else f"{i + 1}: {name[: longest - 4]}…" for i, name in enumerate(parts))
    return dict(zip(names, parts.values(), strict=True))


def read(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def in_a_sentence(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def header(title: str, parts: Mapping[str, Dissection]) -> Markup:
    models = in_a_sentence(dict.fromkeys(D.origin["generator"] for D in parts.values()))
    words = in_a_sentence(dict.fromkeys(D.origin["segmenter"] for D in parts.values()))
    text = f"Units of {models}, matched with the concepts that the segmenter {words} finds in its images."
    return h("header", h("p", "ganlens report", class_="faint"), h("h1", title), h("p", text, class_="lead"))


# ---- one dissection


def part(D: Dissection, name: str, number: int, pictures: Callable, level: int) -> list[Markup | None]:
    """The sections of one dissection; its pictures are drawn last."""
    concepts = figure(lambda: untitled(plots.concept_bars(D)), f"concepts-{number}", "How many units draw each concept")
    caused = causes(D, number, level)
    drawn = pictures(D)
    hint = None
    if D.generator is None:
        load = h("code", "gl.Dissection.load(path, generator=G)")
        hint = h("p", "There are no pictures: no generator was at hand. Give it one: ", load, ".", class_="note")
    about = (
        "A unit is on where its map exceeds its threshold. IoU tells how well these regions agree with those of a "
        "concept; compare it with chance. Faint rows match no concept clearly."
    )
    lit = " The images are those that activate the unit most, lit where it is on." if drawn else ""
    return [
        incomplete(D),
        summary(D),
        h(f"h{level}", "Concepts"),
        with_table(D, concepts),
        *caused,
        h(f"h{level}", "Units"),
        h("p", about + lit, class_="about"),
        hint,
        units_table(D, drawn, name),
        h(f"h{level}", "Settings"),
        settings(D),
    ]


def incomplete(D: Dissection) -> Markup | None:
    """A line that stands out, where the sample was not seen to its end."""
    if D.complete:
        return None
    text = f" The dissection was interrupted after {D.n:,} images; all numbers are those of these images."
    return h("p", h("strong", "Incomplete."), text, class_="note")


def untitled(ax):
    """A figure whose title stands in the page already."""
    ax.set_title("", loc="left")
    return ax


def summary(D: Dissection) -> Markup:
    """The counts, large, and by category."""
    s = D.summary()
    tiles = [
        (s["interpretable"], f"of {s['units']:,} units draw a concept"),
        *certain_of(D),
        (s["distinct"], f"distinct concepts, of {len(D.concepts):,} looked for"),
        (D.n, "images looked at" + ("" if D.complete else " (incomplete)")),
    ]
    found = D.unit_counts
    rows = []
    for category in dict.fromkeys(concept.category for concept in D.concepts):
        inside = [count for concept, count in found.items() if concept.category == category]
        vocabulary = sum(concept.category == category for concept in D.concepts)
        rows.append([category, sum(inside), len(inside), vocabulary])
    heads = {"category": "text", "units": "number", "distinct concepts": "number", "looked for": "number"}
    by_category = table(heads, rows, "Counts by category", class_="small") if len(rows) > 1 else None
    shown = [h("div", h("dt", text), h("dd", f"{number:,}")) for number, text in tiles]
    return h("div", h("dl", *shown, class_="tiles"), control_of(D), by_category, class_="summary")


def certain_of(D: Dissection) -> list[tuple[int, str]]:
    """How many labels are not by chance, if that is known."""
    if D.certificates is None:
        return []
    count = sum(label.certain for label in D.labels if label.interpretable)
    return [(count, "of these labels certain: not by chance, with false discoveries held at 5 %")]


def control_of(D: Dissection) -> Markup | None:
    """What an untrained network reaches, if that is at hand."""
    if D.control is None:
        return None
    best = int(D.control.argmax())
    reached = f"IoU {D.control[best]:.3f}, with {D.concepts[best].name}; of this one, IoU {D.iou.max():.3f}."
    return h("p", f"Units of the untrained network reach at most {reached}", class_="note")


def concepts_table(D: Dissection) -> Markup:
    """Every concept that was looked for."""
    found = D.unit_counts
    shares = D.area / np.maximum(D.scope, 1)
    order = sorted(range(len(D.concepts)), key=lambda i: (-found[D.concepts[i]], -D.iou[:, i].max()))
    rows = []
    for i in order:
        concept, unit = D.concepts[i], int(D.iou[:, i].argmax())
        values = [f"{D.iou[unit, i]:.3f}", f"{D.chance[i]:.3f}", f"{shares[i]:.1%}"]
        rows.append([concept.name, concept.category, found[concept], unit, *values])
    heads = {"concept": "text", "category": "text"}
    heads |= dict.fromkeys(("units", "best unit", "its IoU", "chance", "of all pixels"), "number")
    return table(heads, rows, "All concepts", class_="small")


def with_table(D: Dissection, bars: Markup) -> Markup:
    """Bars with the numbers beside them; many numbers stand below and are opened by a click."""
    if len(D.concepts) <= MOST_BESIDE:
        return h("div", bars, concepts_table(D), class_="beside")
    return join(bars, h("details", h("summary", "All concepts as a table"), concepts_table(D)))


def causes(D: Dissection, number: int, level: int) -> list[Markup]:
    """What single units remove, where that was measured."""
    if D.effects is None:
        return []
    D.check_effects()
    found = D.unit_counts
    known = [c for i, c in enumerate(D.concepts) if np.isfinite(D.effects[:, i]).all() and D.iou[:, i].any()]
    known.sort(key=lambda concept: -found[concept])
    rows, drawn = [], []
    for place, concept in enumerate(known):
        sets = match_and_cause(D, concept)
        effects = D.effects[:, D.concepts.index(concept)]
        rows.append([concept.name, *map(len, sets), int(effects.argmax()), percent(effects.max())])
        if place < MOST_FIGURES and found[concept]:
            drawn.append(
                figure(
                    lambda concept=concept: untitled(plots.correlation_vs_cause(D, concept)),
                    f"cause-{number}-{place}",
                    f"IoU with {concept} against what each unit alone removes of it",
                )
            )
    heads = {"concept": "text"} | dict.fromkeys(("match and cause", "only match", "only cause"), "number")
    heads |= {"strongest unit": "number", "it removes": "number"}
    text = (
        "What matches a concept need not cause it. Each unit was switched off alone, on images that it was not chosen "
        "on: it causes a concept if at least 2% of the concept's pixels disappear."
    )
    part = [h(f"h{level}", "Matching and causing"), h("p", text, class_="about")]
    if not known:
        measured = np.isfinite(D.effects).any(1).sum()
        remedy = h("code", "D.effects = gl.unit_effects(D, known=D.effects)")
        return [*part, h("p", f"{measured} of {len(D.iou)} units are measured; to go on: ", remedy, class_="note")]
    counts = table(heads, rows, "Units that match and units that cause", class_="small")
    if len(rows) > MOST_BESIDE:
        counts = h("details", h("summary", "All concepts as a table"), counts)
    return [*part, counts, h("div", *drawn, class_="figures")]


def settings(D: Dissection) -> Markup:
    """Everything that the numbers depend on."""
    height, width, rows, columns = D.shape
    rule = f"{D.rule}, on at {D.quantile:.3g} of all pixels" if D.rule == "quantile" else D.rule
    entries = {
        "layer": D.layer,
        "units": f"{len(D.iou):,}, each a map of {height} × {width} cells",
        "generator": origin(D, "generator"),
        "segmenter": origin(D, "segmenter"),
        "images": f"{D.n:,} of sample {D.sample}" + ("" if D.complete else ", incomplete"),
        "compared at": f"{rows} × {columns} pixels",
        "threshold rule": rule,
        "pixels that count": "of images with the concept's category" if D.within_category else "all",
        "ganlens": __version__,
    }
    return h("dl", *(h("div", h("dt", name), h("dd", value)) for name, value in entries.items()), class_="settings")


def origin(D: Dissection, what: str) -> Markup:
    mark = D.origin.get(f"{what}_fingerprint")
    return join(D.origin[what], join(" · fingerprint ", h("code", mark)) if mark else "")


# ---- figures


def figure(draw: Callable, name: str, text: str) -> Markup:
    """A figure with its caption; ``draw`` gives Axes."""
    picture = h("div", Markup(as_svg(draw, name)), class_="wide", role="img", aria_label=text)
    return h("figure", h("figcaption", text), picture)


def further(results: Sequence) -> Markup | None:
    """Further results in their own words, with the figure that they have."""
    if not results:
        return None
    shown = [h("article", *result_parts(result, f"result-{i}")) for i, result in enumerate(results)]
    return h("section", h("h2", "Further results"), *shown)


def result_parts(result: Any, name: str) -> list[Markup]:
    """Figure and words of one result."""
    several = isinstance(result, Mapping) and len(result) and all(isinstance(e, Effect) for e in result.values())
    draw = words = None
    if hasattr(getattr(result, "figure", None), "savefig"):  # Axes of a figure that somebody drew
        return [figure(lambda: result, name, "Figure")]
    if several and all(effect.curve for effect in result.values()):
        draw, text = lambda: plots.ranking_curves(result), "What rankings of units remove"
        words = "\n".join(f"{by}: {effect!r}" for by, effect in result.items())
    elif isinstance(result, Effect) and result.curve:
        draw, text = lambda: plots.ranking_curves(result), f"{result.concept}: more and more units switched off"
    elif isinstance(result, Effect):
        draw, text = lambda: plots.effect_bars(result), f"{result.concept}: what is removed, and what else changes"
    elif isinstance(result, Context):
        draw, text = lambda: plots.context_bars(result), f"{result.concept}: where it can go"
    drawn = [] if draw is None else [figure(draw, name, text)]
    return [*drawn, h("pre", words or repr(result), tabindex="0")]


# ---- the end


def again(parts: Mapping[str, Dissection], files: Mapping[str, Sequence[Path]]) -> Markup:
    """The files beside this one, and the lines that measure everything again."""
    links = [join(h("a", path.name, href=quote(path.name)), " ") for paths in files.values() for path in paths]
    beside = h("p", "Beside this page: ", *links, "(CSV: a row for each unit; JSON: settings, summary and units).")
    first = next(iter(files.values()))[0].name
    read_back = f'import pandas\n\nunits = pandas.read_csv({first!r}, index_col="unit")'
    texts = [h("h2", "The data again"), beside, h("pre", read_back, tabindex="0")]
    texts.append(h("p", "The same dissection, for its pictures and everything else that can be asked of it:"))
    texts.append(h("pre", "\n".join(["import ganlens as gl", *map(recipe, parts.values())]), tabindex="0"))
    return h("section", *texts)


def recipe(D: Dissection) -> str:
    """The lines of Python that make a dissection."""
    lines = []
    for letter, what, known in (("G", "generator", list_models()), ("S", "segmenter", list_segmenters())):
        name = D.origin[what]
        call = f"gl.load_{what}({name!r})" if name in known else f"…  # the {what} {name!r}"
        lines.append(f"{letter} = {call}")
    options = {
        "n": D.n,
        "rule": D.rule,
        "quantile": D.quantile,
        "sample": D.sample,
        "within_category": D.within_category,
    }
    usual = {"rule": "quantile", "quantile": 0.01, "sample": 0, "within_category": False}
    given = "".join(f", {name}={value!r}" for name, value in options.items() if usual.get(name) != value)
    return "\n".join(["", *lines, f"D = gl.dissect(G, S, {D.layer!r}{given})"])


def cite() -> Markup:
    """The papers and the program."""
    items = [
        h("li", "D. Bau et al. ", h("a", title, href=f"https://{place}", rel="noreferrer"), f". {where}.")
        for title, where, place in PAPERS
    ]
    items.append(h("li", f"ganlens {__version__}, which made this page."))
    return h("section", h("h2", "To cite"), h("p", "The method, and what measured it here:"), h("ul", *items))
