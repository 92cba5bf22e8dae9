"""What the files around the package promise: one truth for each fact, and nothing tied to one machine."""

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read_string(read("setup.cfg"))
    return config


@pytest.fixture(scope="module")
def project_files() -> list[Path]:
    """Every file that is tracked, or would be by `git add .`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def texts(paths: list[Path]) -> dict[str, str]:
    """Map names to contents, leaving out binary files by git's rule: a NUL byte."""
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return {name: data.decode("utf-8", "replace") for name, data in contents.items() if b"\0" not in data}


def test_environment_agrees_with_metadata(setup_cfg):
    required = setup_cfg["options"]["install_requires"] + setup_cfg["options.extras_require"]["notebook"]
    wanted = {"python" + setup_cfg["options"]["python_requires"], "pip"}
    for name, version in re.findall(r"^([\w-]+)(.*)$", required, re.MULTILINE):
        # conda writes ==0.13.* as =0.13
        wanted.add(CONDA_NAMES.get(name, name) + re.sub(r"^==(.*)\.\*$", r"=\1", version))
    listed = read("environment.yml").partition("dependencies:")[2]
    assert set(re.findall(r"^  - ([^:\s]+)$", listed, re.MULTILINE)) == wanted


def test_lowest_python_is_the_same_everywhere(setup_cfg):
    lowest = setup_cfg["options"]["python_requires"].removeprefix(">=")
    major, minor = lowest.split(".")
    assert f'target-version = "py{major}{minor}"' in read("pyproject.toml")
    assert f"sys.version_info < ({major}, {minor})" in read("Makefile")
    for name in ("Makefile", "README.md"):
        assert re.findall(r"Python (\d\.\d+) or newer", read(name)) == [lowest]


def test_version_is_in_one_place(setup_cfg, project_files):
    assert setup_cfg["metadata"]["version"] == "attr: ganlens.__version__"
    assert "[project]" not in read("pyproject.toml")
    stated = re.compile(r"^(?:__version__|version) *[=:] *['\"]?\d", re.MULTILINE)
    sources = [path for path in project_files if path.suffix in {".py", ".cfg", ".toml", ".yml"}]
    assert [name for name, text in texts(sources).items() if stated.search(text)] == ["ganlens/__init__.py"]


def test_changelog_is_open():
    assert re.search(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)[1] == "[Unreleased]"


def test_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z-]+)", read("README.md") + read("CONTRIBUTING.md"), re.MULTILINE)
    assert {"lab", "test"} <= set(named) <= targets


def test_notebooks_open_clean(project_files):
    for path in project_files:
        if path.suffix == ".ipynb":
            metadata = json.loads(path.read_bytes())["metadata"]
            assert "widgets" not in metadata, f"GitHub refuses {path.name} with widget state"
            assert "kernelspec" in metadata, f"JupyterLab asks which kernel {path.name} wants"


def test_no_path_of_one_machine(project_files):
    pattern = re.compile(r"(?<![\w.~-])/(?:root|work|tmp|home/\w+|Users/\w+)/")
    assert [name for name, text in texts(project_files).items() if pattern.search(text)] == []
