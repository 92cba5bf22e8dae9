"""A classifier with images is taken like a generator: the same dissection, gallery, heat map and report."""

import copy
import pickle
import re
import shutil

import classifiers
import numpy as np
import planted
import pytest
import torch
from PIL import Image
from torch import nn

import ganlens as gl
from ganlens import Classifier
from ganlens.models.editing import ablate, insert
from ganlens.models.photographs import read_picture
from ganlens.recipe import Recipe
from ganlens.segmenters.base import Segmenter


@pytest.fixture
def C():
    return classifiers.sign_classifier()


@pytest.fixture(scope="module")
def S2():
    return Segmenter.wrap(planted.two_planes, planted.TWO_PLANES)


def pictures(n: int = 12, size: int = 16) -> np.ndarray:
    """Pictures (n, size, size, 3) of noise, coarse enough that no file format loses it in PNG."""
    return np.random.default_rng(3).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of two classes, as files."""
    for i, picture in enumerate(pictures()):
        path = tmp_path / "photos" / ("tower" if i % 3 else "dome") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "photos"


def small(classes: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(inplace=True)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


# ---- images at hand


def test_image_i_is_seed_i(C, untouched):
    x, labels = classifiers.signs()
    untouched(C.net)
    assert (C.count, C.image_shape, C.class_names) == (60, (3, 8, 8), ("red", "green", "blue"))
    assert C.layers == {"layer": (6, 8, 8), "late": (3, 8, 8)}
    assert torch.equal(C.latents([7, 2]), x[[7, 2]])
    assert C.truth.tolist() == labels.tolist()
    images, features = C.read(C.latents(range(5)), ["layer"])
    assert torch.equal(images, x[:5])
    assert torch.allclose(features["layer"][:, 2], (x[:5, 0] + 1) / 2)
    assert torch.allclose(C.scores(range(60)), C.net(x))


def test_edits_change_scores(C, untouched):
    untouched(C.net)
    before, after = C.scores(range(9)), C.scores(range(9), [ablate("layer", [2]), insert("layer", [4], level=2.0)])
    assert torch.equal(after[:, 0], torch.zeros(9))
    assert torch.allclose(after[:, 1], torch.full((9,), 2.0))
    assert torch.equal(after[:, 2], before[:, 2])
    half = C.scores(range(9), ablate("layer", [2], region=np.tile(np.arange(8) < 4, (8, 1))))
    red = (C.latents(range(9))[:, 0] + 1) / 2
    assert torch.allclose(half[:, 0], red[:, :, 4:].sum((1, 2)) / 64)


def test_scores_do_not_depend_on_the_batch():
    C = Classifier.wrap(small(), classifiers.signs(40)[0])
    every = C.scores(range(40))
    assert torch.allclose(C.scores(range(40), batch_size=7), every, atol=1e-6)
    assert torch.allclose(torch.cat([C.scores(i) for i in range(40)]), every, atol=1e-6)


def test_an_opened_layer_gives_the_scores_of_a_whole_pass(untouched):
    C = Classifier.wrap(small(), classifiers.signs(20)[0])
    untouched(C.net)
    opened = C.open("1", range(10))
    edits = [ablate("1", [0, 3]), ablate("3", [1])]
    assert torch.allclose(opened.scores(), C.scores(range(10)), atol=1e-6)
    assert torch.allclose(opened.scores(edits), C.scores(range(10), edits), atol=1e-6)
    assert torch.equal(opened.image, C.latents(range(10)))
    assert torch.allclose(opened.resume(opened.features), C.scores(range(10)), atol=1e-6)
    assert torch.allclose(C.resume("1", opened.features), C.scores(range(10)), atol=1e-6)
    with pytest.raises(ValueError, match="'0' lies in front of '1'"):
        opened.scores(ablate("0", [0]))


class Sidestep(nn.Module):
    """Hands something on by an attribute, so that it cannot be resumed behind its first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Identity()
        self.second.register_forward_hook(self.note)

    def note(self, module, inputs, output):
        self.kept = output.mean((2, 3))

    def forward(self, x):
        self.second(self.first(x))
        return self.kept


