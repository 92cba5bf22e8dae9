"""Random networks exported to ONNX by torch, in both of its ways, against the networks themselves."""

import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ganlens as gl

onnx = pytest.importorskip("onnx")
Z = 12
OPSETS = {"torchscript": (13, 17), "dynamo": (18, 20)}


class Norm(nn.Module):
    """A norm over channels, written out."""

    def forward(self, r):
        return r / (r.square().mean(1, keepdim=True) + 1e-8).sqrt()


class Net(nn.Module):
    """A generator of random parts: linear or convolutional start, doublings of all kinds, shortcuts, a class."""

    def __init__(self, seed: int):
        super().__init__()
        rng = np.random.RandomState(seed)
        torch.manual_seed(seed)
        self.classes = 5 if rng.rand() < 0.4 else None
        self.table = nn.Embedding(5, 6) if self.classes else None
        inputs = Z + (6 if self.classes else 0)
        self.flat = bool(rng.randint(2))
        self.start = nn.Linear(inputs, 96) if self.flat else nn.ConvTranspose2d(inputs, 6, 4)
        acts = [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.SiLU, nn.ELU, lambda: nn.PReLU(4), nn.GELU, nn.Softplus]
        self.blocks = nn.ModuleList()
        for inputs in (6, 4):
            kind = rng.randint(4)
            grown = [
                lambda a=inputs: [nn.ConvTranspose2d(a, 4, 4, 2, 1)],
                lambda a=inputs: [nn.ConvTranspose2d(a, 4, 3, 2, 1, 1)],
                lambda a=inputs: [nn.Upsample(scale_factor=2), nn.Conv2d(a, 4, 3, padding=1)],
                lambda a=inputs: [nn.Conv2d(a, 16, 3, padding=1, padding_mode="reflect"), nn.PixelShuffle(2)],
            ][kind]()
            if rng.rand() < 0.3:
                grown = [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(inputs, 4, 1)]
            norm = [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), Norm(), nn.GroupNorm(2, 4)][rng.randint(4)]
            self.blocks.append(nn.Sequential(*grown, norm, acts[rng.randint(len(acts))]()))
        self.past = nn.Conv2d(4, 4, 1) if rng.rand() < 0.5 else None
        self.last = nn.Conv2d(4, int(rng.choice([1, 3])), 3, padding=1)
        self.bounded = bool(rng.randint(2))

    def forward(self, z, labels=None):
        z = z if self.table is None else torch.cat([z, self.table(labels)], 1)
        r = self.start(z).view(-1, 6, 4, 4) if self.flat else self.start(z[:, :, None, None])
        for block in self.blocks:
            r = block(r)
        r = r if self.past is None else r + 0.5 * self.past(r)
        return torch.tanh(self.last(r)) if self.bounded else torch.sigmoid(self.last(r))


def settled(net: Net) -> Net:
    net.train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(8, Z), torch.randint(5, (8,)))
    return net.eval()


def export(net: Net, path, way: str, opset: int) -> None:
    given = (torch.randn(2, Z), torch.tensor([0, 1])) if net.classes else (torch.randn(2, Z),)
    names = ["z", "labels"][: len(given)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if way == "dynamo":
            free = {name: {0: torch.export.Dim.DYNAMIC} for name in names}
            torch.onnx.export(
                net, given, path, input_names=names, output_names=["image"], dynamo=True, opset_version=opset,
                dynamic_shapes=free, external_data=False, verbose=False,
            )  # fmt: skip
        else:
            torch.onnx.export(
                net, given, path, input_names=names, output_names=["image"], dynamo=False, opset_version=opset,
                dynamic_axes={name: {0: "n"} for name in [*names, "image"]},
            )  # fmt: skip


@pytest.mark.parametrize("seed", range(15))
def test_random_networks(seed, tmp_path):
    way = ("torchscript", "dynamo")[seed % 5 == 4]
    net = settled(Net(seed))
    export(net, tmp_path / "a.onnx", way, OPSETS[way][seed % 2])
    G = gl.load_generator(tmp_path / "a.onnx")
    assert G.classes == net.classes
    z, labels = G.latents(range(3)), torch.tensor([4, 0, 2])
    with torch.no_grad():
        expected = net(z, labels)
    expected = (expected if net.bounded else 2 * expected - 1).expand(-1, 3, -1, -1)
    found = G.forward(z, labels) if net.classes else G.forward(z)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=0)


