"""What sheets and charts have in common: ink, titles, keys, and names of concepts that fit."""

from collections import Counter
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ganlens.segmenters.base import Concept

WIDTH = 9.5  # inches that a notebook shows without scaling
INK, GREY = "#222222", "#777777"


def set_title(ax: Axes, text: str, pad: float = 6) -> None:
    ax.set_title(text, loc="left", size=10, color=INK, pad=pad)


def add_key(ax: Axes, key: Sequence[Patch], columns: int, **place) -> None:
    """A key of colours, ``columns`` side by side, where `matplotlib.axes.Axes.legend` would put it."""
    small = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.4, "borderaxespad": 0.3, "borderpad": 0.3}
    ax.legend(handles=key, ncols=columns, frameon=False, fontsize=9, labelcolor=INK, **(place | small))


def short_names(concepts: Iterable[Concept], longest: int = 24) -> list[str]:
    """Names of concepts, cut if they are long; with the category where a name occurs twice."""
    concepts = list(concepts)
    count = Counter(concept.name for concept in concepts)
    names = [c.name if count[c.name] == 1 else f"{c.name} ({c.category})" for c in concepts]
    return [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]


def check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}: expected at least 1")