def test_a_network_that_cannot_be_resumed_is_right_all_the_same():
    C = Classifier.wrap(Sidestep(), classifiers.signs(20)[0])
    with pytest.warns(UserWarning, match="cannot be resumed"):
        opened = C.open("second", range(6))
    edit = ablate("second", [1])
    assert torch.allclose(opened.scores(edit), C.scores(range(6), edit), atol=1e-6)


class Returning(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 4, 1), form

    def forward(self, x):
        return self.form(self.conv(x))


@pytest.mark.parametrize(
    "form",
    [
        lambda r: {"features": r, "logits": r.mean((2, 3))},
        lambda r: (r.mean((2, 3)), r.amax((2, 3))),
        lambda r: r.mean((2, 3), keepdim=True),
    ],
)
def test_scores_are_found_in_what_the_network_returns(form):
    x, _ = classifiers.signs(8)
    C = Classifier.wrap(Returning(form), x)
    assert torch.allclose(C.scores(range(8)), C.net.conv(x).mean((2, 3)), atol=1e-6)
    assert C.class_names == ("0", "1", "2", "3")


def test_inputs_are_prepared():
    x, _ = classifiers.signs(8)
    net = Returning(lambda r: r.mean((2, 3)))
    plain = (x + 1) / 2
    means, deviations = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    usual = torch.stack([(plain[:, c] - means[c]) / deviations[c] for c in range(3)], 1)
    for inputs, expected in (("[0,1]", plain), ("imagenet", usual), (lambda x: x.flip(3) * 3, x.flip(3) * 3)):
        C = Classifier.wrap(net, x, inputs=inputs)
        assert torch.allclose(C.scores(range(8)), net(expected), atol=1e-5)
        assert torch.equal(C.latents(range(8)), x)  # what is shown and segmented stays as it is


def test_levels_are_those_of_the_images(C):
    x, _ = classifiers.signs()
    assert C.levels("layer").mean()[2].item() == pytest.approx(((x[:, 0] + 1) / 2).mean().item(), abs=1e-4)


# ---- a folder


def test_a_folder_is_read_as_it_is(folder):
    C = Classifier.wrap(small(), folder)
    assert C.class_names == ("dome", "tower")
    assert C.image_shape == (3, 16, 16)
    for i, path in enumerate(C.files):
        number = int(path.stem)
        assert np.array_equal(np.rint((C.latents(i)[0].numpy() + 1) * 127.5), np.moveaxis(pictures()[number], 2, 0))
        assert C.class_names[C.truth[i]] == path.parent.name


def test_the_first_images_of_a_folder_are_of_all_classes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(50):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / name / f"{i:03d}.png")
    C = Classifier.wrap(small(), tmp_path)
    assert 10 <= C.truth[:40].sum() <= 30
    assert 10 <= C.truth[::2].sum() <= 40  # the rule "iqr" chooses on even images and scores on odd ones
    assert sorted(C.files) == sorted(tmp_path.glob("*/*.png"))
    assert Classifier.wrap(small(), tmp_path).files == C.files


def test_files_are_read_when_they_are_needed(folder):
    C = Classifier.wrap(small(), folder, size=16)
    C.files[5].write_bytes(b"no image")
    C.scores(range(5))
    with pytest.raises(ValueError, match=f"{re.escape(str(C.files[5]))}: not an image that can be read"):
        C.scores(range(6))
    good = C.files[6].read_bytes()
    C.files[6].write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=f"{re.escape(str(C.files[6]))}: not an image that can be read"):
        C.latents([6])


def test_images_are_scaled_and_cut_around_their_centre(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the square in the middle
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.swapaxes(0, 1)).save(tmp_path / "tall.png")
    for name in ("wide", "tall"):
        assert (read_picture(tmp_path / f"{name}.png", (10, 10))[1:-1, 1:-1] >= 198).all()
    assert read_picture(tmp_path / "wide.png", (5, 15)).shape == (5, 15, 3)


