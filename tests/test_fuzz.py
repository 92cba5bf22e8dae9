"""Whatever is given to the public functions: an answer, or an error that they document, and never any trace.

``GANLENS_FUZZ=2000 pytest tests/test_fuzz.py`` tries 2,000 examples of every function in place of a few. Examples are
always the same, for a given number of them and release of hypothesis.
"""

import dataclasses
import functools
import json
import os
import re
import sys
import warnings
from collections.abc import Collection
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import strategies as any_
import torch
import traitlets
from classifiers import Signs, sign_classifier
from classifiers import signs as signs_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from planted import COLORS, Wiring, channels

import ganlens as gl
from ganlens.dissection.result import Dissection
from ganlens.recipe import Recipe

matplotlib.use("agg")
EXAMPLES = int(os.environ.get("GANLENS_FUZZ", 0))
SMALL = st.integers(1, 6)
DOCUMENTED = re.compile("given; expected|expected a Dissection|gives labels only")  # the TypeErrors that are meant


def fuzzed(few: int = 25, never: Collection[str] | None = (), **strategies):
    """Run a test with examples of these arguments, always the same ones.

    Every function that the test calls must accept some example, but those in ``never``; None asks nothing.
    """
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=EXAMPLES or few, deadline=None, derandomize=True, database=None, suppress_health_check=quiet
    )

    def decorate(test):
        tried = chosen(given(**strategies)(test))

        @functools.wraps(tried)
        def run(*fixtures, **named):
            CALLED.clear(), ACCEPTED.clear()
            tried(*fixtures, **named)
            assert never is None or set(never) == CALLED - ACCEPTED, "these accepted no example, or now do"

        return run

    return decorate


# ---- the law

CALLED, ACCEPTED = set(), set()  # names of the functions that were fuzzed in a test, and that took an example


