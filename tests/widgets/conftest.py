"""What several browser tests need: a folder of notebooks, JupyterLab over it, and a place for screenshots."""

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


@pytest.fixture(scope="session")
def pictures(request):
    """Where screenshots are kept, to be looked at."""
    made = request.config.rootpath / "test-results"
    made.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="session")
def tree_cells(G, S):
    """The cells of image 33 where its tree is."""
    labels = S.labels(G.generate([33]))[0, 0] == S.index("tree") + 1
    return (labels.reshape(8, 8, 8, 8).float().mean((1, 3)) > 0.3).flatten().nonzero().flatten().tolist()
