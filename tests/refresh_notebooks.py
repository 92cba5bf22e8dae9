"""Run the notebooks and keep their outputs as text and pictures: ``python tests/refresh_notebooks.py``."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 900, "store_widget_state": False, "resources": {"metadata": {"path": str(path.parent)}}}
    NotebookClient(notebook, kernel_name="python3", **options).execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without progress bars and timings, which mean nothing in a saved notebook."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    return notebook


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(tidy(execute(path)), path)
