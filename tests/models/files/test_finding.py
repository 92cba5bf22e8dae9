"""A generator is found anywhere in a file, by its content; and files of other kinds are named."""

import io
import zipfile
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ganlens as gl

Z = 24


class DC(nn.Module):
    def __init__(self, units: int = 12, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        layers = [nn.ConvTranspose2d(Z, 2 * units, 4, 1, 0, bias=False), nn.BatchNorm2d(2 * units), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(2 * units, units, 4, 2, 1, bias=False), nn.BatchNorm2d(units), nn.ReLU(True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(units, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z):
        return self.main(z)


def trained(**options) -> DC:
    net = DC(**options)
    with torch.no_grad():
        for _ in range(120):
            net(torch.randn(64, Z, 1, 1))
    return net.eval()


@pytest.fixture(scope="module")
def net():
    return trained()


def prefixed(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": x for name, x in state.items()}


def same(G, net) -> bool:
    z = G.latents(range(3))
    with torch.no_grad():
        return torch.allclose(G.forward(z), net(z[..., None, None]), atol=1e-6)


WRAPPERS = {
    "plain": lambda s: s,
    "data parallel": lambda s: prefixed("module.", s),
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "both": lambda s: prefixed("module._orig_mod.", s),
    "averaged": lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(7)},
    "averages with counters": lambda s: (
        prefixed("ema_model.", s) | {"initted": torch.tensor(True), "step": torch.tensor(3)}
    ),
    "generator.": lambda s: prefixed("generator.", s),
    "model.": lambda s: prefixed("model.", s),
    "two names": lambda s: prefixed("gan.netG.", s) | prefixed("gan.netD.", DC(8).state_dict()),
    "three names": lambda s: {"state_dict": prefixed("system.gan.generator.", s)},
    "compiled inside": lambda s: {"model": prefixed("netG._orig_mod.", s)},
    "deep": lambda s: {"a": {"b": {"netG": s}}},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_under_any_prefix(wrap, net, tmp_path):
    torch.save(wrap(net.state_dict()), tmp_path / "a.pth")
    assert same(gl.load_generator(tmp_path / "a.pth"), net)


@pytest.mark.parametrize(
    ("average", "other"),
    [
        ("generator_smooth", "generator"),
        ("g_running", "generator"),
        ("params_ema", "params"),
        ("G_avg", "G"),
        ("ema", "model"),
    ],
)
def test_the_average_is_preferred_and_named(average, other, net, tmp_path):
    torch.save({other: trained(seed=1).state_dict(), average: net.state_dict()}, tmp_path / "a.pth")
    G = gl.load_generator(tmp_path / "a.pth")
    assert same(G, net)
    assert f"taken from '{average}'; '{other}' would fit as well: give key=" in G.about


def test_where_nothing_tells_them_apart_it_is_said(net, tmp_path):
    other = trained(seed=1)
    torch.save({"G_A": net.state_dict(), "G_B": other.state_dict()}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="the file holds several generators: taken from 'G_A'; 'G_B'"):
        assert same(gl.load_generator(tmp_path / "a.pth"), net)
    assert same(gl.load_generator(tmp_path / "a.pth", key="G_B"), other)
    with pytest.raises(ValueError, match="did you mean 'G_B'"):
        gl.load_generator(tmp_path / "a.pth", key="G_C")


def test_a_container_without_order(net, tmp_path):
    save_file({name: x.contiguous() for name, x in net.state_dict().items()}, tmp_path / "a.safetensors")
    assert same(gl.load_generator(tmp_path / "a.safetensors"), net)


def test_what_torch_takes_as_safe_is_read(net, tmp_path):
    others = {
        "counter": Counter("aab"),
        "complex": torch.ones(2, dtype=torch.complex64),
        "float8": torch.ones(2, 3).to(torch.float8_e4m3fn),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "set": {1, 2},
        "number": 1 + 2j,
        "raw": bytearray(b"abc"),
        "type": torch.float16,
        "size": torch.Size([3]),
        "parameter": nn.Parameter(torch.ones(2)),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    torch.save({"netG": net.state_dict()} | others, tmp_path / "a.pth")
    torch.load(tmp_path / "a.pth", weights_only=True)
    assert same(gl.load_generator(tmp_path / "a.pth"), net)


def keras() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", b"\x89HDF")
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(DC().eval(), torch.randn(1, Z, 1, 1)), buffer)
    return buffer.getvalue()


def cut() -> bytes:
    buffer = io.BytesIO()
    torch.save(DC().state_dict(), buffer)
    return buffer.getvalue()[: buffer.tell() // 2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (script, "TorchScript archive"),
        (keras, "a damaged file of Keras"),
        (lambda: bytes([8, 8, 18, 7]) + b"pytorch" + bytes([26, 5]) + b"2.1.0" + bytes(300), "ONNX"),
        (lambda: b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow"),
        (lambda: b"GGUF" + bytes(99), "GGUF"),
        (cut, "cut off"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_files_are_named(make, said, tmp_path):
    (tmp_path / "a.pt").write_bytes(make())
    with pytest.raises(ValueError, match=said):
        gl.load_generator(tmp_path / "a.pt")


def test_a_refusal_ends_with_the_lines_that_bring_the_network(tmp_path):
    torch.save(
        {"netG": nn.Sequential(nn.Linear(7, 9), nn.GRU(9, 9), nn.Conv3d(2, 2, 3)).state_dict()}, tmp_path / "a.pth"
    )
    with pytest.raises(ValueError, match="fits no known format") as caught:
        gl.load_generator(tmp_path / "a.pth")
    *_, head, _, load, wrap = str(caught.value).splitlines()
    assert head == "A network of your own is taken as it is:"
    assert load.strip() == f"net.load_state_dict(torch.load({str(tmp_path / 'a.pth')!r}, weights_only=True)['netG'])"
    assert "Generator.wrap(net, z_dim=" in wrap
    assert "9 or 7" in wrap


def test_a_header_of_any_length(tmp_path):
    """Files of safetensors begin with the length of their header, whose first byte may be that of ONNX files."""
    net, firsts = trained(), set()
    for length in range(0, 256, 8):
        tensors = {name: x.contiguous() for name, x in net.state_dict().items()}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"note": "x" * length})
        firsts.add((tmp_path / "a.safetensors").read_bytes()[0])
        if firsts >= {8}:
            assert same(gl.load_generator(tmp_path / "a.safetensors"), net)
            return
    raise AssertionError(f"no header began with 8, but with {firsts}")
