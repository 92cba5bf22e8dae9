"""Settings that publishers keep in a file of JSON beside the weights."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 2**20
DAMAGED = "what is wrong with it"


def settings_beside(path: Path) -> dict[str, Any]:
    """What a file of settings beside a checkpoint says; empty where there is none.

    It has the checkpoint's name and ``.json``; or, as Hugging Face's libraries write it, ``config.json`` in place of
    ``pytorch_model.bin``, with the same words in front; or it is the hidden ``.config.json`` of lucidrains' folders.

    What is wrong with a damaged one is said under ``DAMAGED``, for the families that need it.
    """
    front = path.stem.removesuffix("pytorch_model").removesuffix("model")
    usual = [path.with_suffix(".json"), path.with_name(f"{front}config.json"), path.with_name("config.json")]
    for candidate in (*usual, path.with_name(".config.json"), path.parent.parent / ".config.json"):
        if not candidate.is_file() or candidate == path:
            continue
        if candidate.stat().st_size > MOST_BYTES:
            return {DAMAGED: f"{candidate.name}, beside it, is larger than any file of settings"}
        try:
            found = json.loads(candidate.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            reason = "nested without end" if isinstance(error, RecursionError) else error
            return {DAMAGED: f"{candidate.name}, beside it, is no JSON ({reason}); mend or move it"}
        if isinstance(found, dict):
            return found
    return {}
