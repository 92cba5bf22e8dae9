"""Messages about names that do not exist."""

import difflib
from collections.abc import Sequence


def close_match(kind: str, given: object, known: Sequence[str], owner: str) -> str:
    """Say that ``owner`` has no such name, which one is closest, and what there is.

    Examples
    --------
    >>> close_match("layer", "layer44", ["layer1", "layer4"], "scenes")
    "no layer 'layer44' in scenes; did you mean 'layer4'? It has layer1, layer4"
    """
    matches = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    hint = f"; did you mean {matches[0]!r}?" if matches else "."
    shown = list(known) if len(known) <= 24 else [*known[:20], f"… {len(known) - 20} more"]
    return f"no {kind} {given!r} in {owner}{hint} It has {', '.join(shown)}"
