"""The training and the evaluation of the embedded networks: their parts by definition, the whole on a small scale."""

import csv
import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional as F

import ganlens as gl
from ganlens.embedded import segmentation
from ganlens.embedded.__main__ import main
from ganlens.embedded.evaluation import evaluate_addition, evaluate_segmenter, frechet_distance, kernel_distance
from ganlens.embedded.training import Journal, Recipe, Trainer, equalized_adam, export, group_deviation, train
from ganlens.models.families.scenes import SceneGenerator, load
from ganlens.scenes.painter import paint_many
from ganlens.segmenters.scenes import SceneSegmenter

RECIPE = Recipe(images=96, small_batch=4, batch=8, warmup=16, r1_every=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    images, labels = paint_many(range(64))
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    return folder


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.flatten() for p in trainer.average.parameters()])


def test_training_goes_on_where_it_stopped(folder):
    images = np.load(folder / "images.npy")
    whole, half = Trainer(RECIPE, images), Trainer(RECIPE, images)
    for _ in range(4):
        whole.train_step()
    for _ in range(2):
        half.train_step()
    resumed = Trainer(RECIPE, images)
    resumed.load(half.state())
    for _ in range(2):
        resumed.train_step()
    assert resumed.seen == whole.seen == 16
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.slow
def test_two_processes_train_and_leave_what_is_promised(folder):
    train(folder, RECIPE, processes=2)
    state = torch.load(folder / "generator.pt", weights_only=True)
    assert state["seen"] >= RECIPE.images
    export(folder, folder / "exported.safetensors")
    G = load(folder / "exported.safetensors")
    net = SceneGenerator()
    net.load_state_dict(state["average"])
    z = G.latents(range(3))
    with torch.no_grad():
        assert torch.allclose(G.forward(z), net(z).clamp(-1, 1), atol=0.02)  # half precision on disk


def test_journal(folder, tmp_path):
    trainer = Trainer(RECIPE, np.load(folder / "images.npy"))
    journal = Journal(tmp_path, trainer, save_every=0, sheet_every=4)
    losses = [trainer.train_step() for _ in range(2)]
    for one in losses:
        journal.write(one)
    journal.log()
    rows = list(csv.DictReader((tmp_path / "losses.csv").read_text().splitlines()))
    assert float(rows[0]["d"]) == pytest.approx(np.mean([one["d"] for one in losses]), abs=1e-4)
    assert (tmp_path / "generator.pt").exists()
    assert list(tmp_path.glob("sheet-*.png"))


def test_learning_rate_falls_at_the_end(folder):
    trainer = Trainer(RECIPE, np.load(folder / "images.npy"))
    factors = []
    for seen in (0, 69, 82, 96):
        trainer.seen = seen
        trainer.set_rate()
        group = trainer.g_adam.param_groups[0]
        factors.append(group["lr"] / group["base"])
    assert factors[:2] == [1, 1]
    assert 0.4 < factors[2] < 0.6
    assert factors[3] == pytest.approx(RECIPE.final_rate)


def test_equalized_rate_equals_rescaled_weights():
    """A step on a plain weight equals a step on a unit-variance weight that is scaled at run time."""
    torch.manual_seed(0)
    x = torch.randn(8, 50)
    plain = torch.nn.Linear(50, 3, bias=False)
    scale = (2 / 50) ** 0.5
    unit = (plain.weight.detach() / scale).requires_grad_()
    adam, other = equalized_adam(plain, 0.01), torch.optim.Adam([unit], 0.01, betas=(0.0, 0.99), eps=1e-12)
    for _ in range(3):
        for optimizer, weight in ((adam, plain.weight), (other, unit * scale)):
            optimizer.zero_grad()
            F.linear(x, weight).square().sum().backward()
            optimizer.step()
    assert torch.allclose(plain.weight, unit * scale, atol=1e-5)


def test_group_deviation_by_definition():
    x = torch.randn(8, 5, 4, 4)
    extended = group_deviation(x, size=4)
    for start in range(2):
        members = x[start::2]
        expected = members.std(0, unbiased=False).mean()
        assert extended[start::2, 5].numpy() == pytest.approx(float(expected), rel=1e-4)
    assert torch.equal(extended[:, :5], x)


@pytest.mark.slow
def test_segmenter_learns(folder, tmp_path):
    torch.manual_seed(0)
    scores = []
    for steps in (2, 60):
        segmentation.train(folder, tmp_path / "weights.safetensors", steps=steps, batch=8)
        scores.append(evaluate_segmenter(SceneSegmenter(tmp_path / "weights.safetensors"), n=20)["accuracy"])
    assert scores[1] > max(0.5, scores[0])


def test_augmented_images_stay_images():
    x = torch.rand(16, 3, 32, 32) * 2 - 1
    changed = segmentation.augment(x, torch.Generator().manual_seed(0))
    assert changed.shape == x.shape
    assert changed.abs().max() <= 1
    assert 0.01 < (changed - x).abs().mean() < 0.5


def test_distances_equal_an_independent_computation():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(30, 4)), random.normal(0.3, 2, size=(20, 4))
    kernel = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    own = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(1000 * (sum(own) - 2 * between))
    cx, cy = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-6)


def test_command_paints(tmp_path):
    assert main(["paint", "-n", "6", "--folder", str(tmp_path)]) == 0
    images, labels = (np.load(tmp_path / f"{name}.npy") for name in ("images", "labels"))
    expected = paint_many(range(1_000_000, 1_000_006))
    assert (images == expected[0]).all()
    assert (labels == expected[1]).all()


@pytest.mark.slow
def test_command_evaluates(tmp_path):
    assert main(["evaluate", "-n", "48", "--layers", "--folder", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == {"segmenter", "generator", "layers", "removal", "addition"}
    assert (tmp_path / "samples.png").exists()


@pytest.mark.slow
def test_what_units_add_is_what_the_maps_say(G, S):
    """Image by image: the eight best of 64 cells, of 64 pixels each; and cells with sky."""
    found = evaluate_addition(G, S, "layer4", n=2)
    D = gl.dissect(G, S, "layer4", n=1000, progress=False)
    maps = [gl.where(D, "tree", 1_000_000 + i) for i in range(2)]
    best = np.mean([np.sort(values.ravel())[-8:] for values in maps]) / 64
    assert found["tree"]["best"] == pytest.approx(best, abs=1e-3)
    assert found["tree"]["cell"] == pytest.approx(np.mean([values.max() for values in maps]) / 64, abs=1e-3)
    assert found["tree"]["random"] < found["tree"]["best"] <= found["tree"]["cell"]
