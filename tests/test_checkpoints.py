"""Checkpoints are read as data: what asks for more is refused by name, and nothing that is in a file is executed.

``python tests/test_checkpoints.py 2000`` runs the fuzz test with that many mutations of each file.
"""

import io
import os
import pickle
import random
import resource
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.models.checkpoints import CheckpointError, read, state_of, walk
from ganlens.models.inert import Array, Record, Storage, Stored
from ganlens.models.pickles import Limits, Machine

DATA = Path(__file__).parent / "data"
FILES = sorted([*DATA.glob("*.pth"), *DATA.glob("*.pt"), *DATA.glob("*.pkl")])
FUZZED = [DATA / "proggan_32.pth", DATA / "stylegan2ada_32.pkl"]


@pytest.fixture
def watched(monkeypatch):
    """Fail if anything is run, imported or unpickled by Python's own means."""
    watching(monkeypatch.setattr)


def watching(replace) -> None:
    def forbidden(*args, **kwargs):
        raise SystemError(f"executed: {args!r:.80}")

    for module, names in {
        os: ["system", "popen", "execv", "remove", "fork"],
        pickle: ["load", "loads", "Unpickler", "_Unpickler"],
        torch: ["load"],
        __import__("subprocess"): ["Popen", "run"],
        __import__("importlib"): ["import_module"],
        __import__("socket"): ["socket"],
    }.items():
        for name in names:
            replace(module, name, forbidden)


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.value = function, arguments

    def __reduce__(self):
        return self.value


class TestReading:
    @pytest.mark.parametrize("path", [p for p in FILES if p.suffix != ".pkl"], ids=lambda path: path.name)
    def test_as_torch_reads_it(self, path, watched):
        expected = torch_load(path, weights_only=True)
        assert same(read(path), expected)

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

        state = torch_load(DATA / "proggan_32.pth", weights_only=True)
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


torch_load = torch.load  # kept, because tests replace it


def same(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        found = found.load()
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], v) for k, v in expected.items())
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


