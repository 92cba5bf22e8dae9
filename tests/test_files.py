"""Files are written whole or not at all, also on a disk that is really full."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ganlens.files import check_targets, write_atomically

ROOT = Path(__file__).parent.parent


def test_writes(tmp_path):
    for content in (b"first", b"", b"\0" * 100_000):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    write_atomically(str(tmp_path / "other"), b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]


def test_who_is_reading_goes_on_reading(tmp_path):
    """The old content is replaced, not written over."""
    write_atomically(tmp_path / "file", b"old")
    with open(tmp_path / "file", "rb", buffering=0) as file:
        write_atomically(tmp_path / "file", b"new")
        assert file.read() == b"old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_has_the_usual_rights(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


class TestTargets:
    def test_new_files_are_not_made(self, tmp_path):
        check_targets([tmp_path / "a", tmp_path / "b"], replace=False)
        assert list(tmp_path.iterdir()) == []

    def test_existing_files(self, tmp_path):
        (tmp_path / "a").touch()
        with pytest.raises(FileExistsError, match="a exists and was left as it is"):
            check_targets([tmp_path / "a"], replace=False)
        check_targets([tmp_path / "a"], replace=True)

    @pytest.mark.parametrize(("targets", "sources"), [(["a", "folder/../a"], []), (["a"], ["a"]), (["a"], ["link"])])
    def test_one_name_twice(self, targets, sources, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("a")
        with pytest.raises(ValueError, match="given twice"):
            check_targets([tmp_path / name for name in targets], True, [tmp_path / name for name in sources])

    @pytest.mark.parametrize("name", ["folder", "nowhere/a", "x" * 250])
    def test_what_takes_no_file(self, name, tmp_path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match=r"is no ordinary file|cannot be written"):
            check_targets([tmp_path / name], replace=True)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*file was not written: .*nothing was changed"):
        write_atomically(tmp_path / "nowhere" / "file", b"x")


def test_where_a_folder_is(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file was not written"):
        write_atomically(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_interrupted(tmp_path, monkeypatch):
    """An interrupt before the replacement leaves the old file, and nothing else."""

    def interrupt(*args):
        raise KeyboardInterrupt

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


WRITE = """if True:
    import resource, sys
    from pathlib import Path
    from ganlens.files import write_atomically
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    write_atomically(folder / "file", b"old" * 1000)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write_atomically(folder / "file", b"new" * 100_000)
    except OSError as error:
        print(error)
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_bytes() == b"old" * 1000
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit files")
def test_file_too_large(tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path), "16384"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "file was not written: File too large; nothing was changed" in done.stdout


@pytest.mark.skipif(not shutil.which("unshare"), reason="a small disk of one's own is a matter of Linux")
def test_full_disk(tmp_path):
    """A disk of 64 kB that only this subprocess sees."""
    mounted = f'mount -t tmpfs -o size=64k tmpfs "{tmp_path}"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mounted], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk of their own")
    command = [*inside, f'{mounted} && exec "$0" "$@"', sys.executable, "-c", WRITE, str(tmp_path), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "file was not written: No space left on device; nothing was changed" in done.stdout
    assert list(tmp_path.iterdir()) == []
