"""Networks in a browser, for tests: a page of the engine alone, and painting pages, without a network."""

import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lab import CHROMIUM, FLAGS, need_chromium

from ganlens.models.editing import Edit
from ganlens.pages.painting_page import ENGINE, HERE, LEVELS, read
from ganlens.pages.program import Program

KERNEL = HERE / "engine" / "kernel.wasm"


@contextlib.contextmanager
def chromium() -> Iterator:
    """A browser without a network; what it says on its console is an error."""
    need_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
        context.set_default_timeout(30_000)
        yield context
        browser.close()


def opened(context, path: Path, said: list[str]):
    """A painting page that is ready; what its console says is added to ``said``."""
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("[data-is=app]:not([hidden])")
    return page


class Engine:
    """The engine in a blank page: gives pictures and labels of programs."""

    def __init__(self, context, program: Program, z_dim: int, segmenter: Program | None = None, compiled: bool = True):
        self.page = context.new_page()
        self.page.add_script_tag(content="\n".join(map(read, (f"engine/{name}" for name in ENGINE))))
        given = {"latents": {"length": z_dim, "law": "normal"}}
        for name, one in (("program", program), ("segmenter", segmenter)):
            told, content = one.packed() if one else (None, b"")
            given |= {name: told, f"{name}Bytes": base64.b64encode(content).decode()}
        given["kernel"] = base64.b64encode(KERNEL.read_bytes()).decode() if compiled else None
        started = self.page.evaluate(
            """async given => {
                const bytes = text => text && Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
                return TASKS.start({
                    program: given.program, weights: bytes(given.programBytes), kernel: bytes(given.kernel),
                    segmenter: given.segmenter, segmenterWeights: bytes(given.segmenterBytes), latents: given.latents,
                });
            }""",
            given,
        )
        assert started["compiled"] == compiled

    def render(self, seed: int, edits: Sequence[Edit] = (), levels: dict | None = None, read: bool = False):
        """Picture (Y, X, 3) and the concepts of pixels, from 0 on."""
        given = {"seed": seed, "edits": [vars(edit) for edit in edits], "levels": levels or {}, "read": read}
        picture, labels, size = self.page.evaluate(
            """given => {
                const { picture, labels } = TASKS.render(given);
                return [[...picture], labels && [...labels], net.shapes[net.output]];
            }""",
            json.loads(json.dumps(given)),
        )
        _, height, width = size
        return np.array(picture, np.uint8).reshape(height, width, 4)[..., :3], labels and np.array(labels)

    def numbers(self, seed: int, edits: Sequence[Edit] = ()) -> torch.Tensor:
        """The last map (C, Y, X), before it becomes a picture."""
        self.render(seed, edits)
        values, shape = self.page.evaluate("() => [[...net.result()], net.shapes[net.output]]")
        units, height, width = shape
        return torch.tensor(values).reshape(height, width, -1)[..., :units].permute(2, 0, 1)


__all__ = ["LEVELS", "Engine", "chromium", "opened"]
