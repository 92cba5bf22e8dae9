"""The imports of ganlens run one way, each heavy package has one home, and `import ganlens` is light."""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "ganlens").rglob("*.py"))

# A room is a folder or a flat module; it imports only from rooms of lines above its own, or from itself.
ROOMS = """
arguments borrowed command_parser files images intervals markup progress terminal _compiled
scenes statistics tables
shards segmenters
models
measuring
dissection recipe
comparisons
effects
plots
widgets embedded pages
benchmark cli_pictures
cli
__init__ __main__
"""
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS.strip().splitlines()) for room in rooms.split()}

HOMES = {
    "matplotlib": {"plots"},
    "ipywidgets": {"widgets"},
    "ipycanvas": {"widgets"},
    "anywidget": {"widgets"},
    "traitlets": {"widgets"},
    "IPython": {"widgets"},
    "numba": {"_compiled"},
    "transformers": {"segmenters", "benchmark"},
}

# The package of setup.cfg that brings a module, where the names differ.
BROUGHT_BY = {"PIL": "pillow", "torch_fidelity": "torch-fidelity", "skimage": "scikit-image"}
BROUGHT_BY |= {"traitlets": "ipywidgets", "IPython": "ipywidgets"}

AT_HOST = {"google"}  # Colab's own package, asked for only where it is already loaded
FOR_TYPES = {"typing_extensions"}  # comes with every type checker, and is imported by nothing else


def room(path: Path) -> str:
    """Name the folder or flat module of the package that a file belongs to."""
    return path.relative_to(ROOT / "ganlens").parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the absolute dotted name of everything that a file imports, also inside functions."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            origin = ".".join([*base, node.module] if node.module else base)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def room_of_import(name: str) -> str:
    """Name the room behind a dotted import from ganlens; what is no module is taken from `__init__`."""
    first = name.split(".")[1:2]
    return first[0] if first and first[0] in FLOORS else "__init__"


def test_relative_imports_are_resolved(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "ganlens" / "models" / "base.py"
    path.parent.mkdir(parents=True)
    path.write_text("import a.b\nfrom . import c\ndef f():\n    from .d import e\n    from ..g import h")
    assert set(imports(path)) == {"a.b", "ganlens.models.c", "ganlens.models.d.e", "ganlens.g.h"}
    assert room(path) == "models"


def test_every_folder_is_a_package():
    """A folder without ``__init__.py`` would be missing from the wheel, silently."""
    folders = {path.parent for path in MODULES}
    assert [folder.name for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestModule:
    def test_has_a_floor(self, path):
        assert room(path) in FLOORS, f"give {room(path)!r} a place in ROOMS"

    def test_imports_from_lower_floors(self, path):
        own = room(path)
        upward = [
            name
            for name in imports(path)
            if name.split(".")[0] == "ganlens"
            and name != "ganlens.__version__"
            and room_of_import(name) != own
            and FLOORS[room_of_import(name)] >= FLOORS[own]
        ]
        assert upward == []

    def test_is_short(self, path):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "what are its parts called?"

    def test_imports_heavy_packages_at_home(self, path):
        packages = {name.split(".")[0] for name in imports(path)} & set(HOMES)
        assert [package for package in packages if room(path) not in HOMES[package]] == []

    def test_imports_are_declared(self, path):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        extras = [needs for extra, needs in config["options.extras_require"].items() if extra != "test"]
        required = "\n".join([config["options"]["install_requires"], *extras])
        declared = set(re.findall(r"^[\w-]+", required, re.MULTILINE))
        foreign = (
            {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"ganlens", *AT_HOST, *FOR_TYPES}
        )
        assert {BROUGHT_BY.get(name, name) for name in foreign} <= declared


def test_import_is_silent_and_light():
    code = """if True:
        import sys, ganlens
        heavy = {"matplotlib", "ipywidgets", "numba", "scipy", "skimage", "pandas"} & set(sys.modules)
        sys.exit(" ".join(sorted(heavy)) or 0)
    """
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
