"""The table of all units, with the tools to sort and filter it."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ganlens.dissection.ranking import UnitLabel
from ganlens.dissection.result import Dissection
from ganlens.markup import Markup, h, join

ABOUT = {
    "unit": "its number in the layer",
    "draws": "the concept that it matches best",
    "IoU": "how well the regions where the unit is on agree with those of the concept: 0 not at all, 1 exactly",
    "chance": "the IoU that is reached without looking at the image",
    "runner-up": "the concept that comes next, and the unit's IoU with it",
    "removes": "the share of the concept's pixels that disappear when this unit alone is switched off",
    "images": "those that activate the unit most, lit where it is on",
}
NUMBERS = ("unit", "IoU", "chance", "removes")


def units_table(D: Dissection, pictures: Mapping[int, list], name: str) -> Markup:
    """All units, the highest IoU first; the tools are hidden until there is a script that makes them work."""
    heads = [head for head in ABOUT if shows(D, pictures, head)]
    order = sorted(D.labels, key=lambda label: -label.iou)
    best = max((label.iou for label in order), default=0) or 1
    marks = {unit: [flag for flag, units in D.flags.items() if unit in units] for unit in range(len(order))}
    rows = [row(D, label, heads, best, marks[label.unit], pictures.get(label.unit, [])) for label in order]
    head = [head_of(text) for text in heads]
    caption = h("caption", f"All units of {name}", class_="unseen")
    table = h("table", caption, h("thead", h("tr", *head)), h("tbody", *rows), class_="list")
    return h("div", tools(D), h("p", class_="count faint", role="status"), table, class_="units")


def shows(D: Dissection, pictures: Mapping[int, list], head: str) -> bool:
    return bool({"removes": D.effects is not None, "images": pictures}.get(head, True))


def head_of(text: str) -> Markup:
    sorted_by = "descending" if text == "IoU" else None
    about = {"title": ABOUT[text], "class_": kind(text), "data_sort": sort(text), "aria_sort": sorted_by}
    return h("th", text, scope="col", **about)


def kind(head: str) -> str:
    return "number" if head in NUMBERS else "text"


def sort(head: str) -> str | None:
    """How a column is sorted at first: numbers from the highest, others from the beginning."""
    return {"unit": "up", "draws": "text", "images": None}.get(head, "down")


def row(D: Dissection, label: UnitLabel, heads: list[str], best: float, marks: list[str], pictures: list) -> Markup:
    """One unit."""
    concept, then = label.concept, label.runner_up
    badges = [h("span", mark, class_=f"badge {mark}") for mark in marks]
    if label.interpretable and label.low is not None and not label.certain:
        badges.append(h("span", "maybe by chance", class_="badge doubt"))
    bar = h("i", style=f"width:{100 * label.iou / best:.0f}%")
    spread = h("small", f"{label.low:.3f} … {label.high:.3f}", title="95 % interval") if label.low is not None else None
    second = None if then is None else join(then.name, " ", h("small", f"{label.runner_up_iou:.3f}"))
    alone = removed(D, label)
    iou = join(f"{label.iou:.3f}", h("span", bar, class_="bar", aria_hidden="true"))
    formula = D.formulas.of(label.unit) if D.formulas else None
    closer = formula and h("p", f"closer: {formula.formula} ", h("small", f"{formula.iou:.3f}"), class_="closer")
    cells = {
        "draws": (join(h("b", concept.name), " ", h("small", concept.category), *badges, closer), "text", None),
        "IoU": (join(iou, spread), "number iou", label.iou),
        "chance": (f"{label.chance:.3f}", "number", label.chance),
        "runner-up": (second, "text", label.runner_up_iou if then else None),
        "removes": (percent(alone), "number", alone),
        "images": (join(*(picture(label, *each) for each in pictures)), "images", None),
    }
    entries = []
    for head in heads[1:]:
        content, style, value = cells[head]
        known = value is not None and np.isfinite(value)
        entries.append(h("td", content, class_=style, data_head=head, data_v=f"{value:.6g}" if known else None))
    about = {"data_concept": f"{concept.name}:{concept.category}", "data_category": concept.category}
    state = {"data_flags": " ".join(marks) or None, "class_": None if label.interpretable else "vague"}
    state |= {"data_certain": "yes" if label.certain else None, "title": D.describe(label.unit)}
    return h("tr", h("th", label.unit, scope="row", class_="number", data_v=label.unit), *entries, **about, **state)


def removed(D: Dissection, label: UnitLabel) -> float:
    """What the unit alone removes of its own concept; nan where that is not known."""
    return np.nan if D.effects is None else float(D.effects[label.unit, D.concepts.index(label.concept)])


def percent(share: float) -> str:
    return f"{share:.0%}".replace("-0%", "0%").replace("-", "−") if np.isfinite(share) else "–"


def picture(label: UnitLabel, seed: int, address: str) -> Markup:
    alt = f"image {seed}, lit where unit {label.unit} is on"
    return h("img", src=address, alt=alt, title=f"image {seed}", loading="lazy", decoding="async")


# ---- tools


def tools(D: Dissection) -> Markup:
    """What filters the rows."""
    labels, counts = Counter(label.concept for label in D.labels), D.unit_counts
    ordered = sorted(labels, key=lambda concept: (-counts[concept], -labels[concept], concept))
    concepts = {f"{c.name}:{c.category}": f"{c.name} {of_all(counts[c], labels[c])}" for c in ordered}
    categories = {category: category for category in dict.fromkeys(concept.category for concept in D.concepts)}
    flags = {flag: flag for flag, units in D.flags.items() if units}
    step = {"type": "number", "min": "0", "max": "1", "step": "0.01", "placeholder": "0.00", "inputmode": "decimal"}
    certain = h("label", h("input", type="checkbox", name="certain"), "only certain labels", class_="check")
    fields = [
        labelled("Search", h("input", type="search", name="text", placeholder="words or a unit’s number")),
        choice("Concept", "concept", concepts),
        choice("Category", "category", categories) if len(categories) > 1 else None,
        labelled("IoU at least", h("input", name="minimum", **step)),
        choice("Flag", "flags", flags) if flags else None,
        h("label", h("input", type="checkbox", name="clear"), "only units that draw a concept", class_="check"),
        certain if D.certificates is not None else None,
        h("button", "Reset", type="reset"),
    ]
    return h("form", *fields, class_="tools", hidden=True, role="search", aria_label="Filter the units")


def of_all(count: int, every: int) -> str:
    """How many units draw a concept, and of how many it is the nearest one, where that is more."""
    return f"({count})" if count == every else f"({count} of {every})"


def choice(name: str, field: str, options: Mapping[str, str]) -> Markup:
    every = h("option", "all", value="")
    return labelled(name, h("select", every, *(h("option", t, value=v) for v, t in options.items()), name=field))


def labelled(name: str, field: Markup) -> Markup:
    return h("label", h("span", name), field)