CALLS = {
    "os.system": (Call(os.system, "touch MARK"), r"(posix|nt)\.system"),
    "eval": (Call(eval, "open('MARK', 'w')"), "builtins.eval"),
    "exec": (Call(exec, "open('MARK', 'w')"), "builtins.exec"),
    "import": (Call(__import__, "antigravity"), "builtins.__import__"),
    "getattr": (Call(getattr, "x", "upper"), "builtins.getattr"),
    "open": (Call(open, "MARK", "w"), r"(_io|io)\.open"),
    "Popen": (Call(__import__("subprocess").Popen, "touch MARK"), r"(subprocess|commands)\.Popen"),
    "loads": (Call(pickle.loads, pickle.dumps(Call(os.system, "touch MARK"))), r"pickle\.loads"),
    "torch.load": (Call(torch.load, "other.pth"), r"torch\.serialization\.load"),
    "a module": (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
}


class TestHostile:
    @pytest.fixture(autouse=True)
    def nothing_runs(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        yield
        assert not Path("MARK").exists()

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("container", ["zip", "legacy", "protocol 0", "protocol 2", "protocol 4", "nested"])
    def test_calls_are_refused_by_name(self, name, container, monkeypatch):
        hostile, message = CALLS[name]
        write(Path("file"), {"fine": [1], "g_ema": hostile}, container)
        watching(monkeypatch.setattr)
        message = message.replace("builtins", "(builtins|__builtin__)")
        with pytest.raises(CheckpointError, match=rf"not read: it asks for .*{message}.*nothing was executed"):
            gl.load_generator("file")

    def test_all_names_are_said(self):
        write(Path("file"), [call for call, _ in CALLS.values()], "protocol 4")
        with pytest.raises(CheckpointError) as caught:
            read("file")
        assert all(name in str(caught.value) for name in ("builtins.eval", "builtins.exec", "subprocess.Popen"))

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"cos\nsystem\n(S'touch MARK'\ntR.", "os.system"),
            (b"(S'touch MARK'\nios\nsystem\n.", "os.system"),
            (b"(cos\nsystem\nS'touch MARK'\no.", "os.system"),
            (b"\x80\x02cos\nsystem\nX\x0a\0\0\0touch MARK\x85\x81.", "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"\x80\x04\x8c\x02os\x8c\x0bpath.exists\x93.", "os.path.exists"),
            (b"\x80\x02ccollections\nOrderedDict.__class__\n.", "OrderedDict.__class__"),
            (b"\x80\x02ctorch\nload\n)R.", "torch.load"),
            (b"\x80\x02\x82\x01.", "unknown code"),  # a registered extension
            (b"\x80\x05\x97.", "unknown code"),  # an out-of-band buffer
            (b"\x80\x02cargparse\nNamespace\n)\x81ccollections\nOrderedDict\nb.", "no dict"),
            (b"\x80\x02ctorch\nFloatStorage\n)R.", "asks for torch.FloatStorage"),
            (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "OrderedDict in an unknown way"),
            (b"\x80\x02K\x01K\x02R.", "it calls a int"),
            (b"\x80\x02Q.", "a value is missing"),
            (b"\x80\x02K\x01Q.", "outside of the file"),
            (b"\x80\xff.", "protocol 255"),
        ],
    )
    def test_written_by_hand(self, raw, message):
        Path("file").write_bytes(raw)
        with pytest.raises(CheckpointError, match=message.replace(".", r"\.")):
            read("file")

    @pytest.mark.parametrize(
        "raw",
        {
            "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
            "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
            "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.",
            "a negative length": b"\x80\x02T" + struct.pack("<i", -5) + b"x.",
            "a number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
            "digits": b"I" + b"9" * 9_000_000 + b"\n.",
            "a memo index": b"\x80\x02Nr\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff.",
            "a frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N",
            "marks": b"\x80\x02" + b"(" * 500_000 + b".",
            "nested lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"Q.",
            "doubling keys": b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0Ns.",
            "doubling calls": b"\x80\x02]q\0" + b"(h\0h\0lq\0" * 60 + b"ctorch\nSize\nh\0h\0\x86R.",
            "long lists copied": b"\x80\x02]("
            + b"N" * 9999
            + b"eq\0"
            + b"c__builtin__\nset\nh\0\x85R" * 100_000
            + b".",
            "a key of a gigabyte": b"\x80\x02}\x8b" + struct.pack("<i", 17) + b"\xff" * 17 + b"Ns.",
        }.items(),
        ids=lambda item: item[0],
    )
    def test_bombs(self, raw):
        Path("file").write_bytes(raw[1])
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(CheckpointError):
            read("file")
        assert time.perf_counter() - start < 8
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes

    @pytest.mark.parametrize("container", ["zip", "legacy"])
    @pytest.mark.parametrize(
        ("shape", "stride"),
        [
            ((2**14, 2**14), (2**14, 1)),
            ((2**30,), (0,)),
            ((4,), (2**40,)),
            ((2**63, 0), (1, 1)),
            ((-4,), (1,)),
            ((2,) * 60, (0,) * 60),
        ],
    )
    def test_claims_of_gigabytes(self, container, shape, stride):
        """A storage of four numbers, and a tensor that says it is large."""
        claim = Claim(shape, stride, torch.zeros(4))
        write(Path("file"), {"layer1.conv.weight": claim, "layer1.wscale.b": claim}, container)
        with pytest.raises(CheckpointError, match=r"claims shape|is none"):
            read("file")

    def test_storages_that_are_not_there(self):
        """The archive says that a storage has a hundred times the numbers that it has."""
        torch.save({"x": torch.zeros(10)}, "file")
        swap("file", b"K\x0at", b"K\xfat")
        with pytest.raises(CheckpointError, match="claims 250 numbers, but 40 bytes are there"):
            read("file")

    def test_many_views_of_one_storage(self):
        part = torch.zeros(500_000)
        torch.save({f"main.{i}.weight": part.view(1, 1, 500, 1000) for i in range(100)}, "file")
        with pytest.raises(CheckpointError, match="claim far more than the file holds"):
            gl.load_generator("file")

    def test_zip_bombs(self):
        with zipfile.ZipFile("file", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(100_000_000))
        with pytest.raises(CheckpointError, match="compressed zip file"):
            read("file")

    def test_overlapping_members(self):
        """Directory entries that all point at one member."""
        with zipfile.ZipFile("file", "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02N." + bytes(100_000))
            archive.filelist += [entry(archive.filelist[0], f"a/data/{i}") for i in range(50)]
            archive._didModify = True
        with pytest.raises(CheckpointError, match="claims more than it holds"):
            read("file")

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
    def test_cut_off(self, path, share):
        content = path.read_bytes()
        Path("file").write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match="file was not read"):
            gl.load_generator("file")

    def test_networks_that_grow(self):
        """Small files that describe images of a billion pixels."""
        layers = {f"layer{i}": (4 if i == 1 else 3) for i in range(1, 41)}
        state = {f"{name}.conv.weight": torch.zeros(1, 1, side, side) for name, side in layers.items()}
        torch.save(state | {f"{name}.wscale.b": torch.zeros(1) for name in layers}, "file")
        with pytest.raises(CheckpointError, match="it has 40 layers"):
            gl.load_generator("file")
        state = {f"{3 * i}.weight": torch.zeros(1, 1, 4, 4) for i in range(12)}
        torch.save(state, "file")
        assert max(gl.load_generator("file").image_shape) <= 512

    def test_modules_without_end(self):
        inner = Record("Loop")
        inner.state = {"_modules": {"a": inner, "b": inner}}
        with pytest.raises(CheckpointError, match="nested too deeply"):
            state_of(inner)


