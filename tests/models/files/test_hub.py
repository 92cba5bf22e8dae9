"""Generators from a repository of a Hub, served on this machine, and from folders laid out like one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import ganlens as gl
from ganlens.models.files.hub import chosen

DATA = Path(__file__).parents[2] / "data"
ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The part of a Hub's interface that lists and serves files; ``me/biggan`` is one of its repositories."""

    daemon_threads = True

    def __init__(self, files: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {name: path.read_bytes() for name, path in files.items()}
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if path.startswith("/api/models/me/biggan"):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.send(json.dumps({"id": "me/biggan", "sha": COMMIT, "siblings": siblings}).encode(), body)
        name = path.partition("/resolve/")[2].partition("/")[2]
        if path.startswith("/me/biggan/resolve/") and name in self.server.files:
            return self.send(self.server.files[name], body)
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if "/me/biggan/" in path else "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub():
    weights = DATA / "recorded" / "biggan_deep_32"
    files = {"pytorch_model.bin": weights.with_suffix(".bin"), "config.json": weights.with_suffix(".json")}
    files |= {"old/proggan.pth": DATA / "proggan_32.pth", "modeling.py": Path(__file__), "README.md": Path(__file__)}
    server = Hub(files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(hub: Hub, home: Path, code: str, offline: bool = False) -> str:
    """What a new process prints that asks this server."""
    where = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    where |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    lines = [
        "import ganlens as gl",
        "try:",
        f"    print({code})",
        "except (ValueError, OSError) as error:",
        "    print(error)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, env=os.environ | where, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_repository(hub, tmp_path):
    said = ask(hub, tmp_path, "gl.load_generator('hf://me/biggan/pytorch_model.bin', label=3)")
    assert "<Generator biggan (label 3): latent 16" in said
    assert not any(path.endswith(".py") for path in hub.asked)  # no code of the repository is looked at
    asked = len(hub.asked)
    assert "<Generator biggan:" in ask(hub, tmp_path, "gl.load_generator('hf://me/biggan/pytorch_model.bin')", True)
    assert len(hub.asked) == asked
    assert "6 layers" not in ask(hub, tmp_path, "gl.load_generator('hf://me/biggan/old/proggan.pth')")


def test_what_is_said_where_it_fails(hub, tmp_path):
    said = ask(hub, tmp_path, "gl.load_generator('hf://me/biggan')")
    assert "it holds old/proggan.pth, pytorch_model.bin; name the file, such as hf://me/biggan/old/proggan.pth" in said
    assert "did you mean 'pytorch_model.bin'" in ask(
        hub, tmp_path, "gl.load_generator('hf://me/biggan/pytorch_model.pt')"
    )
    assert "there is no repository hf://me/church" in ask(hub, tmp_path, "gl.load_generator('hf://me/church')")
    assert "expected hf://owner/name" in ask(hub, tmp_path, "gl.load_generator('hf://church')")


def test_a_folder(tmp_path):
    shutil.copy(DATA / "recorded" / "biggan_deep_32.bin", tmp_path / "pytorch_model.bin")
    shutil.copy(DATA / "recorded" / "biggan_deep_32.json", tmp_path / "config.json")
    G = gl.load_generator(tmp_path)
    assert (G.name, G.classes) == (tmp_path.name, 10)
    shutil.copy(DATA / "proggan_32.pth", tmp_path / "church.pth")
    with pytest.raises(ValueError, match=r"it holds church\.pth, pytorch_model\.bin; name the file"):
        gl.load_generator(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "README.md"], "model.safetensors"),
        (["cats.pth", "dogs.pth"], None),
        (["model.safetensors", "model.bin"], "model.safetensors"),
        (["G.pth", "G_ema.pth", "D.pth"], "G_ema.pth"),
        (["G.pth", "optimizer.pt", "discriminator.pth"], "G.pth"),
        (["weights/net_g.pkl"], "weights/net_g.pkl"),
        (["README.md"], None),
    ],
)
def test_which_file_is_taken(names, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"hf://a/b: it holds"):
            chosen(names, "hf://a/b")
    else:
        assert chosen(names, "hf://a/b") == expected