def test_images_of_all_modes_are_read(tmp_path):
    grey = np.full((8, 8), 128, np.uint8)
    made = {
        "grey.png": Image.fromarray(grey),
        "cmyk.jpg": Image.new("CMYK", (8, 8), (0, 0, 0, 127)),
        "bits.png": Image.new("1", (8, 8), 1),
        "sixteen.png": Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)),
        "clear.png": Image.new("RGBA", (8, 8), (255, 0, 0, 0)),
        "half.png": Image.new("LA", (8, 8), (0, 127)),
    }
    expected = {"grey": 128, "cmyk": 128, "bits": 255, "sixteen": 128, "clear": 255, "half": 128}
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 8, 7] * 256)
    palette.save(tmp_path / "palette.png", transparency=0)
    for name, picture in made.items():
        picture.save(tmp_path / name)
    found = {path.stem: read_picture(path, (8, 8)) for path in tmp_path.iterdir()}
    assert (found.pop("palette") == 255).all()
    for name, picture in found.items():
        assert np.abs(picture.astype(int) - expected[name]).max() <= 2, name


def test_photographs_are_turned_upright(tmp_path):
    picture = pictures(1, 16)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(np.rot90(picture)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "turned.png", (16, 16)), picture)


def test_a_folder_without_subfolders_has_no_classes(folder):
    C = Classifier.wrap(small(), folder / "tower", class_names=["dome", "tower"])
    assert set(C.truth) == {-1}
    assert C.scores([0]).shape == (1, 2)


def test_classes_can_be_named_in_the_order_of_the_scores(folder):
    C = Classifier.wrap(small(3), folder, class_names=["tower", "barn", "dome"])
    assert [C.class_names[c] for c in C.truth] == [path.parent.name for path in C.files]


# ---- one analysis for both


def test_a_folder_and_a_tensor_give_the_same_dissection(folder, S2):
    A = Classifier.wrap(small(), folder)
    order = [int(path.stem) for path in A.files]
    B = Classifier.wrap(small(), pictures()[order])
    a, b = (gl.dissect(C, S2, "1", n=12, rule=["quantile", "iqr"], progress=False) for C in (A, B))
    for rule in a:
        assert np.array_equal(a[rule].iou, b[rule].iou)
        assert np.array_equal(a[rule].top, b[rule].top)


def test_a_dissection_counts_pixels_of_the_images(S2):
    """The same as a count by hand: where units are on, and where the concept is."""
    x, _ = classifiers.signs(20)
    C = Classifier.wrap(classifiers.Signs(), x)
    D = gl.dissect(C, S2, "layer", n=20, batch_size=8, progress=False)
    r = (x[:, 1] + 1) / 2
    on = r > float(D.thresholds_by_concept[4, 0])
    there = (planted.two_planes(x) == 1).any(1)
    assert D.on[4, 0] == on.sum()
    assert D.overlap[4, 0] == (on & there).sum()
    assert D.area[0] == there.sum()
    assert D.top[4, 0] == r.flatten(1).amax(1).argmax()


def test_it_is_shown_saved_loaded_and_reported(folder, S2, tmp_path):
    C = Classifier.wrap(small(), folder, name="two types")
    D = gl.dissect(C, S2, "1", n=12, progress=False)
    assert gl.UnitGallery(D).D is D
    assert gl.IoUHeatmap(D).D is D
    assert D.strip(0, 3).shape[2] == 3
    D.save(tmp_path / "d.npz")
    again = gl.Dissection.load(tmp_path / "d.npz", Classifier.wrap(small(), folder), S2)
    assert np.array_equal(again.iou, D.iou)
    assert np.array_equal(again.strip(0, 3), D.strip(0, 3))
    gl.report(D, tmp_path / "d.html")
    page = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "two types" in page
    assert page.count("data:image/") >= 5
    other = Classifier.wrap(small(), pictures())
    with pytest.raises(ValueError, match="was made with the generator two types"):
        gl.Dissection.load(tmp_path / "d.npz", other, S2)


