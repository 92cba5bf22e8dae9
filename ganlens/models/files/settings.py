"""Settings that publishers keep in a file of JSON beside the weights."""

import json
from pathlib import Path
from typing import Any

from ganlens.models.files.pickles import CheckpointError

MOST_BYTES = 2**20


def settings_beside(path: Path) -> dict[str, Any]:
    """What a file of settings beside a checkpoint says; empty where there is none.

    It has the checkpoint's name and ``.json``; or, as Hugging Face's libraries write it, ``config.json`` in place of
    ``pytorch_model.bin``, with the same words in front; or it is the hidden ``.config.json`` of lucidrains' folders.

    Raises
    ------
    CheckpointError
        There is one, and it is damaged.
    """
    front = path.stem.removesuffix("pytorch_model").removesuffix("model")
    usual = [path.with_suffix(".json"), path.with_name(f"{front}config.json"), path.with_name("config.json")]
    for candidate in (*usual, path.with_name(".config.json"), path.parent.parent / ".config.json"):
        if not candidate.is_file() or candidate == path:
            continue
        if candidate.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{candidate}, beside {path.name}, is larger than any file of settings")
        try:
            found = json.loads(candidate.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            reason = "nested without end" if isinstance(error, RecursionError) else error
            raise CheckpointError(f"{candidate}, beside {path.name}, is no JSON ({reason}); mend or move it") from error
        if isinstance(found, dict):
            return found
    return {}
