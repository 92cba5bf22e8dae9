"""What several browser tests need: a folder of notebooks, and JupyterLab over it."""

import pytest
from lab import jupyterlab, need_chromium


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def address(folder):
    """Of a JupyterLab that shows the folder."""
    need_chromium()
    with jupyterlab(folder) as address:
        yield address
