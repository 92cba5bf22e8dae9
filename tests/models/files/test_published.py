"""Generators by name and by address: fetched from a server on this machine, kept, checked, listed."""

import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_download import serving

import ganlens as gl
from ganlens.models.files import download
from ganlens.models.files import published as weights
from ganlens.models.files.download import DownloadError
from ganlens.models.files.published import MODELS, cache_folder
from ganlens.models.files.reading import CheckpointError

FIXTURE = Path(__file__).parents[2] / "data" / "proggan_32.pth"
CONTENT = FIXTURE.read_bytes()
SHA = hashlib.sha256(CONTENT).hexdigest()
NAME = "proggan-church"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.01,))
    return tmp_path / "cache"


@pytest.fixture
def server(cache, monkeypatch):
    """A mirror that has a small network under every name."""
    with serving() as server:
        server.content = CONTENT
        monkeypatch.setenv("GANLENS_MIRROR", server.url.removesuffix("/net.pth"))
        yield server


@pytest.fixture
def small(monkeypatch):
    """The published name of a small network: that of the real one, with the hash of this file."""
    model = replace(MODELS[NAME], url=f"https://example.org/models/proggan_churchoutdoor-{SHA[:8]}.pth")
    monkeypatch.setitem(weights.MODELS, NAME, model)
    return model


def same(a, b) -> bool:
    return torch.equal(a.generate(range(2)), b.generate(range(2)))


class TestNames:
    def test_downloaded_once(self, server, cache, small):
        G = gl.load_generator(NAME, progress=False)
        assert G.name == NAME
        assert same(G, gl.load_generator(FIXTURE))
        assert small.path.parent == cache
        assert small.path.read_bytes() == CONTENT
        assert same(gl.load_generator(NAME), G)
        assert len(server.asked) == 1

    def test_goes_on_in_everything_else(self, server, small, S):
        """A loaded generator is dissected, and its file finds it again by name."""
        D = gl.dissect(gl.load_generator(NAME, progress=False), S, "layer3", n=8, progress=False)
        assert D.origin["generator"] in gl.list_models()

    def test_other_content_than_published(self, server, cache):
        """The server has a file of that name, and it is another one."""
        with pytest.raises(CheckpointError, match=f"its SHA-256 is {SHA}, and should begin with 7e701dd5; nothing was"):
            gl.load_generator(NAME, progress=False)
        assert [p for p in cache.iterdir() if p.stat().st_size] == []

    def test_put_there_by_hand(self, cache, small, monkeypatch):
        monkeypatch.setenv("GANLENS_MIRROR", "http://127.0.0.1:9")
        with pytest.raises(DownloadError) as caught:
            gl.load_generator(NAME, progress=False)
        url, path = re.search(r"Fetch (\S+) by hand and put it at (\S+);", str(caught.value)).groups()
        assert url == f"http://127.0.0.1:9/{small.file}"
        Path(path).write_bytes(CONTENT)
        assert same(gl.load_generator(NAME), gl.load_generator(FIXTURE))

    def test_another_file_put_there_by_hand(self, cache, small):
        cache.mkdir()
        small.path.write_bytes(b"what is this?")
        with pytest.raises(CheckpointError, match=rf"{small.path} is not the file .*Delete it, and it will be"):
            gl.load_generator(NAME)
        assert small.path.read_bytes() == b"what is this?"

    def test_read_only_cache_that_has_it(self, cache, small, monkeypatch):
        cache.mkdir()
        small.path.write_bytes(CONTENT)
        cache.chmod(0o555)
        assert gl.load_generator(NAME).name == NAME
        assert list(cache.iterdir()) == [small.path]

    def test_options(self, server, small):
        with pytest.raises(ValueError, match="truncation"):
            gl.load_generator(NAME, truncation=0.5, progress=False)
        with pytest.raises(ValueError, match="sha256 is for files at an address"):
            gl.load_generator(NAME, sha256=SHA)

    def test_every_published_file_says_its_hash(self):
        """Names, bases and hashes as published."""
        known = {m.name: m for m in MODELS.values() if m.url}
        assert len(known) == len({m.url for m in known.values()}) == 23
        for model in known.values():
            assert re.fullmatch(r"[0-9a-f]{8}", model.sha256), model
            assert re.match(r"https://dissect|http://(rewriting|gandissect)", model.url), model
            assert model.source == model.url
        assert MODELS[NAME].url == "https://dissect.csail.mit.edu/models/proggan_churchoutdoor-7e701dd5.pth"
        assert known["stylegan2-places"].url.endswith("/data/models/stylegan2_places-a3b72d71.pt")

    @pytest.mark.parametrize(
        ("given", "meant"),
        [("proggan-churc", "proggan-church"), ("stylegan-cat", "stylegan2-cat"), ("scene", "scenes")],
    )
    def test_unknown(self, given, meant, cache):
        with pytest.raises(ValueError, match=rf"did you mean '{meant}'.*list_models\(\), or .ganlens models., says"):
            gl.load_generator(given)