def of_nodes(nodes, outputs=("y",), tensors=(), inputs=(("z", ("n", Z)),)) -> bytes:
    """A file with a graph of its own."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs], list(tensors),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def numbers(name: str, *values: int):
    return onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], list(values))


class TestOperations:
    """What few networks have, against the definitions."""

    def check(self, tmp_path, nodes, tensors, expected, **options):
        (tmp_path / "a.onnx").write_bytes(of_nodes(nodes, tensors=tensors, **options))
        G = gl.load_generator(tmp_path / "a.onnx", output="[-1,1]")
        z = G.latents(range(3))
        torch.testing.assert_close(G.forward(z), expected(z).clamp(-1, 1).expand(-1, 3, -1, -1), atol=1e-5, rtol=0)

    def test_slices_splits_and_sums(self, tmp_path):
        node = onnx.helper.make_node
        nodes = [
            node("Reshape", ["z", "s"], ["r"]),
            node("Slice", ["r", "a", "b", "c", "d"], ["flipped"]),
            node("Split", ["flipped"], ["p", "q"], axis=3),
            node("Transpose", ["q"], ["t"], perm=[0, 1, 2, 3]),
            node("ReduceMean", ["t"], ["m"], axes=[2, 3], keepdims=1),
            node("Sub", ["p", "m"], ["x"]),
            node("Concat", ["x", "t"], ["y"], axis=3),
        ]
        tensors = [numbers("s", 0, 1, 2, 6), numbers("a", -1), numbers("b", -100), numbers("c", 3), numbers("d", -1)]

        def expected(z):
            p, q = z.reshape(-1, 1, 2, 6).flip(3).split(3, 3)
            return torch.cat([p - q.mean((2, 3), keepdim=True), q], 3)

        self.check(tmp_path, nodes, tensors, expected)

    def test_padding_and_blocks_of_cells(self, tmp_path):
        node = onnx.helper.make_node
        nodes = [
            node("Reshape", ["z", "s"], ["r"]),
            node("DepthToSpace", ["r"], ["x"], blocksize=2, mode="DCR"),
            node("Pad", ["x", "e"], ["y"], mode="edge"),
        ]
        tensors = [numbers("s", -1, 4, 1, 3), numbers("e", 0, 0, 1, 2, 0, 0, 0, 1)]

        def expected(z):
            x = z.reshape(-1, 2, 2, 1, 1, 3).permute(0, 3, 4, 1, 5, 2).reshape(-1, 1, 2, 6)
            return F.pad(x, (2, 1, 1, 0), mode="replicate")

        self.check(tmp_path, nodes, tensors, expected)


class TestRefused:
    def refused(self, tmp_path, data: bytes, message: str):
        (tmp_path / "a.onnx").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            gl.load_generator(tmp_path / "a.onnx")

    def test_what_is_not_known(self, tmp_path):
        node = onnx.helper.make_node
        self.refused(tmp_path, of_nodes([node("Tanhh", ["z"], ["y"])]), "did you mean 'Tanh'")
        self.refused(tmp_path, of_nodes([node("Loop", ["z"], ["y"])]), "operation 'Loop'")
        self.refused(tmp_path, of_nodes([node("Tanh", ["x"], ["y"])]), "takes 'x', which nothing gives")
        self.refused(tmp_path, of_nodes([node("RandomNormalLike", ["z"], ["y"])]), "draws numbers in each pass")
        self.refused(tmp_path, of_nodes([node("Tanh", ["z"], ["y"])]), "expected images")
        odd = of_nodes([node("Tanh", ["z"], ["y"])], inputs=(("z", (4, Z)),))
        self.refused(tmp_path, odd, "exported for 4 images at once")

    def test_tensors_in_other_files(self, tmp_path):
        outside = numbers("s", 0, 1, 2, 6)
        outside.data_location = onnx.TensorProto.EXTERNAL
        outside.external_data.add(key="location", value="/etc/passwd")
        self.refused(
            tmp_path, of_nodes([onnx.helper.make_node("Reshape", ["z", "s"], ["y"])], tensors=[outside]), "lie in"
        )

    def test_bombs(self, tmp_path):
        node, side = onnx.helper.make_node, 2**15
        grown = [node("Reshape", ["z", "s"], ["r"]), node("Expand", ["r", "e"], ["y"])]
        self.refused(
            tmp_path,
            of_nodes(grown, tensors=[numbers("s", 0, 1, 1, Z, 1), numbers("e", 1, side, side, Z, 64)]),
            "a tensor of shape",
        )
        scale = onnx.helper.make_tensor("f", onnx.TensorProto.FLOAT, [4], [1.0, 1.0, 1e5, 1e5])
        grown = [node("Reshape", ["z", "s"], ["r"]), node("Resize", ["r", "", "f"], ["y"], mode="nearest")]
        self.refused(tmp_path, of_nodes(grown, tensors=[numbers("s", 0, 1, 2, 6), scale]), "a tensor of shape")

    def test_damage(self, tmp_path):
        export(settled(Net(2)), tmp_path / "whole.onnx", "torchscript", 17)
        whole, rng = (tmp_path / "whole.onnx").read_bytes(), np.random.RandomState(0)
        for _ in range(200):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                data[rng.randint(len(data))] = rng.randint(256)
            (tmp_path / "a.onnx").write_bytes(bytes(data[: rng.randint(1, len(data))] if rng.rand() < 0.3 else data))
            with suppress(ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert gl.load_generator(tmp_path / "a.onnx").layers
