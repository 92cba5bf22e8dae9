"""Networks of transformers: small ones with random weights, saved to a folder, loaded from it and used for real."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import ganlens as gl
from ganlens.segmenters import clipseg, huggingface
from ganlens.segmenters.huggingface import Preparation, class_names

transformers = pytest.importorskip("transformers")

ADE = ["wall", "building, edifice", "sky", "screen, silver screen", "screen, CRT screen"]
FAMILIES = ("segformer", "upernet", "mask2former")

MODELS = huggingface.HUB | {"clipseg": clipseg.MODEL}


def segformer():
    config = transformers.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(ADE)),
    )
    net = transformers.SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(net.decode_head.classifier.weight, std=3)
    return net, {"size": {"height": 64, "width": 64}}


def upernet():
    backbone = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages())
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        id2label={**dict(enumerate(ADE)), 5: "background", 6: "tree"},
    )
    net = transformers.UperNetForSemanticSegmentation(config)
    torch.nn.init.normal_(net.decode_head.classifier.weight, std=3)
    return net, {"size": 96, "do_reduce_labels": True}


def mask2former():
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64, out_features=stages()
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        id2label=dict(enumerate(ADE)),
    )
    net = transformers.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(net.class_predictor.weight, std=3)
    return net, {"size": {"shortest_edge": 60, "longest_edge": 2048}, "size_divisor": 32}


def clipseg():
    config = transformers.CLIPSegConfig(
        text_config={
            "vocab_size": len(vocabulary()),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "bos_token_id": vocabulary()["<|startoftext|>"],
            "eos_token_id": vocabulary()["<|endoftext|>"],
            "pad_token_id": vocabulary()["<|endoftext|>"],
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=8,
        extract_layers=[0, 1, 3],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    size = {"size": {"height": 64, "width": 64}}
    return transformers.CLIPSegForImageSegmentation(config), {**size, "image_mean": [0.5] * 3, "image_std": [0.4] * 3}


def stages():
    return ["stage1", "stage2", "stage3", "stage4"]


def vocabulary():
    """A byte-pair vocabulary: letters, letters at the end of a word, one pair, and the marks."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "tr", "<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}


def save(folder, make):
    """Write a network, its processor's settings and, for CLIPSeg, its tokenizer, in the formats of transformers."""
    torch.manual_seed(1)
    with huggingface.quiet():
        net, settings = make()
        net.save_pretrained(folder)
    whole = {
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        **settings,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(whole))
    if make is clipseg:
        (folder / "vocab.json").write_text(json.dumps(vocabulary()))
        (folder / "merges.txt").write_text("#version: 0.2\nt r\n")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    makers = (segformer, upernet, mask2former, clipseg)
    return {make.__name__: save(tmp_path_factory.mktemp("models") / f"small-{make.__name__}", make) for make in makers}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, folders):
    """Folder, our segmenter, and the network as transformers opens it."""
    opener = transformers.AutoModelForUniversalSegmentation
    if request.param != "mask2former":
        opener = transformers.AutoModelForSemanticSegmentation
    with huggingface.quiet():
        net = opener.from_pretrained(folders[request.param]).eval()
    return folders[request.param], gl.load_segmenter(folders[request.param]), net


@pytest.fixture
def images():
    """Smooth, not square."""
    coarse = torch.rand(5, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (40, 56), mode="bilinear") * 2 - 1


def pillow_processor(folder):
    """The processor of transformers that needs no torchvision."""
    name = json.loads((folder / "config.json").read_text())["model_type"]
    if name == "mask2former":
        from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

        return Mask2FormerImageProcessorPil.from_pretrained(folder)
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    return SegformerImageProcessorPil.from_pretrained(folder)


