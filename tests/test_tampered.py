"""Files that somebody or a disk has changed: each is refused by its name, or says what the original says."""

import contextlib
import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ganlens as gl

TIMES = 200


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    D = gl.dissect(G, S, "layer2", n=8, rule=["quantile", "iou"], progress=False, checkpoint=folder / "run.npz")
    D["quantile"].save(folder / "dissection.npz")
    gl.context(D["quantile"], "tree", k=2, n=2, stride=4, progress=False).save(folder / "context.npz")
    gl.Recipe.of(G, 3, gl.ablate("layer4", [1, 2])).save(folder / "recipe.json")
    return folder, G, S


def read(kind: str, path: Path, G, S) -> list:
    """All numbers of a file that is taken."""
    if kind == "dissection":
        D = gl.Dissection.load(path, generator=G, segmenter=S)
        return [
            D.on,
            D.overlap,
            D.area,
            D.scope,
            D.top,
            D.thresholds_by_concept,
            D.levels.mean().numpy(),
            str(D.labels),
        ]
    if kind == "context":
        C = gl.Context.load(path)
        return [C.before, C.gained, C.change, C.gain, str(C.edit), str(C.concepts)]
    if kind == "recipe":  # people may write them: what is taken can be replayed, or is refused by what it asks for
        recipe = gl.Recipe.load(path)
        assert gl.Recipe.from_json(recipe.to_json()) == recipe
        with contextlib.suppress(ValueError):
            assert gl.replay(recipe, G).dtype == np.uint8
        return []
    found = gl.dissect(G, S, "layer2", n=8, rule=["quantile", "iou"], progress=False, checkpoint=path)
    return [x for D in found.values() for x in (D.on, D.overlap, D.area, D.top, D.iou)]


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def changed(content: bytes, dice: random.Random, archive: bool) -> bytes:
    """One change: of bytes, of the length, of a member, of an array's numbers, type or shape, of the header."""
    way = dice.randrange(8 if archive else 3)
    if way == 0:
        at = dice.randrange(len(content))
        return content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :]
    if way == 1:
        return content[: dice.randrange(len(content))]
    if way == 2:
        at = dice.randrange(len(content))
        return content[:at] + dice.randbytes(dice.randrange(1, 40)) + content[at + dice.randrange(40) :]
    parts = members(content)
    name = dice.choice(sorted(parts))
    if way == 3:
        del parts[name]
    elif way == 4:
        parts[name], parts[other] = parts[other := dice.choice(sorted(parts))], parts[name]
    elif name == "header.npy":
        header = json.loads(str(np.load(io.BytesIO(parts[name]))))
        key = dice.choice(sorted(header))
        header[key] = dice.choice([None, -1, 2**70, "", "layer9", [], [[1]], {}, True, 0.5, header[key]])
        parts[name] = dumped(np.array(json.dumps(header)))
    else:
        parts[name] = dumped(other_array(np.load(io.BytesIO(parts[name])), dice))
    return packed(parts)


def dumped(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def other_array(array: np.ndarray, dice: random.Random) -> np.ndarray:
    kinds = dice.randrange(4)
    if kinds == 0 and array.size and array.dtype.kind in "iuf":
        array = array.copy()
        array.flat[dice.randrange(array.size)] = dice.choice([0, 1, 7, 100])
        return array
    if kinds == 1:
        with np.errstate(all="ignore"):
            return array.astype(dice.choice([np.float32, np.int8, np.complex64, "U9"]))
    if kinds == 2 and array.ndim:
        return array[:-1]
    return array[None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dissection", "context", "recipe", "run"])
def test_changed_files_are_refused_or_say_the_same(lab, kind, tmp_path):
    folder, G, S = lab
    (original,) = (path for path in folder.glob(f"{kind}.*") if path.suffix in (".npz", ".json"))
    content = original.read_bytes()
    expected, dice, refused = read(kind, original, G, S), random.Random(kind), []
    path = tmp_path / original.name
    for _ in range(TIMES):
        path.write_bytes(changed(content, dice, original.suffix == ".npz"))
        found, why = taken(kind, path, G, S)
        refused.append(why)
        for a, b in zip(found, expected if found else [], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len([why for why in refused if why]) > TIMES / 2
    assert [why for why in refused if why and original.name not in why] == []


def taken(kind: str, path: Path, G, S) -> tuple[list, str]:
    """What a file gives, and why it is refused."""
    try:
        return read(kind, path, G, S), ""
    except ValueError as error:
        return [], str(error)
