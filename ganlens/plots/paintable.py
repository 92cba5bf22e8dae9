"""Figure of what can be painted in which layer."""

import numpy as np
from matplotlib.axes import Axes

from ganlens.arguments import check_kind
from ganlens.effects.paintable import Paintable
from ganlens.plots.axes import INK, set_title, short_names
from ganlens.plots.charts import COLORS, new_axes, plain


def paintable(found: Paintable, ax: Axes | None = None) -> Axes:
    """How well each concept can be added and removed, layer by layer.

    Parameters
    ----------
    found : Paintable
        From `ganlens.paintable`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        To the right, the share of the best place that becomes the concept when its units are switched on; to the left,
        the share of the concept that goes when they are off. The best concept stands first.
    """
    check_kind("found", found, Paintable, "what gl.paintable returns")
    worth = np.fmax(np.nan_to_num(found.gained).max(0), np.nan_to_num(found.removed).max(0) / 2)
    order = [c for c in np.argsort(-worth, kind="stable") if worth[c] > 0]
    count = len(found.layers)
    ax = ax or new_axes(7.5, 0.9 + len(order) * (0.12 + 0.13 * count))
    height = 0.8 / count
    for i, layer in enumerate(found.layers):
        y = np.arange(len(order)) + (i - (count - 1) / 2) * height
        color = COLORS[i % len(COLORS)]
        ax.barh(y, np.nan_to_num(found.gained[i, order]).clip(0), height * 0.9, color=color, label=layer)
        ax.barh(y, -np.nan_to_num(found.removed[i, order]).clip(0, 1), height * 0.9, color=color, alpha=0.55)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(order)), short_names([found.concepts[c] for c in order]))
    ax.set_ylim(len(order) - 0.4, -0.6)
    plain(ax, "x")
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["100%", "50%", "0", "50%", "100%"])
    ax.set_xlim(-1.05, max(1.05, float(np.nanmax(found.gained, initial=0)) * 1.05))
    sides = "← of the concept removed      |      of the best place turned into it →"
    ax.set_xlabel(f"{sides}\n{found.n} images, {found.k} units each", size=9, color=INK)
    if count > 1:
        ax.legend(frameon=False, fontsize=9, loc="lower right")
    set_title(ax, "What can be painted" + " (incomplete)" * (not found.complete))
    return ax
