"""The state of a dissection on disk, so that nothing is lost and nothing is asked twice."""

import glob
import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout

from ganlens import __version__
from ganlens.files import check_targets, read_arrays, with_header, write_arrays, write_atomically
from ganlens.models.code_hash import content_of
from ganlens.models.files.published import cache_folder
from ganlens.statistics import STATISTICS

FORMAT = 1
EVERY = 30.0  # seconds between two savings
SHARE = 0.02  # of the time that may be spent on saving


def asked(generator, segmenter, question) -> dict:
    """All that decides the answer to a question, as JSON has it: content of the networks, settings, versions."""
    shapes = {layer: list(generator.layers[layer]) for layer in question.layers}
    networks = {
        "generator": f"{generator.fingerprint}-{content_of(generator.net, generator.inputs, generator.output)}",
        "settings of the generator": generator.settings,
        "segmenter": f"{segmenter.fingerprint}-{content_of(segmenter)}",
        "concepts": [list(concept) for concept in segmenter.concepts],
        "layers": shapes,
        "image": list(generator.image_shape),
        "device": generator.device.type,
    }
    settings = {name: value for name, value in vars(question).items() if name != "layers"}
    versions = {"ganlens": __version__, "statistics": STATISTICS, "torch": torch.__version__}
    return json.loads(json.dumps(networks | settings | versions))


def cached(cache: Literal[True] | str | Path, question: dict) -> Path:
    """The file of a question in the cache: a folder, or True for the usual one."""
    folder = cache_folder() / "dissections" if cache is True else Path(cache).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
    return folder / f"{key}.npz"


class Checkpoint:
    """A file with the state of one dissection; nobody else may use it meanwhile.

    Parameters
    ----------
    path : path
        The file; beside it, ``path.lock`` belongs to the process that works on it, as long as that lives.
    question : dict
        From `asked`.

    Raises
    ------
    OSError
        The file cannot be written, or another process works on it.
    ValueError
        There is a file that is damaged, no checkpoint, or that of another dissection; it is left as it is.
    """

    def __init__(self, path: str | Path, question: dict):
        self.path, self.question = Path(path).expanduser(), question
        self.saved, self.cost = time.monotonic(), 0.0
        self.lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))

    def __enter__(self) -> "Checkpoint":
        check_targets([self.path], replace=True)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise OSError(
                f"{self.path} is in use: another dissection works on it; wait for it, or give another checkpoint"
            ) from None
        for partial in self.path.parent.glob(f".{glob.escape(self.path.name)}.????????"):
            partial.unlink(missing_ok=True)  # of a process that was killed while it saved
        return self

    def __exit__(self, *error) -> None:
        self.lock.release()

    def load(self) -> dict[str, np.ndarray] | None:
        """The state in the file; None if there is no file."""
        try:
            header, state = read_arrays(self.path, "checkpoint of a dissection")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{error}; it was left as it is: delete it, or give another checkpoint") from error
        known = isinstance(header, dict) and header.get("checkpoint") == FORMAT and "done" in state
        if not known or not isinstance(header.get("question"), dict):
            raise ValueError(f"{self.path} is no checkpoint of this ganlens; it was left as it is: give another one")
        other = [name for name, value in self.question.items() if header["question"].get(name) != value]
        if other or header["question"].keys() != self.question.keys():
            theirs = {name: header["question"].get(name) for name in other}
            said = ", ".join(
                f"{name} {shortened(v)}, not {shortened(self.question[name])}" for name, v in theirs.items()
            )
            raise ValueError(
                f"{self.path} is the checkpoint of another dissection ({said}); it was left as it is: "
                "ask what was asked then, or give another checkpoint"
            )
        return state

    def save(self, state: dict[str, np.ndarray]) -> None:
        """Replace what is in the file."""
        begun = time.monotonic()
        header = {"checkpoint": FORMAT, "question": self.question}
        write_atomically(self.path, lambda file: write_arrays(file, with_header(header, state)))
        self.saved = time.monotonic()
        self.cost = self.saved - begun

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved > max(EVERY, self.cost / SHARE)

    def try_to_save(self, state: dict[str, np.ndarray]) -> None:
        """Save, or say that this was not possible: work that is done is not given up for it."""
        try:
            self.save(state)
        except OSError as error:
            self.saved = time.monotonic()
            warnings.warn(f"{error}. The dissection goes on; what it found since is only in memory", stacklevel=2)


def shortened(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