class Claim:
    """Pickled, a tensor of any shape and stride over the storage of another one."""

    def __init__(self, shape, stride, tensor):
        self.value = torch._utils._rebuild_tensor_v2, (tensor._typed_storage(), 0, shape, stride, False, OrderedDict())

    def __reduce__(self):
        return self.value


def write(path: Path, content, container: str) -> None:
    if container.startswith("protocol"):
        path.write_bytes(pickle.dumps(content, int(container[-1])))
    elif container == "nested":  # inside of a storage, as in NVIDIA's files
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(pickle.dumps(Call(torch.storage._load_from_bytes, buffer.getvalue())))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")


def swap(path: str, old: bytes, new: bytes) -> None:
    """Replace bytes of the pickle in an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            assert not name.endswith("data.pkl") or old in content
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


def entry(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = zipfile.ZipInfo(name)
    for what in ("header_offset", "file_size", "compress_size", "CRC"):
        setattr(other, what, getattr(info, what))
    return other


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
            ({"synthesis.L0_36_512.weight": torch.zeros(4), "mapping.w_avg": torch.zeros(4)}, r"NVIDIA\), but missing"),
        ],
    )
    def test_nothing_fits(self, tmp_path, content, message):
        torch.save(content, tmp_path / "file")
        with pytest.raises(CheckpointError, match=rf"(?s){message}.*Known are: Progressive GAN"):
            gl.load_generator(tmp_path / "file")

    def test_scenes_takes_no_options(self):
        with pytest.raises(ValueError, match="scenes has neither truncation nor classes"):
            gl.load_generator("scenes", truncation=0.5)


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
    torch_load_ = torch_load(path, weights_only=True)
    torch.save(torch_load_, buffer, _use_new_zipfile_serialization=False)
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
    return {path.name: path.read_bytes() for path in FUZZED} | {"legacy": without_checksums(FUZZED[0])}


@pytest.mark.parametrize("name", list(contents()))
def test_fuzz(name, tmp_path, watched):
    counts = fuzz(tmp_path / "file", contents_once[name], range(120))
    assert counts["refused"] > 20
    assert counts["slowest ms"] < 5000


contents_once = contents()

if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    watching(setattr)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents_once.items():
            print(name, fuzz(Path(folder) / "file", content, range(1000, 1000 + int(sys.argv[1]))), flush=True)