def test_the_fingerprint_is_that_of_network_and_images(folder, tmp_path):
    def fingerprint(path, net=None, **options):
        return Classifier.wrap(net or small(), path, **options).fingerprint

    found = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == found
    seen = {found, fingerprint(folder, size=8), fingerprint(folder, inputs="[0,1]")}
    net = small()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1
    seen |= {fingerprint(folder, net), fingerprint(folder / "tower")}
    path = next((tmp_path / "copy" / "tower").iterdir())
    path.rename(path.with_name("99.png"))
    seen.add(fingerprint(tmp_path / "copy"))
    x = classifiers.signs()[0]
    seen.add(Classifier.wrap(small(), x).fingerprint)
    x[3, 0, 0, 0] *= 0.5
    seen.add(Classifier.wrap(small(), x).fingerprint)
    assert len(seen) == 8


def test_it_can_be_sent_to_another_process(folder):
    for images in (folder, pictures()):
        C = Classifier.wrap(small(), images, inputs="imagenet")
        other = pickle.loads(pickle.dumps(C))
        assert torch.equal(other.scores(range(12)), C.scores(range(12)))
        assert other.fingerprint == C.fingerprint


def test_equal_ones_have_the_same_network_and_images(C):
    x, labels = classifiers.signs()
    same = copy.copy(C)
    assert same == C
    assert Classifier.wrap(C.net, x, labels, class_names=classifiers.COLORS, name="signs") != C
    assert {C: 1}[same] == 1
    assert repr(C) == "<Classifier signs: 3 classes, 2 layers, 60 images 8x8>"
    assert "signs" in C._repr_html_()


# ---- what cannot be had


def test_what_needs_edited_images_says_so(C, S2):
    D = gl.dissect(C, S2, "layer", n=16, progress=False)
    for ask in (
        lambda: gl.InterventionCanvas(D),
        lambda: gl.replay(Recipe("signs", C.fingerprint, 0, edits=[ablate("layer", [0])]), C),
        lambda: gl.ablation_effect(D, "hot", k=1, n=4, progress=False),
        lambda: gl.ablation_effect(D, "hot", k=1, n=4, sample=0, progress=False),
        lambda: gl.unit_effects(D, n=4, progress=False),
        lambda: gl.unit_effects(D, n=4, sample=0, progress=False),
        lambda: gl.context(D, "hot", units=[0], n=4, progress=False),
        lambda: gl.insertion_effect(D, "hot", k=1, n=4, progress=False),
        lambda: gl.average_causal_effect(D, "hot", k=1, n=4, progress=False),
        lambda: gl.optimize_units(D, "hot", n=4, progress=False),
        lambda: gl.unit_gradients(D, n=4, progress=False),
        lambda: gl.find_artifacts(D, n=4, reference=C.latents(range(8)), progress=False),
    ):
        with pytest.raises(ValueError, match=r"change its scores, not its images: use C.scores"):
            ask()


def test_there_are_no_other_images(C, S2):
    for options in ({"n": 61}, {"n": 10, "sample": 1}, {}):
        with pytest.raises(
            ValueError, match="signs has 60 images, which are one sample; give sample=0 and n=60 or fewer"
        ):
            gl.dissect(C, S2, "layer", progress=False, **options)
    with pytest.raises(ValueError, match="image 60: signs has images 0 … 59"):
        C.latents([3, 60])
    with pytest.raises(ValueError, match="did you mean 'layer'"):
        C.scores([0], ablate("layr", [0]))
    with pytest.raises(ValueError, match="labels were given"):
        C.read(C.latents([0]), ["layer"], labels=torch.tensor([0]))
    with pytest.raises(ValueError, match=r"images of shape \(2, 3, 4, 4\): expected \(N, 3, 8, 8\)"):
        C.forward(torch.zeros(2, 3, 4, 4))


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        Classifier.wrap(small(), tmp_path / "none")
    (tmp_path / "dome").mkdir()
    (tmp_path / "dome" / "notes.txt").write_text("no image")
    (tmp_path / "dome" / ".hidden.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no images in it or in its subfolders; expected files that end in .bmp"):
        Classifier.wrap(small(), tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "dome" / "a.png")
    with pytest.raises(ValueError, match="1 images; expected at least 8"):
        Classifier.wrap(small(), tmp_path)


