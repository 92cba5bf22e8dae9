"""Random networks saved by Keras itself, in all its formats, against what Keras makes of the same latents."""

import functools
import io
import json
import os
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

import ganlens as gl

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
from keras import layers as kl  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras, when it saves
Z = 12
FORMATS = (".keras", ".h5")


def activation(rng: np.random.RandomState):
    """A layer that bends."""
    return [
        lambda: kl.LeakyReLU(negative_slope=0.2),
        lambda: kl.ReLU(max_value=6.0 if rng.rand() < 0.3 else None),
        lambda: kl.Activation(str(rng.choice(["relu", "elu", "silu", "tanh", "softplus"]))),
        lambda: kl.PReLU(shared_axes=[1, 2]),
    ][rng.randint(4)]()


def growing(rng: np.random.RandomState, units: int) -> list:
    """Layers that double the maps, in one of the usual ways."""
    kernel = int(rng.choice([2, 3, 4, 5]))
    if rng.rand() < 0.5:
        made = [kl.Conv2DTranspose(units, kernel, strides=2, padding="same", use_bias=bool(rng.randint(2)))]
    else:
        mode = str(rng.choice(["nearest", "bilinear"]))
        made = [kl.UpSampling2D(interpolation=mode), kl.Conv2D(units, kernel, padding="same")]
    if rng.rand() < 0.7:
        made.append(kl.BatchNormalization(scale=bool(rng.randint(2)), center=bool(rng.randint(2))))
    return [*made, activation(rng), *([kl.Dropout(0.3)] if rng.rand() < 0.3 else [])]


def sequence(rng: np.random.RandomState):
    made = [kl.Input((Z,)), kl.Dense(4 * 4 * 6), activation_of_rows(rng), kl.Reshape((4, 4, 6))]
    for units in (5, 4):
        made += growing(rng, units)
    return keras.Sequential([*made, kl.Conv2D(int(rng.choice([1, 3])), 3, padding="same", activation="tanh")])


def activation_of_rows(rng: np.random.RandomState):
    return kl.BatchNormalization() if rng.rand() < 0.5 else kl.LeakyReLU()


def graph(rng: np.random.RandomState):
    """Two branches that are joined, a model within the model, a layer that is called twice."""
    z = kl.Input((Z,), name="latent")
    r = kl.Reshape((4, 4, 6))(kl.Dense(96, activation="relu")(z))
    twice = kl.Conv2D(6, 3, padding="same", name="twice")
    r = twice(twice(r))
    inner = keras.Sequential([kl.Input((4, 4, 6)), *growing(rng, 4)], name="inner")
    joined = kl.Concatenate() if rng.rand() < 0.5 else kl.Add()
    r = joined([inner(r), kl.UpSampling2D()(kl.Conv2D(4, 1)(r))])
    return keras.Model(z, kl.Conv2D(3, 3, padding="same", activation="sigmoid")(r))


def conditional(rng: np.random.RandomState):
    """A class by an embedding, or by weights."""
    z = kl.Input((Z,), name="latent")
    if rng.rand() < 0.5:
        label = kl.Input((1,), dtype="int32", name="label")
        y = kl.Flatten()(kl.Embedding(5, 4)(label))
    else:
        label = kl.Input((5,), name="class_weights")
        y = kl.Dense(4)(label)
    joined = kl.Concatenate()([z, y]) if rng.rand() < 0.5 else kl.Multiply()([kl.Dense(4)(z), y])
    r = kl.Reshape((4, 4, 6))(kl.Dense(96)(joined))
    for layer in growing(rng, 4):
        r = layer(r)
    inputs = [z, label] if rng.rand() < 0.5 else [label, z]
    return keras.Model(inputs, kl.Conv2D(3, 3, padding="same", activation="tanh")(r))


def settled(model, rng: np.random.RandomState):
    """The model with norms that have seen something."""
    for layer in model._flatten_layers():
        if isinstance(layer, kl.BatchNormalization):
            shapes = [w.shape for w in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape).astype("float32") for shape in shapes])
        elif isinstance(layer, kl.PReLU):
            layer.set_weights([rng.uniform(0, 0.5, w.shape).astype("float32") for w in layer.weights])
    return model


