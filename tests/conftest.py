"""What several tests need: the embedded networks, one small dissection, and the number of threads."""

import hashlib
import signal

import pytest
import torch

import ganlens as gl

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with Ctrl-C ignored


def pytest_collection_modifyitems(items):
    """Tests of one file go to one process, for they share fixtures; so do all that drive a browser, one at a time."""
    for item in items:
        group = "browser" if item.get_closest_marker("browser") else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def G():
    return gl.load_generator("scenes")


@pytest.fixture(scope="session")
def S():
    return gl.load_segmenter("scenes")


@pytest.fixture(scope="session")
def D(G, S):
    """A dissection that tests look at and do not change."""
    return gl.dissect(G, S, "layer4", n=96, progress=False)


@pytest.fixture
def threads():
    """Set the number of torch's threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def digest(net: torch.nn.Module) -> str:
    """Hash of every number of a network."""
    hash_ = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        hash_.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return hash_.hexdigest()


@pytest.fixture
def untouched():
    """Say of a network, at the end of the test, that it has its numbers and forwards, and no hooks."""
    watched = []

    def watch(net: torch.nn.Module) -> torch.nn.Module:
        watched.append((net, digest(net)))
        return net

    yield watch
    assert watched
    for net, before in watched:
        assert digest(net) == before
        for module in net.modules():
            assert "forward" not in vars(module)
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


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