def test_files_that_do_not_fit(folder):
    shutil.copy(folder / "dome" / "00.png", folder / "00.png")
    with pytest.raises(ValueError, match=r"has images \(00.png …\) and subfolders with images"):
        Classifier.wrap(small(), folder)
    (folder / "00.png").unlink()
    Image.new("RGB", (16, 20)).save(folder / "dome" / "99.png")
    with pytest.raises(ValueError, match=r"images of several sizes .* size=224"):
        Classifier.wrap(small(), folder)
    assert Classifier.wrap(small(), folder, size=(20, 16)).image_shape == (3, 20, 16)
    (folder / "dome" / "99.png").write_text("no image")
    with pytest.raises(ValueError, match=r"99.png: not an image that can be read"):
        Classifier.wrap(small(), folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1]}, r"labels of shape \(2,\): expected one for each of 12 images"),
        ({"labels": [0] * 11 + [2]}, "label 2: Sequential gives 2 scores; labels are 0 … 1"),
        ({"labels": [0.5] * 12}, "labels: expected whole numbers from 0"),
        ({"labels": [-2] * 12}, "labels: expected whole numbers from 0"),
        ({"labels": ["dome"] * 12}, "labels are names: give class_names="),
        ({"labels": ["dom"] * 12, "class_names": ["dome", "tower"]}, "no class 'dom' in .* did you mean 'dome'"),
        ({"class_names": ["dome"]}, r"1 classes \(dome\), but Sequential gives 2 scores; give class_names="),
        ({"class_names": ["dome"] * 2}, "expected different names, one for each score"),
        ({"class_names": "ab"}, "expected different names, one for each score"),
        ({"size": 8}, "size is for images of a folder"),
        ({"inputs": "imagnet"}, "no inputs 'imagnet' .* did you mean 'imagenet'"),
        ({"inputs": lambda x: x[:, :1]}, r"could not be called with images \(2, 3, 16, 16\)"),
        ({"layers": ["7"]}, "no layer '7' in Sequential"),
    ],
)
def test_labels_and_classes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Classifier.wrap(small(), pictures(), **options)


def test_folders_and_classes_that_do_not_fit(folder):
    with pytest.raises(ValueError, match=r"2 classes \(dome, tower\), but Sequential gives 3 scores"):
        Classifier.wrap(small(3), folder)
    with pytest.raises(ValueError, match=r"no class 'dome' in .* did you mean 'domes'"):
        Classifier.wrap(small(), folder, class_names=["domes", "tower"])
    with pytest.raises(ValueError, match="labels are for images at hand"):
        Classifier.wrap(small(), folder, labels=[0] * 12)
    for size in (0, 2.5, (3,), "8"):
        with pytest.raises(ValueError, match="expected a number of pixels"):
            Classifier.wrap(small(), folder, size=size)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(8, 16, 16, 3), torch.zeros(8, 3, 16), torch.zeros(8, 3, 4, 4, dtype=torch.int32), [1, 2], None],
)
def test_images_that_are_none(images):
    with pytest.raises(ValueError, match="expected a path, a tensor"):
        Classifier.wrap(small(), images)


def test_images_out_of_range():
    for value in (2.0, float("nan")):
        with pytest.raises(ValueError, match="values up to"):
            Classifier.wrap(small(), torch.full((8, 3, 16, 16), value))


def test_networks_that_return_something_else():
    x = classifiers.signs(8)[0]
    for net in (
        nn.Conv2d(3, 4, 1),
        Returning(lambda r: r.mean((1, 2, 3))),
        Returning(lambda r: r.argmax(1).flatten(1)),
    ):
        with pytest.raises(ValueError, match=r"expected scores \(N, K\)"):
            Classifier.wrap(net, x)
