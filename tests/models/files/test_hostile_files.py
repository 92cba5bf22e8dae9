"""Files that ask for more than being read are refused by name, and nothing that is in them is executed.

Those that ask for much memory or time are opened by
``python tests/models/files/test_hostile_files.py FILE…``, each in a process with limits, which
prints seconds, megabytes and errors.
"""

import contextlib
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch  # noqa: F401 (so that it is not imported while somebody watches)
import torch

import ganlens as gl
from ganlens.models.files.reading import CheckpointError, read, state_of
from ganlens.models.files.records import Record

DATA = Path(__file__).parents[2] / "data"
FILES = sorted([*DATA.glob("*.pth"), *DATA.glob("*.pt"), *DATA.glob("*.pkl")])


EXECUTION = """compile exec import pickle.find_class os.exec os.fork os.forkpty os.posix_spawn os.remove os.rename
os.spawn os.system shutil.rmtree socket.__new__ subprocess.Popen urllib.Request"""  # of what Python's own audit tells
WATCHERS: list[list] = []


def audit(event: str, arguments: tuple) -> None:
    if WATCHERS and event in EXECUTION.split():
        WATCHERS[-1].append((event, repr(arguments)[:80]))


sys.addaudithook(audit)


@contextlib.contextmanager
def watching():
    """Fail at the end if anything was run, imported or unpickled by Python's own means, also where that was hidden."""
    for path in FILES:  # for what ganlens itself imports when it is first needed
        gl.load_generator(path)
    b"x".decode("cp437")  # the same for zipfile, which reads members' names so
    seen = []
    WATCHERS.append(seen)
    try:
        yield
    finally:
        WATCHERS.remove(seen)
    assert seen == []


@pytest.fixture
def watched():
    with watching():
        yield


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.value = function, arguments

    def __reduce__(self):
        return self.value


CALLS = {
    "os.system": (Call(os.system, "touch MARK"), r"(posix|nt)\.system"),
    "eval": (Call(eval, "open('MARK', 'w')"), "builtins.eval"),
    "exec": (Call(exec, "open('MARK', 'w')"), "builtins.exec"),
    "import": (Call(__import__, "antigravity"), "builtins.__import__"),
    "getattr": (Call(getattr, "x", "upper"), "builtins.getattr"),
    "open": (Call(open, "MARK", "w"), r"(_io|io)\.open"),
    "Popen": (Call(subprocess.Popen, "touch MARK"), r"(subprocess|commands)\.Popen"),
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
    def test_calls_are_refused_by_name(self, name, container):
        hostile, message = CALLS[name]
        write(Path("file"), {"fine": [1], "g_ema": hostile}, container)
        message = message.replace("builtins", "(builtins|__builtin__)")
        refused = pytest.raises(CheckpointError, match=rf"not read: it asks for .*{message}.*nothing was executed")
        with watching(), refused:
            gl.load_generator("file")

    def test_watching_sees_what_is_hidden(self):
        """As torch's own reader does, when it is told to trust a file."""
        torch.save({"g_ema": Call(eval, "1")}, "file")
        with (
            pytest.raises(AssertionError, match=r"pickle\.find_class.*'eval'"),
            watching(),
            contextlib.suppress(Exception),
        ):
            torch.load("file", weights_only=False)

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

    @pytest.mark.slow
    def test_bombs(self):
        """Each is refused by its own process, within memory and time that it may not exceed."""
        files = write_bombs(Path("bombs"))
        command = [sys.executable, "-W", "error", __file__, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = {name: (seconds, megabytes, error) for name, seconds, megabytes, error in json.loads(done.stdout)}
        assert list(found) == [path.name for path in files]
        assert {name: row for name, row in found.items() if not row[2].startswith("CheckpointError: ")} == {}
        assert {name: row for name, row in found.items() if row[0] > 20 or row[1] > MEGABYTES} == {}

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
        with pytest.raises(CheckpointError, match=r"claims shape|invalid shape"):
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

    def test_compressed(self):
        with zipfile.ZipFile("file", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(1_000_000))
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
        state = {f"{3 * i}.weight": torch.zeros(1, 1, 4, 4) for i in range(9)}
        torch.save(state, "file")
        with pytest.warns(UserWarning, match="no batch statistics tell"):
            assert max(gl.load_generator("file").image_shape) <= 512

    def test_modules_without_end(self):
        inner = Record("Loop")
        inner.state = {"_modules": {"a": inner, "b": inner}}
        with pytest.raises(CheckpointError, match="nested too deeply"):
            state_of(inner)


MEGABYTES = 512  # that a bomb may take, beyond what the interpreter has with its packages


def write_bombs(folder: Path) -> list[Path]:
    """Small files that ask for much memory or time."""
    raw = {
        "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.",
        "a negative length": b"\x80\x02T" + struct.pack("<i", -5) + b"x.",
        "a number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        "digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "a memo index": b"\x80\x02Nr\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff.",
        "a large memo": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", i) for i in range(1_200_000)) + b"Q.",
        "a frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N",
        "marks": b"\x80\x02" + b"(" * 500_000 + b".",
        "no end": b"\x80\x02" + b"N0" * 10_000_000,
        "nested lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"Q.",
        "nested tuples": b"\x80\x02N" + b"\x85" * 1_000_000 + b".",
        "doubling keys": b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0Ns.",
        "doubling calls": b"\x80\x02]q\0" + b"(h\0h\0lq\0" * 60 + b"ctorch\nSize\nh\0h\0\x86R.",
        "doubling values": b"\x80\x02]q\0" + b"(h\0h\0lq\0" * 60 + b"}X\1\0\0\0ah\0s.",
        "long lists copied": b"\x80\x02](" + b"N" * 9999 + b"eq\0" + b"c__builtin__\nset\nh\0\x85R" * 100_000 + b".",
        "long text encoded": b"\x80\x02X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\0X\6\0\0\0latin1q\1"
        b"0" + b"c_codecs\nencode\nh\0h\1\x86R" * 100_000 + b".",
        "a key of a gigabyte": b"\x80\x02}\x8b" + struct.pack("<i", 17) + b"\xff" * 17 + b"Ns.",
        "nested pickles": nested_pickles(200),
        "a safetensors header": struct.pack("<Q", 2**40) + b"{",
    }
    folder.mkdir()
    for name, content in raw.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "a compressed zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(20_000_000))
    with zipfile.ZipFile(folder / "a zip of many members", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.filelist += [entry(archive.filelist[0], f"{i}") for i in range(110_000)]
    with open(folder / "a terabyte of nothing", "wb") as file:
        file.truncate(2**40)
    return sorted(folder.iterdir())


def nested_pickles(depth: int) -> bytes:
    """A storage in a storage, and so on."""
    content = b"\x80\x02N."
    for _ in range(depth):
        content = pickle.dumps(Call(torch.storage._load_from_bytes, content))
    return content


def explode(path: Path) -> tuple[float, int, str]:
    """Seconds, megabytes and the error of loading a file, in a process that may take only so many of both."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), open(into, "w") as pipe:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEGABYTES * 2**20,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                error = f"{path.name}: {gl.load_generator(path)}"
            except BaseException as caught:
                error = f"{type(caught).__name__}: {caught}"[:300]
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            json.dump((round(time.perf_counter() - start, 2), used // 1024, error), pipe)
        os._exit(0)
    os.close(into)
    with open(out) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return tuple(json.loads(told or '[0, 0, "it died"]'))


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


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([(Path(path).name, *explode(Path(path))) for path in sys.argv[1:]]))