def refused(function, *arguments, **options) -> bool:
    """Whether a call was refused with an error that may be; every other error, and every warning, is a failure."""
    name = getattr(function, "__qualname__", repr(function))
    CALLED.add(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            function(*arguments, **options)
        except (ValueError, traitlets.TraitError, OSError) as error:
            said = error
        except TypeError as error:
            if not by_signature(error) and not DOCUMENTED.search(str(error)):
                raise
            said = error
        else:
            ACCEPTED.add(name)
            return False
    assert len(str(said)) > 8
    return True


def by_signature(error: TypeError) -> bool:
    """Whether Python itself refused a call for its arguments, before anything ran."""
    return re.search(r"argument", str(error)) and error.__traceback__.tb_next is None


class Lab:
    """A generator of known wiring, dissected; `check` finds whatever a call has left on it."""

    def __init__(self):
        self.G = gl.Generator.wrap(Wiring(), 64, name="wiring")
        self.S = gl.Segmenter.wrap(channels, COLORS)
        self.D = gl.dissect(self.G, self.S, "layer", n=12, top=4, progress=False)
        self.D.effects = gl.unit_effects(self.D, n=4, progress=False)
        self.D.keep_ranking("gradient", self.D.effects)
        self.again = gl.dissect(self.G, self.S, "layer", n=12, top=4, progress=False)
        self.numbers = np.arange(48).reshape(-1, 6)
        self.image = self.G.generate([0])

    def check(self) -> None:
        with self.G._lock:  # not while a widget makes a picture
            for module in self.G.net.modules():
                assert "forward" not in vars(module)
                assert not module._forward_hooks
                assert not module._forward_pre_hooks
        assert torch.equal(self.G.generate([0]), self.image)


@pytest.fixture(scope="module")
def lab():
    return Lab()


# ---- edits and recipes


EDIT_OF_LAYER = gl.ablate("layer", [0])
EDIT = {"layer": "layer", "units": [1, 2], "region": None, "strength": 1.0}
REGIONS = st.one_of(any_.ARRAYS, any_.BROKEN, any_.TENSORS, st.just(np.eye(8)), st.just(np.eye(8).tolist()))
UNITS = st.one_of(st.lists(st.integers(-1, 9), max_size=4), any_.ARRAYS, any_.TENSORS, st.just([[0], [1, 2]]))
LEVELS = st.one_of(
    any_.ARRAYS, any_.BROKEN, any_.TENSORS, st.just(np.zeros((2, 8, 8))), st.sampled_from(["q1", "q0.5"])
)
NEAR = {"region": REGIONS, "units": UNITS, "strength": st.floats(0, 1)}


def use(lab, make, options: dict) -> None:
    """Make an edit, and do with it what can be done."""
    edit = make(**options)
    assert gl.Edit.from_json(edit.to_json()) == edit
    repr(edit)
    lab.G.generate([0], [edit])
    lab.G.open("layer", [0, 1]).edited(edit)
    assert Recipe.from_json(Recipe.of(lab.G, 0, edit).to_json()).edits == (edit,)


@fuzzed(60, options=any_.arguments(EDIT | {"to": "zero"}, NEAR | {"to": st.sampled_from(["zero", "mean"])}))
def test_ablate(lab, options):
    refused(use, lab, gl.ablate, options)
    lab.check()


@fuzzed(60, options=any_.arguments(EDIT | {"level": 1.0}, NEAR | {"level": LEVELS}))
def test_insert(lab, options):
    refused(use, lab, gl.insert, options)
    refused(use, lab, gl.Edit, options)
    lab.check()


@fuzzed(
    60,
    text=any_.JSON.map(json.dumps)
    | any_.mutated(json.loads(gl.ablate("layer", [1]).to_json())).map(json.dumps)
    | any_.ANYTHING
    | st.sampled_from(["[" * 100000, "{", '{"a":' * 5000, "NaN", "1e999", '{"layer": 1, "layer": 2}']),
)
def test_edit_from_json(text):
    if not refused(gl.Edit.from_json, text):
        edit = gl.Edit.from_json(text)
        assert gl.Edit.from_json(edit.to_json()) == edit


def recipe_json() -> dict:
    edits = [gl.ablate("layer", [1]), gl.insert("layer", [2], 0.5, region=np.eye(8))]
    made = Recipe("wiring", "0" * 16, 3, edits=edits, settings={"truncation": 0.5})
    return json.loads(made.to_json())


@fuzzed(
    60,
    text=any_.mutated(recipe_json()).map(json.dumps)
    | any_.JSON.map(json.dumps)
    | any_.ANYTHING
    | any_.mutated(recipe_json()["edits"][1]).map(lambda e: json.dumps(recipe_json() | {"edits": [e]}))
    | st.sampled_from(["[" * 100000, '{"format": 1, "edits": ' + "[" * 5000]),
)
def test_recipe_from_json(lab, text):
    if not refused(Recipe.from_json, text):
        recipe = Recipe.from_json(text)
        assert Recipe.from_json(recipe.to_json()) == recipe
        refused(recipe.check, lab.G)
    assert not refused(Recipe.of(lab.G, 3, EDIT_OF_LAYER).check, lab.G)


@fuzzed(60, seed=any_.ANYTHING, edits=any_.ANYTHING, generator=st.none() | any_.ANYTHING)
def test_recipe_of_and_replay(lab, seed, edits, generator):
    refused(Recipe.of, lab.G, seed)
    refused(Recipe.of, lab.G, 3, edits)
    refused(Recipe.of, generator, 3)
    refused(gl.replay, edits, lab.G)
    refused(gl.replay, Recipe.of(lab.G, 1, EDIT_OF_LAYER), "scenes" if generator is None else generator)
    assert not refused(gl.replay, Recipe.of(lab.G, 1, EDIT_OF_LAYER), lab.G)
    lab.check()


# ---- generators


SEEDS = st.one_of(
    st.lists(st.integers(-1, 2**33), max_size=4),
    st.sampled_from([range(3), range(-1, 2), range(10**30), range(2**32 - 2, 2**32 + 2), (s for s in ()), {}, "12"]),
    st.builds(lambda n: (s for s in range(n)), SMALL),
)


# the generator has neither classes nor truncation
@fuzzed(
    80, ["Generator.variant"], seeds=SEEDS | any_.ANYTHING, other=any_.ANYTHING, labels=any_.TENSORS | any_.ANYTHING
)
def test_generate(lab, seeds, other, labels):
    refused(lab.G.latents, seeds)
    refused(lab.G.generate, seeds)
    refused(lab.G.generate, [0, 1], other)
    refused(lab.G.generate, [0, 1], batch_size=other)
    refused(lab.G.generate, [0, 1], labels=labels)
    refused(lab.G.forward, labels)
    refused(lab.G.open, "layer", seeds)
    refused(lab.G.open, other, [0])
    refused(lab.G.variant, label=other)
    refused(lab.G.variant, truncation=other)
    refused(lab.G.check_edit, other)
    assert not refused(lab.G.forward, lab.G.latents([0, 1]))
    assert not refused(lab.G.check_edit, EDIT_OF_LAYER)
    lab.check()


# what lies behind the layer reads the latent too, which only `opened` remembers
@fuzzed(
    80,
    ["ImageNetwork.resume"],
    features=any_.TENSORS | any_.ANYTHING,
    good=st.sampled_from(any_.TYPES),
    other=any_.ANYTHING,
)
def test_resume(lab, features, good, other):
    opened = lab.G.open("layer", [0, 1])
    for some in (features, opened.features.to(good), opened.features[:0], opened.features * torch.nan):
        refused(lab.G.resume, "layer", some)
        refused(opened.resume, some)
    refused(lab.G.resume, other, opened.features)
    refused(lab.G.read, lab.G.latents([0]), other)
    refused(opened.edited, other)
    lab.check()


@fuzzed(
    40,
    options=any_.arguments(
        {"net": torch.nn.Identity(), "z_dim": 4},
        {
            "name": any_.TEXTS,
            "layers": st.lists(any_.TEXTS),
            "classes": SMALL,
            "law": any_.TEXTS,
            "output": any_.TEXTS,
            "net": st.builds(Wiring) | st.just(torch.nn.ReLU()),
            "z_dim": st.just(64),
        },
    ),
    net=st.booleans(),
)
def test_wrap(options, net):
    assume(not callable(options.get("output")))  # what a function of the user's raises is the user's
    refused(gl.Generator.wrap, **(options | {"net": Wiring(), "z_dim": 64} if net else options))


# ---- dissections


@fuzzed(80, concept=any_.ANYTHING, other=any_.ANYTHING, unit=UNITS | any_.ANYTHING)
def test_dissection(lab, concept, other, unit):
    D = lab.again
    refused(D.units, concept)
    refused(D.units, "red", other)
    refused(D.units, "red", by=other)
    refused(D.ranks, concept, "iou")
    refused(D.ranks, "red", other)
    refused(D.matches, concept)
    refused(D.flag, unit, "artifact")
    refused(D.flag, 1, other)
    refused(D.check_units, unit)
    refused(D.strip, unit)
    refused(D.strip, 0, other)
    refused(D.spotlights, unit)
    refused(D.keep_ranking, other, D.iou)
    refused(D.keep_ranking, "ace", other)
    refused(D.keep_ranking, "ace", D.iou[:, 0], concept)
    D.flags, D.rankings = {}, {}
    lab.check()


def changed_file(folder: Path, data) -> None:
    """Write changed.npz, which is good.npz with other numbers, shapes, types or words."""
    with np.load(folder / "good.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("header")))
    if data.draw(st.booleans()):
        header = data.draw(any_.mutated(header))
        if isinstance(header.get("origin"), dict) and header["origin"] and data.draw(st.booleans()):
            header["origin"] = data.draw(any_.mutated(header["origin"]))
    else:
        name = data.draw(st.sampled_from(sorted(arrays)))
        same = arrays[name]
        other = data.draw(any_.ARRAYS.filter(lambda a: a.dtype != object) | any_.BROKEN)
        arrays[name] = data.draw(st.sampled_from([other, same.astype(float), -same.astype(float), same * 0, same.T]))
    np.savez(folder / "changed.npz", header=np.array(json.dumps(header)), **arrays)


@fuzzed(120, data=st.data())
def test_dissection_load(lab, tmp_path, data):
    """A file in which numbers, shapes, types or words are changed; what can be loaded can be used."""
    lab.D.save(tmp_path / "good.npz")
    changed_file(tmp_path, data)
    refused(loaded_and_used, lab, tmp_path / "changed.npz")


def loaded_and_used(lab, path: Path) -> None:
    D = Dissection.load(path, generator=lab.G, segmenter=lab.S)
    repr(D), D.rows(), D.to_json(), D._repr_html_()
    refused(D.units, "red")
    refused(D.strip, 0)


@fuzzed(60, data=st.data())
def test_dissection_load_of_damaged_bytes(lab, tmp_path, data):
    lab.D.save(tmp_path / "good.npz")
    content = bytearray((tmp_path / "good.npz").read_bytes())
    for _ in range(data.draw(SMALL)):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (tmp_path / "bad.npz").write_bytes(content[:end])
    refused(loaded_and_used, lab, tmp_path / "bad.npz")
    assert not refused(loaded_and_used, lab, tmp_path / "good.npz")
    assert not refused(Dissection.load, tmp_path / "good.npz")
    refused(Dissection.load, data.draw(any_.ANYTHING))


# ---- classifiers and contexts


@pytest.fixture(scope="module")
def signs():
    C = sign_classifier()
    return C, gl.dissect(C, gl.Segmenter.wrap(channels, COLORS), "layer", n=8, progress=False)


@fuzzed(
    30,
    options=any_.arguments({"n": 12, "seeds": None, "draws": 1}, {"seeds": any_.ARRAYS}),
    other=any_.arguments({"k": 2, "n": 12, "to": "zero", "seeds": None}, {"seeds": any_.ARRAYS}),
    name=any_.ANYTHING,
)
def test_classifier(signs, options, other, name):
    C, D = signs
    refused(gl.class_accuracy, C, gl.ablate("layer", [2]), progress=False, **options)
    refused(gl.class_accuracy, C, name, n=4, progress=False)
    refused(gl.important_units, D, "red", progress=False, **other)
    refused(gl.important_units, D, name, n=4, progress=False)
    assert not refused(gl.important_units, D, "red", k=2, progress=False)
    refused(C.scores, name)
    assert not C.net.layer._forward_hooks


@fuzzed(
    40,
    options=any_.arguments(
        {"net": Signs(), "images": signs_of(6)[0], "labels": signs_of(6)[1]},
        {
            "images": any_.TENSORS | any_.ARRAYS,
            "labels": st.lists(st.integers(-1, 4), min_size=6, max_size=6),
            "class_names": st.lists(any_.TEXTS, max_size=4),
            "size": SMALL,
            "inputs": any_.TEXTS,
            "layers": st.lists(any_.TEXTS),
        },
    ),
)
def test_classifier_wrap(options):
    refused(gl.Classifier.wrap, **options)
    assert not refused(gl.Classifier.wrap, Signs(), *signs_of(8))


@fuzzed(60, data=st.data())
def test_context_load(lab, tmp_path, data):
    gl.context(lab.D, "red", [1], n=1, stride=4, level=1.0, progress=False).save(tmp_path / "good.npz")
    changed_file(tmp_path, data)
    refused(context_used, tmp_path / "changed.npz")
    refused(gl.Context.load, data.draw(any_.ANYTHING))
    assert not refused(gl.Context.load, tmp_path / "good.npz")


def context_used(path: Path) -> None:
    C = gl.Context.load(path)
    repr(C), C.rows(), C.maps, C.interval, C.changes


# ---- segmenters


@fuzzed(
    100,
    result=any_.TENSORS | any_.ANYTHING,
    dims=st.tuples(*[st.integers(0, 4)] * 2),
    value=st.floats(-2, 9) | st.just(float("nan")),
    kind=st.sampled_from(any_.TYPES),
)
def test_segmenter_of_a_function(lab, result, dims, value, kind):
    """Functions that give the wrong shapes, types, numbers of images or labels, wherever a segmenter is used."""

    def fitting(x):
        shape = (len(x), *dims, 8, 8)[: 2 + len(x) % 3]
        return torch.ones(shape).to(kind) * value

    for function in (lambda x: result, fitting, lambda x: channels(x) * value, lambda x: channels(x)[:, :2]):
        S = gl.Segmenter.wrap(function, COLORS)
        D = dataclasses.replace(lab.D, segmenter=S)
        refused(gl.dissect, lab.G, S, "layer", n=4, progress=False)
        refused(gl.ablation_effect, D, "red", n=2, draws=0, progress=False)
        refused(gl.context, D, "red", [1], n=1, stride=4, progress=False)
        refused(gl.unit_gradients, D, n=2, progress=False)
        refused(gl.segmentation_distance, lab.G, lab.G, S, n=8, progress=False)
    assert not refused(gl.ablation_effect, lab.D, "red", k=2, n=8, draws=0, progress=False)
    lab.check()


@fuzzed(40, concepts=any_.NESTED | any_.ANYTHING, other=any_.ANYTHING)
def test_segmenter_wrap(lab, concepts, other):
    refused(gl.Segmenter.wrap, channels, concepts)
    refused(gl.Segmenter.wrap, other, ["red"])
    refused(gl.Segmenter.wrap(channels, COLORS).labels, other)
    refused(gl.Segmenter.wrap(channels, COLORS).index, other)
    assert not refused(gl.Segmenter.wrap(channels, COLORS).labels, lab.image)
    assert not refused(gl.Segmenter.wrap(channels, COLORS).index, "red")


@fuzzed(80, name=any_.TEXTS | any_.ANYTHING, other=any_.ANYTHING)
def test_names(name, other, monkeypatch):
    """Neither name nor file: no download is tried, as no example is a model id or an address."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(gl.load_generator, name)
    refused(gl.load_generator, "nothing.pth", truncation=other, fast=other, sha256=other)
    refused(gl.load_segmenter, name)
    assert not refused(gl.load_generator, "scenes")
    assert not refused(gl.load_segmenter, "colors")


# ---- what is measured


ONE = {"n": 2, "progress": False}
K = {"k": 2, "draws": 1, "sample": None}
MEASURED = {
    "dissect": ((), {"n": 4}, {}),
    "ablation_effect": (("red",), ONE | K | {"to": "zero", "region": None, "curve": False, "inside": False}, NEAR),
    "unit_effects": ((), ONE | {"units": [0], "to": "zero", "sample": None, "known": None}, NEAR),
    "sanity_checks": ((), ONE | {"sample": None}, {}),
    "unit_formulas": ((), {"n": 128, "units": [0, 1], "length": 2, "sample": None, "progress": False}, {}),
    "insertion_effect": (("red",), ONE | K | {"level": 1.0, "patch": 2, "region": None}, NEAR | {"level": LEVELS}),
    "average_causal_effect": (("red",), ONE | K | {"level": 1.0, "patch": 2, "region": None}, NEAR | {"level": LEVELS}),
    "context": (
        ("red",),
        ONE | K | {"n": 1, "level": 1.0, "stride": 4, "batch_size": 8, "units": [1]},
        NEAR | {"level": LEVELS},
    ),
    "where": (
        ("red",),
        {"seed": 3, "k": 2, "level": 1.0, "stride": 4, "batch_size": 8, "units": [1]},
        NEAR | {"level": LEVELS},
    ),
    "paintable": ((), ONE | {"n": 1, "k": 2, "level": 1.0, "sample": None}, NEAR | {"level": LEVELS}),
    "minimal_units": (
        ("red",),
        ONE | {"remove": 0.5, "collateral": 0.5, "k": 2, "to": "zero", "by": ["iou"], "tries": 2},
        {},
    ),
    "match_and_cause": (("red",), {"match": 0.04, "cause": 0.02}, {}),
    "compare_rankings": (("red",), ONE | K | {"by": ["iou", "effect"], "to": "zero", "curve": True}, {}),
    "unit_gradients": ((), ONE | {"concepts": ["red"], "to": "zero", "sample": None}, {}),
    "optimize_units": (
        ("red",),
        {
            "penalty": "l2",
            "penalty_weight": None,
            "level": 1.0,
            "n": 4,
            "steps": 2,
            "batch_size": 2,
            "patch": None,
            "sample": None,
            "progress": False,
        },
        {"level": LEVELS},
    ),
    "find_artifacts": (
        (),
        ONE
        | {
            "method": "activation",
            "k": 2,
            "to": "zero",
            "draws": 1,
            "extractor": None,
            "reference": None,
            "top": None,
            "sample": None,
        },
        {},
    ),
}


@pytest.mark.parametrize("name", [name for name in MEASURED if name != "dissect"])
@fuzzed(40, data=st.data())
def test_measurement(lab, name, data):
    arguments, usual, near = MEASURED[name]
    function = getattr(gl, name)
    near = {key: value for key, value in near.items() if key in usual or key == "units"}
    refused(function, lab.D, *arguments, **data.draw(any_.arguments(usual, near)))
    if arguments:
        refused(function, lab.D, data.draw(any_.ANYTHING), **usual)
    lab.check()


@fuzzed(
    60,
    options=any_.arguments({"n": 3, "top": 2}, {"rule": st.sampled_from(["iqr", "iou", "best"])}),
    other=any_.ANYTHING,
)
def test_dissect(lab, options, other):
    refused(gl.dissect, lab.G, lab.S, "layer", progress=False, **options)
    refused(gl.dissect, lab.G, lab.S, other, n=3, progress=False)
    refused(gl.dissect, other, lab.S, "layer", n=3, progress=False)
    refused(gl.dissect, lab.G, other, "layer", n=3, progress=False)
    lab.check()


@pytest.mark.parametrize(
    "name",
    [
        "ablation_effect",
        "unit_effects",
        "unit_formulas",
        "sanity_checks",
        "context",
        "where",
        "paintable",
        "insertion_effect",
        "report",
        "painting_page",
        "average_causal_effect",
        "minimal_units",
        "match_and_cause",
        "compare_rankings",
        "unit_gradients",
        "optimize_units",
        "find_artifacts",
        "class_accuracy",
        "important_units",
        "UnitGallery",
        "IoUHeatmap",
        "InterventionCanvas",
        "Explorer",
        "ComparisonView",
        "compare",
    ],
)
@fuzzed(20, never=None, other=any_.ANYTHING)
def test_no_dissection(name, other):
    arguments, options, _ = MEASURED.get(name, ((), {}, {}))
    arguments = ("red",) if name == "important_units" else ("page.html",) if name == "report" else arguments
    refused(getattr(gl, name), other, *arguments, **options)


# ---- what is compared and written


@fuzzed(
    60, other=any_.ANYTHING, options=any_.arguments({"by": "activation", "n": 4, "sample": None, "known": None}, {})
)
def test_match_units(lab, other, options):
    refused(gl.match_units, lab.D, lab.again, progress=False, **options)
    refused(gl.match_units, lab.D, other, n=2, progress=False)
    refused(gl.match_units, other, lab.D, n=2, progress=False)
    lab.check()


@fuzzed(60, other=any_.ANYTHING, concept=any_.ANYTHING)
def test_compare(lab, other, concept):
    C = gl.compare({"a": lab.D, "b": lab.again})
    refused(gl.compare, other)
    refused(gl.compare, {"a": lab.D, "b": other})
    assert not refused(gl.compare, {"a": lab.D, "b": lab.again})
    assert not refused(C.best_units, "red")
    assert not refused(C.drawn_in, "red")
    refused(C.best_units, concept)
    refused(C.drawn_in, concept)
    refused(C.best_units("red").strips, other)


@fuzzed(60, source=any_.ARRAYS | any_.TENSORS | any_.ANYTHING, other=any_.ANYTHING)
def test_segmentation_distance(lab, source, other):
    with_generator = partial(gl.segmentation_distance, lab.G, progress=False)
    refused(with_generator, source, lab.S, n=8)
    refused(with_generator, lambda seeds: source, lab.S, n=8)
    refused(with_generator, lab.G, other, n=8)
    for name in ("n", "sample", "names"):
        refused(with_generator, lab.G, lab.S, **({"n": 8} | {name: other}))
    lab.check()


@fuzzed(25, path=any_.TEXTS | any_.ANYTHING, effects=any_.ANYTHING)
@pytest.mark.slow
def test_report(lab, tmp_path_factory, monkeypatch, path, effects):
    monkeypatch.chdir(tmp_path_factory.mktemp("report"))
    refused(gl.report, lab.D, path, progress=False)
    refused(gl.report, lab.D, "page.html", effects, progress=False)
    refused(gl.report, lab.D, "page.html", [effects], progress=False)


# ---- widgets


TRAITS = {
    "InterventionCanvas": "layer unit units concept seed edits found count order mode strength radius truncation label",
    "UnitGallery": "layer unit units concept sort search category minimum flagged found interpretable_only detail",
    "IoUHeatmap": "layer unit units concept order search minimum zoom interpretable_only",
}


@pytest.mark.parametrize("name", TRAITS)
@fuzzed(40, data=st.data())
def test_traits(lab, name, data):
    """A trait takes a value or refuses it; then the picture can be drawn."""
    panel = panel_of(lab, name)
    for trait in data.draw(st.lists(st.sampled_from(TRAITS[name].split()), min_size=1, max_size=3)):
        refused(setattr, panel, trait, data.draw(any_.ANYTHING | UNITS))
    assert panel.wait(20)
    assert panel.failure == ""
    panel.picture()
    lab.check()


def panel_of(lab, name: str):
    lab.panels = getattr(lab, "panels", {})
    return lab.panels.setdefault(name, getattr(gl, name)(lab.again))


# strokes that are taken are tried in test_canvas.py
@fuzzed(
    30,
    ["InterventionCanvas.paint"],
    options=any_.arguments(
        {"seed": 1, "k": 2}, {"concept": any_.TEXTS, "order": any_.TEXTS, "level": LEVELS, "width": SMALL}
    ),
    cells=any_.ANYTHING,
    mode=any_.ANYTHING,
)
def test_canvas(lab, options, cells, mode):
    refused(gl.InterventionCanvas, lab.D, **options)
    canvas = panel_of(lab, "InterventionCanvas")
    refused(canvas.paint, cells)
    refused(canvas.paint, [0, 1], mode)
    assert canvas.wait(20)
    lab.check()


def test_everything_public_is_fuzzed():
    """A new public name is added here, and to a test above."""
    text = Path(__file__).read_text(encoding="utf-8")
    left = [
        name
        for name in gl.__all__
        if name not in text and name not in ("list_models", "list_segmenters", "plots", "Concept")
    ]
    assert left == []
    assert sys.modules["ganlens"].__all__
