"""The engine of painting pages in a real browser: networks against torch, latents against numpy, loops against C."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from pages import KERNEL, Engine, chromium
from test_tracing import CHAINS, DATA, of_net

import ganlens as gl
from ganlens.images import to_uint8
from ganlens.pages.painting_page import levels_of, program_of, segmenter_program

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("engine")]


@pytest.fixture(scope="module")
def context():
    with chromium() as context:
        yield context


@pytest.fixture(scope="module")
def scenes(context, G, S):
    return Engine(context, program_of(G, list(G.layers)), G.z_dim, segmenter_program(S, G))


def random_edits(G: gl.Generator, random: np.random.Generator, most: int = 3) -> list[gl.Edit]:
    """Up to three edits of layers of their own, as a hand might make them."""
    edits = []
    for layer in random.choice(list(G.layers), random.integers(1, most + 1), replace=False).tolist():
        units, height, width = G.layers[layer]
        chosen = random.choice(units, min(units, int(random.integers(1, 21))), replace=False).tolist()
        region = (random.random((height, width)) < 0.3) * random.choice([1.0, 0.5])
        level = random.choice([0.0, 2.0, *random.normal(0, 3, 2).round(3)])
        edits.append(gl.insert(layer, chosen, float(level), region=region, strength=float(random.choice([1.0, 0.7]))))
    return edits


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "name", ["transposed 4 2 1", "transposed 5 3 1", "oblong", "depthwise", "replicate", "reflect"]
)
def test_steps_of_one_kind(context, name, compiled):
    check(context, CHAINS[name], compiled)


@pytest.mark.parametrize(
    "name",
    [
        *("transposed with more", "convolution 5 2", "batch norm", "pixel norm", "nearest", "bilinear"),
        *("bilinear by corners", "pooling", "two paths", "flat again", "style", "affine twice", "grey"),
    ],
)
def test_other_steps(context, name):
    check(context, CHAINS[name], True)


def check(context, net, compiled: bool) -> None:
    engine = Engine(context, of_net(net), 12, compiled=compiled)
    z = torch.from_numpy(np.random.RandomState(5).standard_normal((1, 12))).float()
    torch.testing.assert_close(engine.numbers(5), net(z)[0].detach(), rtol=1e-4, atol=1e-5)
    engine.page.close()


def compare(engine: Engine, G: gl.Generator, S: gl.Segmenter | None, seeds: int) -> tuple[float, int, int]:
    """Share of bytes that differ, the largest difference, and pixels with another label, over edited pictures."""
    differ = worst = labels = 0
    random = np.random.default_rng(0)
    for seed in random.integers(0, 2**32, seeds).tolist():
        edits = random_edits(G, random)
        x = G.generate([seed], edits)
        picture, shown = engine.render(seed, edits, read=S is not None)
        difference = np.abs(picture.astype(int) - to_uint8(x)[0])
        differ += (difference > 0).mean()
        worst = max(worst, int(difference.max()))
        labels += 0 if S is None else int((shown + 1 != S.labels(x)[0, 0].flatten().numpy()).sum())
    return differ / seeds, worst, labels


def test_pictures_and_labels_are_those_of_torch(scenes, G, S):
    differ, worst, labels = compare(scenes, G, S, 20)
    assert differ < 1e-3
    assert worst <= 1
    assert labels <= 8  # of 81,920


def test_named_levels(scenes, G):
    levels = {"layer4": levels_of(G, "layer4")}
    for level in ("mean", "q0.995"):
        edit = gl.insert("layer4", [3, 99, 182], level)
        expected = to_uint8(G.generate([8], edit))[0]
        assert np.abs(scenes.render(8, [edit], levels)[0].astype(int) - expected).max() <= 1


def test_what_is_known_is_not_computed_again(scenes, G):
    """Edits of layers in any order, undone and done again, on images that take turns: always as if the first."""
    random = np.random.default_rng(3)
    kept = [random_edits(G, random) for _ in range(3)]
    alone = {}
    for step in range(12):
        seed, edits = int(random.integers(2)), int(random.integers(4))
        given = kept[edits] if edits < 3 else []
        found = scenes.render(seed, given)[0]
        expected = alone.setdefault((seed, edits), to_uint8(G.generate([seed], given))[0])
        assert np.abs(found.astype(int) - expected).max() <= 1, step


@pytest.mark.parametrize("name", ["proggan_32.pth", "proggan_64_old.pth"])
def test_other_generators(context, name):
    G = gl.load_generator(DATA / name)
    engine = Engine(context, program_of(G, list(G.layers)), G.z_dim)
    differ, worst, _ = compare(engine, G, None, 5)
    assert (differ < 1e-3, worst <= 1) == (True, True)


def test_latents_are_those_of_numpy(scenes):
    seeds = [*range(2000), 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    for law, draw in (
        ("normal", lambda random: random.standard_normal(64)),
        ("uniform", lambda random: random.uniform(-1, 1, 64)),
    ):
        found = scenes.page.evaluate("([seeds, law]) => seeds.map(seed => [...latent(seed, 64, law)])", [seeds, law])
        expected = [draw(np.random.RandomState(seed)) for seed in seeds]
        np.testing.assert_array_equal(np.array(found, np.float32), np.array(expected, np.float32))


def test_halves(scenes):
    found = scenes.page.evaluate("() => [...HALVES].map(value => Number.isFinite(value) ? value : null)")
    expected = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.array(found, np.float32)[finite], expected[finite])


@pytest.mark.skipif(shutil.which("clang") is None, reason="the compiled loops are built with clang")
def test_the_compiled_loops_are_those_of_the_source(tmp_path):
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout
    if "version 14." not in version:
        pytest.skip("other compilers make other bytes; these are clang 14's")
    source = KERNEL.with_suffix(".c")
    command = next(line for line in source.read_text().splitlines() if "clang --target" in line).strip("/ ").split()
    subprocess.run([*command[:-3], "-o", str(tmp_path / "kernel.wasm"), str(source)], check=True)
    assert (tmp_path / "kernel.wasm").read_bytes() == KERNEL.read_bytes()
