"""Run the notebooks and keep their outputs as text and pictures: ``python tests/refresh_notebooks.py``."""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 900, "store_widget_state": False, "resources": {"metadata": {"path": str(path.parent)}}}
    NotebookClient(notebook, kernel_name="python3", **options).execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What a saved notebook is for: no bars and timings, of widgets only their pictures, large pictures as JPEG."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_live(output.get("data", {}))]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                shrink(output.get("data", {}))
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    return notebook


def is_live(data: dict) -> bool:
    """A widget, whose picture is an output of its own, a bar, or what is said of a widget that is gone."""
    return WIDGET in data or "ganlens-saved" in "".join(data.get("text/html", ""))


def shrink(data: dict) -> None:
    """Replace a PNG of over 100 kB by a JPEG."""
    if len(data.get("image/png", "")) > 133_000:
        buffer = io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))).convert("RGB")
        picture.save(buffer, "jpeg", quality=85, subsampling=0)
        data["image/jpeg"] = base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(tidy(execute(path)), path)
