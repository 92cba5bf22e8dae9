"""HTML from values: whatever is no markup yet is escaped, so that no name can become a tag."""

import html


class Markup(str):
    """Text that is HTML already."""


def h(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element; ``class_`` stands for ``class``, True for an attribute without value, None and False for none.

    Examples
    --------
    >>> h("td", "a < b", h("br"), class_="name", hidden=True, title=None)
    '<td class="name" hidden>a &lt; b<br></td>'
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not None and value is not False:
            parts.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    end = "" if name in ("br", "img", "input", "meta", "col") else f"</{name}>"
    return Markup(f"<{' '.join(parts)}>{join(*content)}{end}")


def join(*content: object) -> Markup:
    """Elements and texts one after the other; texts are escaped, None is left out."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in given(content)))


def given(content: tuple) -> list:
    return [part for part in content if part is not None]


def table(heads: dict[str, str], rows: list[list], name: str, **attributes: object) -> Markup:
    """A table of values; ``heads`` gives each column's kind, "text" or "number". A row begins with its own head."""
    head = h("tr", *(h("th", text, scope="col", class_=kind) for text, kind in heads.items()))
    body = []
    for first, *others in rows:
        cells = [h("td", value, class_=kind) for value, kind in zip(others, list(heads.values())[1:], strict=True)]
        body.append(h("tr", h("th", first, scope="row", class_=next(iter(heads.values()))), *cells))
    caption = h("caption", name, class_="unseen")
    inner = h("table", caption, h("thead", head), h("tbody", *body), **attributes)
    return h("div", inner, class_="wide")
