"""Checkpoints are read as data, told from other files, and damaged ones are refused.

``python tests/models/files/test_reading.py 2000`` runs the fuzz test with that many mutations of each file.
"""

import io
import pickle
import random
import struct
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hostile_files import DATA, FILES, watched, watching

import ganlens as gl
from ganlens.models.files.pickles import Limits, Machine
from ganlens.models.files.reading import CheckpointError, read, state_of, walk
from ganlens.models.files.records import Array, Record, Storage, Stored

__all__ = ["watched"]  # a fixture


class TestReading:
    @pytest.mark.parametrize("path", [p for p in FILES if p.suffix != ".pkl"], ids=lambda path: path.name)
    def test_as_torch_reads_it(self, path):
        with watching():
            found = read(path)
        assert same(found, torch.load(path, weights_only=True))

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        "content",
        [
            {
                "a": torch.arange(6).reshape(2, 3),
                "b": [torch.ones(2).half(), (torch.zeros(0), None, True, -5, 2.5, "ä")],
            },
            OrderedDict(
                view=torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)[1:, :, ::2], scalar=torch.tensor(3.5)
            ),
            {
                "types": [
                    torch.ones(3, dtype=t) for t in (torch.bfloat16, torch.bool, torch.int8, torch.uint8, torch.int16)
                ]
            },
            {"parameter": torch.nn.Parameter(torch.ones(2)), "size": torch.Size([1, 2]), 3: b"bytes", "big": 2**70},
            [1e300, {"nested": {"deeper": {}}}, list(range(1500))],
        ],
    )
    def test_what_torch_writes(self, tmp_path, content, zipped):
        torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
        assert same(read(tmp_path / "file"), content)

    @pytest.mark.parametrize("protocol", range(6))
    def test_protocols(self, tmp_path, protocol):
        content = {"a": [1, -2, 300, 70_000, 2**40, 2.5, None, True, False], "b": (), "c": ((1,), (1, 2), (1, 2, 3, 4))}
        content |= {"s": "ä\n'x'", "d": {}, "again": ["x" * 300] * 2, 5: 6}
        (tmp_path / "file").write_bytes(pickle.dumps(content, protocol))
        found = read(tmp_path / "file")
        if protocol == 0:  # its text is written with escapes, which no checkpoint needs
            found["s"] = content["s"]
        assert found == content

    def test_numpy(self, tmp_path):
        content = {
            "a": np.arange(6.0).reshape(2, 3),
            "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "x": np.float32(2.5),
        }
        (tmp_path / "file").write_bytes(pickle.dumps(content))
        found = read(tmp_path / "file")
        assert isinstance(found["a"], Array)
        assert found["x"] == 2.5
        for name in "af":
            np.testing.assert_array_equal(found[name].load(), content[name])

    def test_safetensors(self, tmp_path):
        from safetensors.torch import save_file

        state = torch.load(DATA / "proggan_32.pth", weights_only=True)
        save_file(dict(state), tmp_path / "file")
        expected = gl.load_generator(DATA / "proggan_32.pth").fingerprint
        assert gl.load_generator(tmp_path / "file").fingerprint == expected
        (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-100])
        with pytest.raises(CheckpointError, match="no safetensors file"):
            read(tmp_path / "file")

    def test_persistent_objects_are_records(self, watched):
        """The source code in this file raises SystemError where it is run."""
        module = read(DATA / "stylegan2ada_32.pkl")["G_ema"]
        assert isinstance(module, Record)
        assert module.name == "Generator"
        assert module.get("z_dim") == 32
        names = [path for path, _ in walk(module)]
        assert "synthesis.b8.conv0.affine." in names
        assert list(state_of(module))[:2] == ["synthesis.b4.const", "synthesis.b4.resample_filter"]

    def test_arguments_of_a_training_script(self, tmp_path):
        from argparse import Namespace

        torch.save({"args": Namespace(lr=0.1, size=256)}, tmp_path / "file")
        assert read(tmp_path / "file")["args"].state == {"lr": 0.1, "size": 256}


