"""The picture of a widget that stays in the notebook, for where no kernel is; the live view hides it meanwhile."""

import base64
import struct
import zlib
from collections.abc import Callable
from threading import Timer

from IPython.display import display, update_display

PAUSE = 1.5  # seconds between two updates, at least

# Where the widget's model is gone, JupyterLab says so in an element without children: it is told what to do instead.
GONE = """<style>
.jp-OutputArea-child:has(.ganlens-saved) + .jp-OutputArea-child .jupyter-widgets:not(:has(*)) { font-size: 0; }
.jp-OutputArea-child:has(.ganlens-saved) + .jp-OutputArea-child .jupyter-widgets:not(:has(*))::after {
  content: "This is a picture of the widget: its kernel is gone. Run the cell again to use it.";
  font-size: var(--jp-ui-font-size1, 13px); color: var(--jp-ui-font-color2, #666);
}
</style><span class="ganlens-saved"></span>"""


class SavedPicture:
    """An output of its own above the widget, made anew from time to time.

    Parameters
    ----------
    name : str
        Of the widget's model.
    make : callable
        Gives the kind of the picture, such as ``"image/png"``, and its bytes.
    text : str
        What the picture shows, for those who do not see it.
    """

    def __init__(self, name: str, make: Callable[[], tuple[str, bytes]], text: str):
        self.name, self.make, self.text = name, make, text
        self.timer: Timer | None = None
        self.shown = False

    def show(self) -> None:
        """Put the picture into the output."""
        bundle, about = self.bundle()
        display(bundle, metadata=about, raw=True, display_id=self.name)
        display({"text/html": GONE, "text/plain": ""}, raw=True)
        self.shown = True

    def update(self) -> None:
        """Make the picture again, if it was shown."""
        self.timer = None
        if self.shown:
            bundle, about = self.bundle()
            update_display(bundle, metadata=about, raw=True, display_id=self.name)

    def update_soon(self, request: Callable[[Callable[[], None]], None]) -> None:
        """Have the picture made again after a pause, by way of ``request``; what is asked for meanwhile is included."""
        if self.shown and self.timer is None:
            self.timer = Timer(PAUSE, lambda: request(self.update))
            self.timer.daemon = True
            self.timer.start()

    def bundle(self) -> tuple[dict, dict]:
        """The picture by its kind, and what is to be said about it."""
        kind, content = self.make()
        text = base64.b64encode(marked(kind, content, self.name)).decode()
        return {kind: text, "text/plain": self.text}, {kind: {"alt": self.text}}


def marked(kind: str, content: bytes, name: str) -> bytes:
    """A PNG or JPEG file with a comment, in a place where `mark_of` finds it again in base64."""
    start = comment_start(kind)
    return content[:start] + comment(kind, name) + content[start:]


def marks_of(name: str) -> list[str]:
    """What the base64 of a marked picture contains, by which the page finds it."""
    png, jpeg = comment("image/png", name), comment("image/jpeg", name)[1:]  # both begin at a multiple of 3
    return [base64.b64encode(part[: len(part) // 3 * 3]).decode() for part in (png, jpeg)]


def comment_start(kind: str) -> int:
    return 33 if kind == "image/png" else 2  # behind the header of the file


def comment(kind: str, name: str) -> bytes:
    if kind == "image/png":
        data = b"tEXt" + b"ganlens\0" + name.encode()
        return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    data = b"ganlens " + name.encode()
    return b"\xff\xfe" + struct.pack(">H", len(data) + 2) + data
