"""Downloads from a real server on this machine: slow, broken, changed, stubborn, gone; by one process and by two."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ganlens.models.files import download as module
from ganlens.models.files.download import DownloadError, download
from ganlens.models.files.reading import CheckpointError

ROOT = Path(__file__).parents[3]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one content under every path, and remembers what it was asked and what it gave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.validator = {"ETag": '"one"'}
        self.ranges = True  # whether it knows Range
        self.length = True  # whether it says how much comes
        self.breaks = []  # bytes after which the next answers break off
        self.statuses = []  # of the next answers, other than 200
        self.pause = 0.0  # seconds between pieces of 8192 bytes
        self.stall = False  # whether it stops in the middle, and keeps the connection
        self.asked, self.given = [], []  # Range headers; bytes of each answer
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/net.pth"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # a client may be gone
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        server.given.append(0)
        index = len(server.given) - 1
        self.close_connection = True
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start, size = 0, len(server.content)
        if wanted and server.ranges and self.headers["If-Range"] in server.validator.values():
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        for name, value in server.validator.items():
            self.send_header(name, value)
        if server.length:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        end = min(size, start + server.breaks.pop(0)) if server.breaks else size
        for at in range(start, end, 8192):
            piece = server.content[at : min(at + 8192, end)]
            self.wfile.write(piece)
            self.wfile.flush()
            server.given[index] += len(piece)
            if server.stall and at > size / 2:
                server.closing.wait()
            time.sleep(server.pause)


@contextlib.contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01, 0.01))
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "net.pth"


def get(server, path, sha256=SHA):
    return download(server.url, path, sha256, progress=False)


def part_of(path: Path) -> Path:
    return path.with_name("net.pth.part")


def whole(path: Path) -> bool:
    """The file is as it should be, and nothing else is there that has bytes in it."""
    others = [p.name for p in path.parent.iterdir() if p != path and p.stat().st_size]
    return path.read_bytes() == CONTENT and others == []


class TestAnswers:
    def test_whole(self, server, path):
        assert get(server, path) == path
        assert whole(path)
        assert server.asked == [None]

    def test_bar_counts_bytes(self, server, path, capsys):
        server.breaks = [100_000]
        download(server.url, path, SHA)
        out, err = capsys.readouterr()
        assert out == ""
        assert "net.pth: 100%" in err
        assert "293k/293k" in err

    def test_no_bar(self, server, path, capsys):
        get(server, path)
        assert capsys.readouterr() == ("", "")

    def test_slow(self, server, path):
        server.pause = 0.01
        get(server, path)
        assert whole(path)

    def test_unknown_length(self, server, path):
        server.length = False
        get(server, path)
        assert whole(path)

    @pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
    def test_broken_and_resumed(self, server, path, validator):
        """The second request asks only for the rest."""
        server.validator, server.breaks = validator, [100_000]
        get(server, path)
        assert whole(path)
        assert server.asked == [None, "bytes=100000-"]
        assert server.given == [100_000, 200_000]

    def test_broken_many_times(self, server, path):
        """As long as something new comes."""
        server.breaks = [30_000] * 9
        get(server, path)
        assert whole(path)
        assert sum(server.given) == len(CONTENT)

    def test_broken_for_good_and_resumed_by_the_next_call(self, server, path):
        server.breaks = [100_000, 0, 0, 0, 0, 0]
        with pytest.raises(DownloadError, match=r"broke after 100000 of 300000 bytes; 100000 bytes are kept") as caught:
            get(server, path)
        assert f"Fetch {server.url} by hand and put it at {path};" in str(caught.value)
        assert not path.exists()
        assert len(server.asked) == 5
        server.breaks = []
        get(server, path)
        assert whole(path)
        assert server.asked[-1] == "bytes=100000-"

    def test_stalled(self, server, path, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE", 0.2)
        server.stall = True
        get(server, path)
        assert whole(path)
        assert len(server.asked) > 1

    def test_range_is_ignored(self, server, path):
        server.ranges, server.breaks = False, [100_000]
        get(server, path)
        assert whole(path)
        assert server.given == [100_000, 300_000]

    def test_range_is_ignored_and_every_answer_breaks(self, server, path):
        server.ranges, server.breaks = False, [100_000] * 99
        with pytest.raises(DownloadError, match="100000 of 300000"):
            get(server, path)
        assert len(server.asked) == 5

    @pytest.mark.parametrize("validator", [{}, {"ETag": 'W/"weak"'}])
    def test_without_a_version_it_starts_anew(self, server, path, validator):
        server.validator, server.breaks = validator, [100_000]
        get(server, path)
        assert whole(path)
        assert server.asked == [None, None]

    def test_changed_between_the_parts(self, server, path):
        server.content, server.breaks = bytes(300_000), [100_000, 0, 0, 0, 0]
        with pytest.raises(DownloadError):
            get(server, path)
        server.content, server.validator, server.breaks = CONTENT, {"ETag": '"two"'}, []
        get(server, path)
        assert whole(path)
        assert server.given[-1] == 300_000

    def test_changed_and_the_server_does_not_care(self, server, path):
        """It gives the rest of another file, but says that it is another one."""
        server.breaks = [100_000, 0, 0, 0, 0]
        with pytest.raises(DownloadError):
            get(server, path)
        part_of(path).write_bytes(bytes(100_000))
        server.validator, server.breaks = {"Last-Modified": '"one"', "ETag": '"two"'}, []
        get(server, path)
        assert whole(path)
        assert server.asked[-2:] == ["bytes=100000-", None]

    def test_became_shorter(self, server, path):
        server.content, server.breaks = CONTENT + bytes(9), [300_005, 0, 0, 0, 0]
        with pytest.raises(DownloadError):
            get(server, path)
        server.content = CONTENT
        get(server, path)
        assert whole(path)

    def test_killed_between_the_last_byte_and_the_check(self, server, path):
        path.parent.mkdir()
        part_of(path).write_bytes(CONTENT)
        part_of(path).with_name("net.pth.part.tag").write_text('"one"')
        get(server, path)
        assert whole(path)
        assert server.given == [0]

    def test_part_of_unknown_origin(self, server, path):
        path.parent.mkdir()
        part_of(path).write_bytes(b"what is this?")
        get(server, path)
        assert whole(path)
        assert server.asked == [None]

    def test_wrong_hash(self, server, path):
        with pytest.raises(CheckpointError, match=rf"its SHA-256 is {SHA}, and should begin with 0badcafe; nothing"):
            get(server, path, "0badcafe")
        assert [p for p in path.parent.iterdir() if p.stat().st_size] == []
        get(server, path, SHA[:8].upper())
        assert whole(path)

    @pytest.mark.parametrize("status", [404, 403, 410])
    def test_not_there(self, server, path, status):
        server.statuses = [status]
        with pytest.raises(DownloadError, match=rf"the server answers {status}.*Fetch {server.url} by hand and put"):
            get(server, path)
        assert len(server.asked) == 1

    def test_busy(self, server, path):
        server.statuses = [503, 429]
        get(server, path)
        assert whole(path)

    def test_refused(self, server, path):
        with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/net.pth"
        with pytest.raises(DownloadError, match=rf"cannot be reached: .*refused.*Fetch {url} by hand and put it at"):
            download(url, path, progress=False)

    def test_no_such_server(self, server, path):
        with pytest.raises(DownloadError, match="cannot be reached"):
            download("http://nowhere.invalid/net.pth", path, progress=False)

    def test_larger_than_any_generator(self, server, path):
        server.content = Endless()
        with pytest.raises(DownloadError, match=r"it has [\d,]+ bytes; at most 4,294,967,296 are loaded"):
            get(server, path)

    def test_no_room(self, server, path, monkeypatch):
        monkeypatch.setattr("ganlens.models.files.download.MOST", 2**63)
        server.content = Endless()
        with pytest.raises(DownloadError, match=f"it has {2**62} bytes, and .* has room for"):
            get(server, path)


class Endless(bytes):
    """A file that says that it is large."""

    def __len__(self):
        return 2**62

    def __getitem__(self, item):
        return bytes(8192)


class TestFolders:
    def test_no_folder_can_be(self, server, tmp_path):
        (tmp_path / "file").touch()
        target = tmp_path / "file" / "cache" / "net.pth"
        with pytest.raises(
            DownloadError, match=rf"cannot be stored \(.*Not a directory\)\. Fetch .* put it at {target}"
        ):
            get(server, target)
        assert server.asked == []

    @pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no users")
    def test_read_only(self, server):
        """Also for root, who may write everywhere, and is somebody else here."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o555)
            user = os.geteuid()
            if user == 0:
                os.seteuid(65534)
            try:
                with pytest.raises(DownloadError, match=r"cannot be stored \(.*Permission denied\).*GANLENS_CACHE"):
                    get(server, Path(folder) / "net.pth")
            finally:
                os.seteuid(user)
                os.chmod(folder, 0o755)
        assert server.asked == []

    def test_full_disk(self, server, path):
        """No file may become larger than 100,000 bytes; what came is kept, and with room again the rest comes."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
        with start(server, path, limit) as process:
            _, err = process.communicate(timeout=60)
        assert "DownloadError" in err
        assert (
            f"cannot be stored ({path.parent}: File too large). Fetch {server.url} by hand and put it at {path}" in err
        )
        assert part_of(path).stat().st_size == 100_000
        get(server, path)
        assert whole(path)
        assert server.asked[-1] == "bytes=100000-"


def start(server, path, first: str = "") -> subprocess.Popen:
    """Another process that downloads."""
    code = f"{first}\nfrom pathlib import Path\nfrom ganlens.models.files.download import download\n"
    code += f"print('ready', flush=True)\ndownload({server.url!r}, Path({str(path)!r}), {SHA!r})\nprint('done')"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code], cwd=ROOT, **pipes)


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestProcesses:
    def test_two_at_once(self, server, path):
        """Every byte is sent once."""
        server.pause = 0.03
        with start(server, path) as one, start(server, path) as two:
            ends = [process.communicate(timeout=60) for process in (one, two)]
        assert [out for out, _ in ends] == ["ready\ndone\n"] * 2
        assert whole(path)
        assert server.given == [300_000]

    def test_two_threads(self, server, path):
        server.pause = 0.002
        threads = [threading.Thread(target=get, args=(server, path)) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert whole(path)
        assert server.given == [300_000]

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_stopped_in_the_middle(self, server, path, how):
        """The lock ends with its process, what came is kept, and the next call asks for the rest."""
        server.pause = 0.1
        with start(server, path) as process:
            wait_for(lambda: part_of(path).is_file() and part_of(path).stat().st_size > 20_000)
            process.send_signal(how)
            out, err = process.communicate(timeout=60)
        assert out == "ready\n"
        assert not path.exists()
        have = part_of(path).stat().st_size
        if how == signal.SIGINT:
            assert f"KeyboardInterrupt: {have} bytes of {server.url} are kept; the next call goes on from there" in err
        server.pause = 0
        get(server, path)
        assert whole(path)
        assert server.asked == [None, f"bytes={have}-"]
        assert server.given[1] == len(CONTENT) - have

    def test_the_one_that_waits_takes_over(self, server, path):
        server.pause = 1
        with start(server, path) as one:
            wait_for(lambda: part_of(path).is_file() and part_of(path).stat().st_size > 0)
            with start(server, path) as two:
                assert two.stderr.readline() == "net.pth is being downloaded by another process; waiting for it\n"
                one.kill()
                one.communicate()
                server.pause = 0
                out, err = two.communicate(timeout=60)
        assert out == "ready\ndone\n", err
        assert whole(path)
        assert server.asked[1].startswith("bytes=")