def same(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        found = found.load()
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], v) for k, v in expected.items())
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class TestMatching:
    def test_no_such_file(self):
        for name in ("missing.pth", Path("missing"), "folder/missing"):
            with pytest.raises(FileNotFoundError, match="there is no file"):
                gl.load_generator(name)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"x": 1}, "It holds no tensors by name"),
            (
                {"encoder.weight": torch.zeros(3), "encoder.bias": torch.zeros(3)},
                "It holds encoder.weight, encoder.bias",
            ),
            (
                {"style.1.weight": torch.zeros(4, 4), "style.1.bias": torch.zeros(4)},
                r"closest to StyleGAN2 \(rosinality\)",
            ),
            (
                {"synthesis.L0_36_512.weight": torch.zeros(4), "mapping.w_avg": torch.zeros(4)},
                r"StyleGAN3, but it is a state dict alone",
            ),
        ],
    )
    def test_nothing_fits(self, tmp_path, content, message):
        torch.save(content, tmp_path / "file")
        with pytest.raises(CheckpointError, match=rf"(?s){message}.*Known are: .*Progressive GAN"):
            gl.load_generator(tmp_path / "file")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "a.npz",
                npz(x=np.zeros(3)),
                r"an archive of numpy .*; a saved dissection is opened by Dissection\.load",
            ),
            ("a.npy", npy(np.zeros(3)), "an array of numpy"),
            ("a.json", b'{"a": [1, 2]}\n', "plain text, no checkpoint"),
            ("a.txt", b"hello\tworld\r\n", "plain text, no checkpoint"),
            ("a.html", b"<!DOCTYPE html>\n<html lang='en'>", "a web page in place of the file"),
            ("a.pth", b"", "empty"),
            ("a.pth", b"\n <HTML><body>\xff", "a web page in place of the file"),
            ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
            ("a.gz", b"\x1f\x8b\x08" + bytes(99), "compressed by gzip"),
            ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "a damaged file of Keras"),
            ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
        ],
    )
    def test_other_kinds_of_files(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name} was not read: it is {message}"):
            gl.load_generator(tmp_path / name)

    def test_whole_network(self, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "file")
        with pytest.raises(CheckpointError, match=r"asks for torch\.nn\..*save its state_dict.*Generator\.wrap"):
            gl.load_generator(tmp_path / "file")

    def test_folder(self, tmp_path):
        for folder in (tmp_path, str(tmp_path)):
            with pytest.raises(ValueError, match=r"it holds no file that ends with \.safetensors"):
                gl.load_generator(folder)

    def test_scenes_takes_no_options(self):
        with pytest.raises(ValueError, match="scenes has neither truncation nor classes"):
            gl.load_generator("scenes", truncation=0.5)
        with pytest.raises(ValueError, match="scenes is no file; leave output and key away"):
            gl.load_generator("scenes", output="tanh")


def test_machine_leaves_the_rest():
    data = pickle.dumps({"a": 1}) + pickle.dumps([2])
    first = Machine(data, 0, {}, (), Limits(len(data)))
    assert first.run() == {"a": 1}
    assert Machine(data, first.at, {}, (), Limits(len(data))).run() == [2]


def test_tensors_are_copies():
    storage = Storage(torch.float32, 2)
    raw = bytearray(struct.pack("<2f", 1, 2))
    storage.fill(memoryview(raw))
    tensor = Stored(storage, 0, (2,), (1,)).load()
    tensor += 1
    assert struct.unpack("<2f", raw) == (1, 2)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, deleted, inserted, doubled or swapped; mostly where the pickle is."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        where = min(int(len(data) * rng.random() ** rng.choice((1, 4))), len(data) - 1)
        size = rng.choice((1, 1, 2, 8, 100))
        kind = rng.randrange(5)
        if kind == 0:
            data[where : where + size] = rng.randbytes(size)
        elif kind == 1:
            del data[where : where + size]
        elif kind == 2:
            data[where:where] = rng.randbytes(size)
        elif kind == 3:
            data[where:where] = data[where : where + size]
        else:
            data[where] = rng.choice(b"R\x81b\x93ci(.0ePQo\x8b\x8e\xff\x00")
    return bytes(data)


def without_checksums(path: Path) -> bytes:
    """The archive as a legacy file, so that mutations are not found by their checksums alone."""
    buffer = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def fuzz(path: Path, content: bytes, seeds: range) -> dict[str, int]:
    """Load mutations of a file; every one is loaded or refused with an error of its own."""
    counts = {"loaded": 0, "refused": 0, "slowest ms": 0}
    for seed in seeds:
        path.write_bytes(mutated(content, random.Random(seed)))
        start = time.perf_counter()
        try:
            gl.load_generator(path)
            counts["loaded"] += 1
        except CheckpointError:
            counts["refused"] += 1
        counts["slowest ms"] = max(counts["slowest ms"], round(1000 * (time.perf_counter() - start)))
    return counts


def contents() -> dict[str, bytes]:
    """Real files of every format, and one of them in two containers more."""
    from safetensors.torch import save

    plain = torch.load(DATA / "proggan_32.pth", weights_only=True)
    more = {"legacy": without_checksums(DATA / "proggan_32.pth"), "safetensors": save(dict(plain))}
    return {path.name: path.read_bytes() for path in FILES} | more


CONTENTS = contents()
MUTATIONS = 350  # of each file


@pytest.mark.parametrize("name", CONTENTS)
def test_fuzz(name, tmp_path, watched):
    assert MUTATIONS * len(CONTENTS) >= 2000
    counts = fuzz(tmp_path / "file", CONTENTS[name], range(MUTATIONS))
    assert counts["refused"] > 60
    assert counts["loaded"] + counts["refused"] == MUTATIONS
    assert counts["slowest ms"] < 5000


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, watching():
        for name, content in CONTENTS.items():
            print(name, fuzz(Path(folder) / "file", content, range(1000, 1000 + int(sys.argv[1]))), flush=True)