class TestAgainstTransformers:
    @pytest.mark.parametrize("size", [(40, 56), (64, 64), (150, 130)])
    def test_preparation(self, family, size):
        """Resized and normalised as by the model's own processor, which rounds to bytes in between."""
        folder, S, _ = family
        pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
        theirs = pillow_processor(folder)(list(pixels), return_tensors="pt")["pixel_values"]
        ours = S.prepare(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1.01 / 255 / 0.224

    def test_labels(self, family, images):
        """The same as the model's own post-processing, from the same input."""
        folder, S, net = family
        with torch.no_grad():
            found = net(pixel_values=S.prepare(images))
        theirs = pillow_processor(folder).post_process_semantic_segmentation(found, [(384, 384)] * 5)
        classes = torch.stack(list(theirs))
        S.grid = (384, 384)
        ours = S.labels(images)
        S.grid = None
        assert len(classes.unique()) >= 2, "the test shows something only where several classes occur"
        assert ours.shape == (5, 1, 384, 384)
        assert (S.number[classes] == ours[:, 0]).float().mean() > 0.9999

    def test_scores(self, family, images):
        _, S, _ = family
        scores, labels = S.scores(images), S.labels(images)
        assert scores.shape == (5, len(S.concepts), 40, 56)
        assert labels.shape == (5, 1, 40, 56)
        assert scores.min() >= 0
        assert scores.max() <= 1
        assert scores.sum(1).max() <= 1 + 1e-5
        on = labels[:, 0] > 0
        assert torch.equal((scores.argmax(1) + 1)[on], labels[:, 0][on])

    def test_batches(self, family, images):
        folder, S, _ = family
        alone = gl.load_segmenter(folder, batch_size=1)
        torch.testing.assert_close(alone.scores(images), S.scores(images), atol=1e-4, rtol=1e-4)
        assert alone.fingerprint == S.fingerprint

    def test_gradient(self, family, images):
        """Of scores, to the images: as the difference quotient along it says."""
        _, S, _ = family
        x = (images[:1] * 0.9).double().float().requires_grad_()
        score = S.scores(x)[:, 0].mean()
        (gradient,) = torch.autograd.grad(score, x)
        step = 0.005 * gradient / gradient.norm()
        with torch.no_grad():
            difference = S.scores(x + step)[:, 0].mean() - S.scores(x - step)[:, 0].mean()
        assert difference == pytest.approx(float(2 * (gradient * step).sum()), rel=0.15)
        assert all(not p.requires_grad for p in S.net.parameters())


class TestSettings:
    def test_size_and_grid(self, folders, images):
        S = gl.load_segmenter(folders["segformer"], size=32, grid=(10, 14))
        assert S.prepare(images).shape == (5, 3, 32, 44)
        assert S.labels(images).shape == (5, 1, 10, 14)
        assert S.scores(images).shape == (5, 5, 10, 14)
        assert gl.load_segmenter(folders["segformer"], size=(64, 32)).prepare(images).shape[2:] == (64, 32)
        assert S.fingerprint != gl.load_segmenter(folders["segformer"]).fingerprint

    @pytest.mark.parametrize("options", [{"size": 0}, {"grid": (4,)}, {"grid": (0, 4)}, {"batch_size": 0}])
    def test_refused(self, folders, options):
        with pytest.raises(ValueError, match="expected"):
            gl.load_segmenter(folders["segformer"], **options)

    def test_names(self, folders):
        S = gl.load_segmenter(str(folders["upernet"]))
        assert [c.name for c in S.concepts] == ["wall", "building", "sky", "screen", "CRT screen", "tree"]
        assert S.name == "small-upernet"
        assert class_names(["a, b", "a, b", "a, b", "a"]) == ["a", "b", "a 2", "a 3"]

    def test_background_is_none(self, folders, images):
        S = gl.load_segmenter(folders["upernet"])
        evidence = torch.zeros(5, 7, 40, 56)
        evidence[:, 5, :20] = evidence[:, 6, 20:] = 1
        S.evidence = lambda x: evidence[: len(x)]
        labels = S.labels(images)
        assert (labels[:, :, :20] == 0).all()
        assert (labels[:, :, 20:] == 6).all()
        assert S.concepts[5].name == "tree"

    def test_grey(self, folders, images):
        S = gl.load_segmenter(folders["segformer"])
        assert torch.equal(S.labels(images[:, :1]), S.labels(images[:, :1].repeat(1, 3, 1, 1)))
        with pytest.raises(ValueError, match=r"needs images of 3 channels, or grey ones of 1; got \(4, 2, 40, 56\)"):
            S.labels(images[:, :2])

    @pytest.mark.parametrize(
        ("config", "images_are", "input_is"),
        [
            ({"size": 512}, (256, 256), (512, 512)),
            ({"size": 512, "max_size": 2048}, (100, 200), (512, 1024)),
            ({"size": {"shortest_edge": 30, "longest_edge": 50}}, (20, 40), (25, 50)),
            ({"size": {"height": 8, "width": 6}}, (20, 40), (8, 6)),
            ({"size": [8, 6]}, (20, 40), (8, 6)),
            ({"do_resize": False, "size": 512}, (20, 40), (20, 40)),
            ({"size": {"shortest_edge": 30}, "size_divisibility": 32}, (64, 40), (64, 32)),
        ],
    )
    def test_input_sizes(self, config, images_are, input_is):
        assert Preparation.from_config(config).target(*images_are) == input_is

    def test_normalisation(self):
        x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
        plain = Preparation.from_config({"do_resize": False, "do_normalize": False})(x)
        assert plain.flatten().tolist() == [0, 0.5, 1]
        raw = {"do_resize": False, "do_normalize": False, "do_rescale": False, "do_flip_channel_order": True}
        assert Preparation.from_config(raw)(x).flatten().tolist() == [255, 127.5, 0]


class TestLoading:
    def test_is_silent(self, folders, capfd):
        gl.load_segmenter(folders["segformer"])
        assert capfd.readouterr() == ("", "")

    def test_without_transformers(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ImportError, match=r"needs transformers, which is not installed: pip install"):
            gl.load_segmenter("upernet")
        with pytest.raises(ImportError, match=r"pip install 'ganlens\[segmenters\]'"):
            gl.load_segmenter("clipseg", concepts=["tree"])

    @pytest.mark.parametrize("name", ["segformer", "someone/some-model"])
    def test_offline(self, name, monkeypatch, tmp_path):
        """Nothing listens there: the error comes at once and names the files, their page and where to put them."""
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        page = f"https://huggingface.co/{MODELS.get(name, name)}/tree/main"
        with pytest.raises(OSError, match="is not in the cache and cannot be downloaded") as caught:
            gl.load_segmenter(name)
        assert page in str(caught.value)
        assert "config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin" in str(caught.value)
        assert "load_segmenter('path/to/folder')" in str(caught.value)
        model = MODELS.get(name, name)
        kept = model.replace("/", "--")
        assert re.search(rf"hf download {model}`.*bring the folder models--{kept} to /\S+", str(caught.value))

    @pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
    def test_missing_file(self, folders, missing, tmp_path):
        for path in folders["segformer"].iterdir():
            if path.name != missing:
                (tmp_path / path.name).write_bytes(path.read_bytes())
        with pytest.raises(OSError, match=f"{tmp_path} cannot be opened: .*{missing}"):
            gl.load_segmenter(tmp_path)

    def test_weights_without_head(self, tmp_path):
        """A backbone alone would segment at random."""

        def backbone():
            net, settings = segformer()
            net.segformer.config.architectures = None
            return net.segformer, settings

        save(tmp_path, backbone)
        config = json.loads((tmp_path / "config.json").read_text())
        config["architectures"] = ["SegformerForSemanticSegmentation"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"the weights of .* lack \d+ tensors of a SegformerForSem.*decode_head"):
            gl.load_segmenter(tmp_path)

    def test_other_kinds(self, folders, tmp_path):
        config = json.loads((folders["segformer"] / "config.json").read_text())
        for kind, message in [("SegformerForImageClassification", "is a SegformerForImageClassification; expected")]:
            (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": [kind]}))
            with pytest.raises(ValueError, match=message):
                gl.load_segmenter(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "novel"}')
        with pytest.raises(ValueError, match="has a configuration that transformers does not know"):
            gl.load_segmenter(tmp_path)

    def test_nothing_is_executed(self, folders, tmp_path):
        """Neither code beside the model nor a pickle in place of the weights."""
        ran = tmp_path / "ran"
        code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        config = json.loads((folders["segformer"] / "config.json").read_text())
        auto = {"AutoConfig": "evil.Config", "AutoModelForSemanticSegmentation": "evil.Net"}
        (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
        (tmp_path / "evil.py").write_text(code)
        (tmp_path / "preprocessor_config.json").write_text("{}")

        class Evil:
            def __reduce__(self):
                return exec, (code,)

        torch.save({"weight": Evil()}, tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match="hold more than tensors; nothing in them was executed"):
            gl.load_segmenter(tmp_path)
        assert not ran.exists()

    @pytest.mark.parametrize("keep", [0, 100, -200])
    def test_damaged_weights(self, folders, tmp_path, keep):
        shutil.copytree(folders["segformer"], tmp_path, dirs_exist_ok=True)
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"the weights of .* are damaged or of another network"):
            gl.load_segmenter(tmp_path)

    def test_weights_of_other_shapes(self, folders, tmp_path):
        shutil.copytree(folders["segformer"], tmp_path, dirs_exist_ok=True)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_hidden_size": 32}))
        with pytest.raises(ValueError, match=r"the weights of .* are damaged or of another network"):
            gl.load_segmenter(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]"])
    def test_damaged_settings(self, folders, tmp_path, text):
        shutil.copytree(folders["segformer"], tmp_path, dirs_exist_ok=True)
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(ValueError, match=r"preprocessor_config\.json of .* is damaged"):
            gl.load_segmenter(tmp_path)

    def test_pickled_weights_without_code(self, folders, images, tmp_path):
        """As older models have them: read as tensors only."""
        from safetensors.torch import load_file

        shutil.copytree(folders["segformer"], tmp_path, dirs_exist_ok=True)
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
        S = gl.load_segmenter(tmp_path)
        assert torch.equal(S.labels(images), gl.load_segmenter(folders["segformer"]).labels(images))

    def test_short_names(self, monkeypatch):
        asked = []

        def refuse(source):
            asked.append(source)
            raise OSError("not here")

        monkeypatch.setattr(huggingface, "open_pretrained", refuse)
        for name in ("upernet", "upernet-swin", "segformer", "mask2former", "someone/some.model-1"):
            with pytest.raises(OSError, match="not here"):
                gl.load_segmenter(name)
        assert asked == [*list(MODELS.values())[:4], "someone/some.model-1"]

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="no segmenter 'segforma' in ganlens; did you mean 'segformer'"):
            gl.load_segmenter("segforma")
        with pytest.raises(ValueError, match="no segmenter 'no/such/folder' in ganlens"):
            gl.load_segmenter("no/such/folder")

    def test_half_precision_file(self, images, tmp_path):
        def half():
            net, settings = segformer()
            return net.bfloat16(), settings

        S = gl.load_segmenter(save(tmp_path, half))
        assert S.scores(images).dtype == torch.float32

    def test_file(self, tmp_path):
        path = tmp_path / "net.pth"
        path.write_bytes(b"")
        with pytest.raises(OSError, match=r"has no config\.json; give the folder of a model of transformers"):
            gl.load_segmenter(path)

    @pytest.mark.slow
    def test_cached_model_needs_no_network(self, folders, tmp_path):
        """A model in the cache of transformers is used as it is, at once and in silence."""
        cache = tmp_path / "hub" / "models--someone--small"
        shutil.copytree(folders["clipseg"], cache / "snapshots" / "0123abc")
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("0123abc")
        code = """if True:
            import ganlens as gl, torch
            from ganlens.segmenters import huggingface
            huggingface.check_reachable = None
            S = gl.load_segmenter("someone/small", concepts=["tree"])
            print(S.name, tuple(S.labels(torch.zeros(1, 3, 8, 8)).shape))
        """
        environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
        environment.pop("HF_HUB_CACHE", None)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("small (1, 1, 8, 8)\n", "")


class TestTyped:
    def test_scores(self, folders, images):
        """As the network itself gives for each image and each text, one at a time."""
        words = ["tree", "a red roof", "ivy"]
        S = gl.load_segmenter(folders["clipseg"], concepts=words, batch_size=2)
        with huggingface.quiet():
            net = transformers.CLIPSegForImageSegmentation.from_pretrained(folders["clipseg"]).eval()
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folders["clipseg"])
        scores = S.scores(images)
        assert scores.shape == (5, 3, 40, 56)
        for n, (c, word) in [(n, pair) for n in range(5) for pair in enumerate(words)]:
            with torch.no_grad():
                logits = net(**tokenizer(word, return_tensors="pt"), pixel_values=S.prepare(images[n : n + 1])).logits
            fine = torch.nn.functional.interpolate(logits.view(1, 1, 64, 64), (40, 56), mode="bilinear")
            torch.testing.assert_close(scores[n, c], fine[0, 0].sigmoid(), atol=1e-4, rtol=1e-4)
        assert (scores[:, 0] - scores[:, 1]).abs().max() > 1e-3

    def test_labels(self, folders, images):
        concepts = ["tree", ("brick", "material"), "ivy"]
        S = gl.load_segmenter(folders["clipseg"], concepts=concepts, threshold=0.4, grid=(8, 8))
        scores, labels = S.scores(images), S.labels(images)
        assert labels.shape == (5, 2, 8, 8)
        assert torch.equal(labels[:, 1] == 2, scores[:, 1] > 0.4)
        assert torch.equal(labels[:, 0] == 1, (scores[:, 0] > 0.4) & (scores[:, 0] >= scores[:, 2]))

    def test_gradient_reaches_the_images(self, folders, images):
        x = images.clone().requires_grad_()
        S = gl.load_segmenter(folders["clipseg"], concepts="tree")
        S.scores(x).mean().backward()
        assert x.grad.abs().sum() > 0
        assert [str(c) for c in S.concepts] == ["tree"]

    def test_prompt(self, folders, images):
        plain = gl.load_segmenter(folders["clipseg"], concepts=["a photo of a tree"])
        asked = gl.load_segmenter(folders["clipseg"], concepts=["tree"], prompt="a photo of a {}")
        torch.testing.assert_close(plain.scores(images), asked.scores(images))
        assert plain.fingerprint != asked.fingerprint

    def test_refused(self, folders):
        with pytest.raises(ValueError, match=r"type what to look for: load_segmenter\('clipseg', concepts="):
            gl.load_segmenter("clipseg")
        with pytest.raises(ValueError, match="is a CLIPSeg, which finds what you type"):
            gl.load_segmenter(folders["clipseg"])
        with pytest.raises(ValueError, match="a concept is listed twice"):
            gl.load_segmenter(folders["clipseg"], concepts=["a", "a"])
        with pytest.raises(ValueError, match="is a segformer, which has its own concepts"):
            gl.load_segmenter(folders["segformer"], concepts=["a"])

    def test_tokenizer_is_missing(self, tmp_path):
        save(tmp_path, clipseg)
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            (tmp_path / name).unlink()
        with pytest.raises(OSError, match=r"knows \d+ of \d+ tokens; put vocab\.json, merges\.txt"):
            gl.load_segmenter(tmp_path, concepts=["tree"])


@pytest.mark.parametrize("name", [*FAMILIES, "clipseg"])
def test_dissection(folders, name, G):
    options = {"concepts": ["tree", "sky"]} if name == "clipseg" else {}
    S = gl.load_segmenter(folders[name], **options)
    D = gl.dissect(G, S + gl.load_segmenter("colors"), "layer3", n=8, progress=False)
    assert D.iou.shape[1] == len(S.concepts) + 11
    assert np.isfinite(D.iou).all()


def test_options_are_documented():
    """`load_segmenter` lists the options of the segmenters behind it."""
    from ganlens.segmenters.clipseg import ClipSegSegmenter

    for kind in (huggingface.HuggingFaceSegmenter, ClipSegSegmenter):
        for name in list(inspect.signature(kind).parameters)[1:]:
            assert f"``{name}``" in gl.load_segmenter.__doc__
