"""Figures as text that stands in a page: sharp at any size, in the page's own ink on its own ground."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from ganlens.plots.axes import INK

SETTINGS: dict[Any, Any] = {"svg.fonttype": "path", "text.parse_math": False}  # matplotlib has a type of its own
PAGE = {
    INK: "currentColor",
    "#000000": "currentColor",
    "#e6e6e6": "var(--line, #e6e6e6)",
    "#ffffff": "var(--page, #fff)",
}


def as_svg(draw: Callable, name: str) -> str:
    """Draw a figure and give it as an ``<svg>`` element.

    Parameters
    ----------
    draw : callable
        Without arguments; draws a new figure and returns its Axes, or an array of them, as the functions of
        `ganlens.plots` do.
    name : str
        Another one for each figure of a page: what is defined in two figures must not have one name.

    Returns
    -------
    str
        An element without declarations and scripts. What is dark takes the colour of the text around it, what is
        white that of the page (``--page``), and grids that of its lines (``--line``).

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> as_svg(lambda: plt.subplots(figsize=(2, 1))[1], "empty")[:4]
    '<svg'
    """
    open_before, text = plt.get_fignums(), io.StringIO()
    with mpl.rc_context(SETTINGS | {"svg.hashsalt": name}):
        try:
            figure = np.ravel(draw())[0].figure
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finally:
            for number in set(plt.get_fignums()) - set(open_before):
                plt.close(number)
    return for_page(text.getvalue(), name)


def for_page(text: str, name: str) -> str:
    """The ``<svg>`` element of a file, its names made the page's only ones, its colours made the page's own."""
    style = r"<style[^>]*>.*?</style>"  # it would count for the whole page
    text = re.sub(rf"<metadata>.*?</metadata>|<!--.*?-->|{style}", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for color, own in PAGE.items():
        text = re.sub(rf"(fill|stroke): {color}(?=[;\"])", rf"\1: {own}", text, flags=re.IGNORECASE)
    width, height = map(float, re.findall(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)[0])
    own = f'width="{width * 4 / 3:.0f}" height="{height * 4 / 3:.0f}" fill="currentColor" stroke-linejoin="round"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', own, text, count=1)