def drawn(model, z: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """What Keras makes of latents and labels: images in [-1, 1]."""
    given = z
    if labels is not None:
        by_name = {"latent": z, "label": labels[:, None], "class_weights": torch.eye(5)[labels]}
        given = [by_name[x.name] for x in model.inputs]
    images = model(given, training=False).detach().cpu().permute(0, 3, 1, 2)
    return (
        2 * images - 1
        if getattr(model.layers[-1], "activation", keras.activations.tanh).__name__ == "sigmoid"
        else images
    )


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("suffix", FORMATS)
def test_random_networks(seed, suffix, tmp_path):
    rng = np.random.RandomState(seed)
    keras.utils.set_random_seed(seed)
    kind = (sequence, graph, conditional)[seed % 3]
    model = settled(kind(rng), rng)
    model.save(tmp_path / f"a{suffix}")
    G = gl.load_generator(tmp_path / f"a{suffix}")
    z = G.latents(range(3))
    labels = torch.tensor([4, 0, 2]) if kind is conditional else None
    expected = drawn(model, z, labels).expand(-1, 3, -1, -1)
    torch.testing.assert_close(G.forward(z, labels), expected, atol=1e-4 * float(expected.std()), rtol=0)


@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_in_models_within_models(tmp_path, suffix):
    """A latent called as an attribute of modules could be, models two deep, a vector times each cell of maps."""
    keras.utils.set_random_seed(3)
    deep = keras.Sequential([kl.Input((8,)), kl.Dense(3, name="train")], name="deep")
    inner = keras.Sequential([kl.Input((8,)), deep, kl.Activation("sigmoid")], name="inner")
    z = kl.Input((Z,), name="latent")
    r = kl.Reshape((8, 8, 3), name="classes")(kl.Dense(8 * 8 * 3)(z))
    gate = kl.Reshape((1, 1, 3))(inner(kl.Dense(8)(z)))
    image = kl.Input((8, 8, 3))
    last = keras.Model(image, kl.Activation("tanh")(image), name="last")
    model = keras.Model(z, last(kl.Multiply()([r, gate])))
    model.save(tmp_path / f"a{suffix}")
    G = gl.load_generator(tmp_path / f"a{suffix}")
    z = G.latents(range(8))
    expected = drawn(model, z, None)
    torch.testing.assert_close(G.forward(z), expected, atol=1e-4 * float(expected.std()), rtol=0)


@pytest.fixture
def saved(tmp_path):
    rng = np.random.RandomState(0)
    keras.utils.set_random_seed(0)
    model = settled(sequence(rng), rng)
    model.save(tmp_path / "a.keras")
    model.save(tmp_path / "a.h5")
    return tmp_path


def rewritten(path, change) -> bytes:
    """A ``.keras`` file with another configuration."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, json.dumps(change(json.loads(data))) if name == "config.json" else data)
    return out.getvalue()


def first_layer(config, **settings):
    config["config"]["layers"][1]["config"].update(settings)
    return config


def other_class(config, name: str):
    config["config"]["layers"][1]["class_name"] = name
    return config


def first_array(file):
    """The group of a linear map in an ``.h5`` file, and where in it its kernel is."""
    group = next(file["model_weights"][name] for name in file["model_weights"] if name.startswith("dense"))
    return group, group.attrs["weight_names"][0]


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: other_class(c, "Lambda"), "kind of layer 'Lambda'"),
            (lambda c: other_class(c, "Conv3D"), "did you mean 'Conv2D'"),
            (lambda c: first_layer(c, activation="tanhh"), "did you mean 'tanh'"),
            (lambda c: first_layer(c, use_bias=False), "arrays more than it needs"),
            (lambda c: c | {"class_name": "Diffusion"}, "is a 'Diffusion'"),
            (lambda c: [], "describes no model"),
            (lambda c: {"class_name": "Sequential", "config": {"layers": []}}, "cannot run"),
        ],
    )
    def test_configurations(self, saved, change, message):
        (saved / "b.keras").write_bytes(rewritten(saved / "a.keras", change))
        with pytest.raises(ValueError, match=message):
            gl.load_generator(saved / "b.keras")

    def test_weights_alone(self, saved, tmp_path):
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file.create_group("model_weights").attrs["layer_names"] = []
        with pytest.raises(ValueError, match=r"weights of Keras without(?s:.*)model\.save"):
            gl.load_generator(tmp_path / "b.h5")

    def test_links_to_elsewhere(self, saved):
        with h5py.File(saved / "a.h5", "r+") as file:
            group, where = first_array(file)
            del group[where]
            group[where] = h5py.ExternalLink("/etc/passwd", "/x")
        with pytest.raises(ValueError, match="a link to elsewhere"):
            gl.load_generator(saved / "a.h5")

    def test_bombs(self, saved):
        with h5py.File(saved / "a.h5", "r+") as file:
            group, where = first_array(file)
            del group[where]
            group.create_dataset(where, (100_000, 100_000), "f4", chunks=(1000, 1000), compression="gzip")
        with pytest.raises(ValueError, match="claims far more than it holds"):
            gl.load_generator(saved / "a.h5")

    @pytest.mark.parametrize(
        "grow",
        [
            lambda r: kl.UpSampling2D(4000)(kl.UpSampling2D(4000)(r)),
            lambda r: kl.ZeroPadding2D(4000)(kl.ZeroPadding2D(4000)(kl.ZeroPadding2D(4000)(r))),
            lambda r: functools.reduce(lambda r, _: kl.Concatenate()([r, r]), range(40), r),
        ],
    )
    def test_layers_that_grow(self, tmp_path, grow):
        z = kl.Input((Z,))
        keras.Model(z, grow(kl.Reshape((2, 2, 3))(z))).save(tmp_path / "a.keras")
        with pytest.raises(ValueError, match="a tensor of shape"):
            gl.load_generator(tmp_path / "a.keras")

    def test_models_that_call_one_another(self, tmp_path):
        """A hundred calls of a model that makes a hundred calls, and so on."""
        model = keras.Sequential([kl.Input((4, 4, 3)), kl.ReLU()])
        for _ in range(3):
            r = given = kl.Input((4, 4, 3))
            for _ in range(30):
                r = model(r)
            model = keras.Model(given, r)
        model.save(tmp_path / "a.keras")
        with pytest.raises(ValueError, match="one image takes 27000 calls"):
            gl.load_generator(tmp_path / "a.keras")

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_damage(self, saved, suffix):
        whole = (saved / f"a{suffix}").read_bytes()
        rng = np.random.RandomState(0)
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                data[rng.randint(len(data))] = rng.randint(256)
            part = bytes(data[: rng.randint(1, len(data))] if rng.rand() < 0.3 else data)
            (saved / f"b{suffix}").write_bytes(part)
            with suppress(ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert gl.load_generator(saved / f"b{suffix}").layers  # what was changed is a number
