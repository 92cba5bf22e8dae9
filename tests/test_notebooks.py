"""Every notebook runs from the first cell to the last, and is stored with pictures and without widget state."""

import nbformat
import pytest
from refresh_notebooks import NOTEBOOKS, WIDGET, execute, tidy


@pytest.mark.slow  # the first one, which `make lab` opens, is also run in JupyterLab by test_lab.py
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path):
    stored = nbformat.read(path, as_version=4)
    assert pictures(tidy(execute(path))) == pictures(stored), "run `make notebooks` and commit the result"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run `make notebooks` and commit the result"
    assert sum(pictures(notebook)) >= 5
    assert not any(WIDGET in output.get("data", {}) for cell in code for output in cell.outputs)


def pictures(notebook) -> list[int]:
    """Number of pictures or pictured tables in the output of each code cell."""
    kinds = {"image/png", "image/jpeg", "text/html"}
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [sum(bool(kinds & set(output.get("data", {}))) for output in cell.outputs) for cell in code]
