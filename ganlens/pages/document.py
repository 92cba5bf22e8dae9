"""What all pages share: their head, with a policy of what they may load and run."""

import base64
import hashlib

from ganlens import __version__
from ganlens.markup import Markup, h


def digest(script: str) -> str:
    """What a policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def whole(title: str, policy: str, style: str, body: Markup) -> str:
    """The text of a page."""
    head = [
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="generator", content=f"ganlens {__version__}"),
        h("title", title),
        h("style", Markup(style)),
    ]
    return f"<!doctype html>\n{h('html', h('head', *head), body, lang='en')}\n"