class TestAddresses:
    def test_not_checked_and_said_so(self, server, cache, capsys):
        G = gl.load_generator(server.url)
        assert G.name == "net"
        assert same(G, gl.load_generator(FIXTURE))
        assert f"{server.url} was not checked" in capsys.readouterr().err
        gl.load_generator(server.url)
        assert capsys.readouterr() == ("", "")
        assert len(server.asked) == 1

    def test_checked(self, server, cache, capsys):
        gl.load_generator(server.url, sha256=SHA)
        assert "not checked" not in capsys.readouterr().err
        with pytest.raises(CheckpointError, match=r"should begin with 0badcafe.*Delete it, and it will be downloaded"):
            gl.load_generator(server.url, sha256="0badcafe")

    @pytest.mark.parametrize("sha256", ["", "7e70", "church07", "0" * 65])
    def test_no_hash(self, server, cache, sha256):
        with pytest.raises(ValueError, match="expected the SHA-256 in hex, or at least its first eight digits"):
            gl.load_generator(server.url, sha256=sha256)
        assert server.asked == []

    def test_two_addresses_are_two_files(self, server, cache):
        for query in ("", "?version=2", "#part"):
            gl.load_generator(server.url + query, progress=False)
        assert sum(p.name.endswith("-net.pth") for p in cache.iterdir()) == 3

    @pytest.mark.parametrize("end", ["", "/", "/..", "/a b/ä.pth", "/%2e%2e%2fx", "/" + "x" * 300])
    def test_names_stay_in_the_cache(self, server, cache, end):
        gl.load_generator(server.url.removesuffix("/net.pth") + end, progress=False)
        assert [p.read_bytes() for p in cache.iterdir() if p.stat().st_size] == [CONTENT]
        assert list(cache.parent.iterdir()) == [cache]

    def test_page_in_place_of_the_file(self, server, cache):
        """As servers send it where one has to sign in."""
        server.content = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"
        with pytest.raises(CheckpointError, match="it is a web page"):
            gl.load_generator(server.url, progress=False)

    def test_other_schemes(self, cache):
        with pytest.raises(FileNotFoundError):
            gl.load_generator("file:///etc/passwd")


class TestCacheFolder:
    def test_chosen(self, monkeypatch, tmp_path):
        monkeypatch.setenv("GANLENS_CACHE", "~/somewhere")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "somewhere"

    @pytest.mark.parametrize(
        ("platform", "variables", "expected"),
        [
            ("linux", {}, "HOME/.cache/ganlens"),
            ("linux", {"XDG_CACHE_HOME": "/var/x"}, "/var/x/ganlens"),
            ("linux", {"XDG_CACHE_HOME": "not/absolute"}, "HOME/.cache/ganlens"),
            ("darwin", {"XDG_CACHE_HOME": "/var/x"}, "HOME/Library/Caches/ganlens"),
            ("win32", {"LOCALAPPDATA": "/local"}, "/local/ganlens"),
            ("win32", {}, "HOME/AppData/Local/ganlens"),
        ],
    )
    def test_of_the_platform(self, platform, variables, expected, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "platform", platform)
        for name in ("GANLENS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HOME": str(tmp_path), **variables}.items():
            monkeypatch.setenv(name, value)
        assert str(cache_folder()) == expected.replace("HOME", str(tmp_path))


class TestList:
    def test_rows(self, cache, small):
        rows = {row["generator"]: row for row in gl.list_models().rows()}
        assert list(rows) == list(MODELS)
        assert rows["scenes"]["where"] == "embedded"
        assert rows["stylegan2-car"]["images"] == "512x512"
        assert rows[NAME]["where"] == "example.org"
        cache.mkdir()
        small.path.write_bytes(CONTENT)
        assert gl.list_models()[NAME].row()["where"] == "cached"

    def test_looks(self, cache):
        known = gl.list_models()
        text, page = repr(known), known._repr_html_()
        assert max(len(line) for line in text.splitlines() if str(cache) not in line) <= 110
        assert re.search(r"^StyleGAN3: StyleGAN3 of NVIDIA", text, re.MULTILINE)
        assert "formats of files" in page
        for name, model in known.items():
            assert re.search(rf"^{name} +{model.family} +", text, re.MULTILINE)
            assert f">{name}</td>" in page
        assert str(cache) in text
        assert str(cache) in page

    def test_scenes_is_what_it_says(self, G):
        assert G.image_shape[1:] == (gl.list_models()["scenes"].size,) * 2
        assert json.dumps(gl.list_models().rows())
