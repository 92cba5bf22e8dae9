"""The names that people import: complete for editors, and functions that can grow without breaking a caller."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ganlens as gl
from ganlens import plots

PACKAGE = Path(gl.__file__).parent
PLOTS = [name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))]


def callables():
    """Yield every public function, class and method with its name."""
    for name in gl.__all__:
        thing = getattr(gl, name)
        if inspect.isclass(thing):
            yield name, thing
            ours = [base for base in thing.__mro__ if base.__module__.startswith("ganlens")]
            for method in {method for base in ours for method in vars(base) if not method.startswith("_")}:
                if inspect.isfunction(getattr(thing, method)) or inspect.ismethod(getattr(thing, method)):
                    yield f"{name}.{method}", getattr(thing, method)
        elif inspect.isfunction(thing):
            yield name, thing
    yield from ((f"plots.{name}", getattr(plots, name)) for name in PLOTS)


CALLABLES = dict(sorted(callables()))


@pytest.mark.parametrize("name", CALLABLES)
def test_three_parameters_by_position_at_most(name):
    parameters = inspect.signature(CALLABLES[name]).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert len([p.name for p in parameters if p.kind in by_position and p.name != "self"]) <= 3


def test_the_stub_has_the_lazy_names():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname: node.module for node in imports for alias in node.names}
    assert homes == {name: "ganlens" if home == name else f"ganlens.{home}" for name, home in gl._HOMES.items()}
    assert (PACKAGE / "py.typed").exists()
    assert re.search(r"^ganlens = py\.typed, \*\.pyi$", (PACKAGE.parent / "setup.cfg").read_text(), re.MULTILINE)


def test_every_module_is_imported_by_its_name():
    """And is itself, although functions have names that are short: `gl.context`, `gl.report`."""
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"import importlib\nfor name in {names!r}: assert importlib.import_module(name).__name__ == name, name"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documentation_of_a_function_is_found_by_its_short_name():
    done = subprocess.run(
        [sys.executable, "-m", "pydoc", "ganlens.context"], capture_output=True, text=True, check=True
    )
    assert "Where can it go?" in done.stdout
