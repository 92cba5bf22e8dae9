"""An edit session is a value, and replaying it gives the same bytes: everywhere, and whatever was rendered before."""

import hashlib
import json
import subprocess
import sys
import threading
from itertools import permutations

import numpy as np
import pytest
import torch
from planted import Residual, Z

import ganlens as gl
from ganlens.images import to_uint8
from ganlens.models.hooks import Abandoned
from ganlens.recipe import KEPT, Renderer

MAPS = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
EDITS = [
    gl.insert("layer6", [3, 9], level=2.5, region=np.eye(16) / 3),
    gl.ablate("layer4", range(30), strength=0.7),
    gl.insert("layer4", [5, 2], level=MAPS, region=np.tri(8)),
]


@pytest.fixture
def recipe(G):
    return gl.Recipe.of(G, 7, EDITS)


@pytest.fixture
def residual(untouched):
    return gl.Generator.wrap(untouched(Residual()), Z)


class TestValue:
    def test_what_it_holds(self, G, recipe):
        assert (recipe.generator, recipe.fingerprint, recipe.seed) == ("scenes", G.fingerprint, 7)
        assert recipe.edits == tuple(EDITS)
        assert recipe == gl.Recipe.of(G, np.int64(7), iter(EDITS))
        assert len({recipe, gl.Recipe.of(G, 7, EDITS[::-1]), gl.Recipe.of(G, 8, EDITS), gl.Recipe.of(G, 7)}) == 4
        assert gl.Recipe.of(G, 7, EDITS[0]).edits == (EDITS[0],)

    def test_round_trips(self, G, recipe, tmp_path):
        for some in (recipe, gl.Recipe.of(G, 2**32 - 1)):
            assert gl.Recipe.from_json(some.to_json()) == some
            some.save(tmp_path / "some.json")
            assert gl.Recipe.load(tmp_path / "some.json") == some
            assert gl.Recipe.load(str(tmp_path / "some.json")) == some
        maps = gl.Recipe.from_json(recipe.to_json()).edits[2].level
        assert np.array(maps, np.float32).tobytes() == MAPS.tobytes()

    def test_json_is_for_others_too(self, G, recipe):
        content = json.loads(recipe.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert list(content) == ["format", "generator", "fingerprint", "seed", "edits"]
        assert content["edits"][1] == {
            "layer": "layer4",
            "units": list(range(30)),
            "level": 0.0,
            "region": None,
            "strength": 0.7,
        }
        assert len(recipe.to_json().splitlines()) == 5 + len(EDITS) + 2  # a line for each edit
        assert len(gl.Recipe.of(G, 7, EDITS[:2]).to_json()) < 4000

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not a recipe: broken JSON, .*line 1 column 2"),
            ('{"format": 1,\n "seed": }', "not a recipe: broken JSON, .*line 2 column 10"),
            ("", "broken JSON, .*line 1 column 1 .*; expected what Recipe.save writes"),
            ("[" * 100_000, "broken JSON"),
            (b"\xff\xfe\x00", "broken JSON"),
            ("[1]", 'not a recipe: it has no "format"'),
            ('{"layer": "layer4", "units": [1]}', 'not a recipe: it has no "format"'),
            ('{"format": 2}', "recipe of format 2; this ganlens reads format 1"),
            ('{"format": "1"}', "recipe of format '1'"),
            ('{"format": 1, "seed": 3}', "it has format, seed; expected format, generator, fingerprint, seed, edits"),
        ],
    )
    def test_no_recipe(self, text, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            gl.Recipe.from_json(text)
        (tmp_path / "some.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError, match=f"some.json: .*{message}"):
            gl.replay(tmp_path / "some.json")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"more": 1}, "it has .*, more; expected"),
            ({"generator": 3}, "generator 3: expected a text"),
            ({"fingerprint": None}, "fingerprint None: expected a text"),
            ({"seed": "7"}, "seeds .*whole numbers"),
            ({"seed": 7.0}, "seeds .*whole numbers"),
            ({"seed": True}, "seeds .*whole numbers"),
            ({"seed": [7]}, "seeds .*whole numbers"),
            ({"seed": -1}, "seed -1 is outside 0"),
            ({"seed": 10**30}, "seeds .*whole numbers"),
            ({"edits": {}}, "edits of the recipe: dict given; expected a list"),
            ({"edits": "layer4"}, "edits of the recipe: str given; expected a list"),
            ({"edits": [EDITS[0].to_json()]}, "edit 0 of the recipe: .*mapping"),
            ({"edits": [{"layer": "layer4"}]}, "edit 0 of the recipe: .*units"),
            ({"edits": [{"layer": 4, "units": [1]}]}, "edit 0 of the recipe: layer 4: expected a name"),
            ({"edits": [{"layer": "a", "units": [1], "color": 3}]}, "edit 0 of the recipe: .*color"),
            ({"edits": [{"layer": "a", "units": [1]}, {"layer": "a", "units": [-1]}]}, "edit 1 of .* -1 is negative"),
            ({"edits": [{"layer": "a", "units": [1], "level": float("nan")}]}, "edit 0 of the recipe: .*not finite"),
            ({"edits": [{"layer": "a", "units": [1], "level": 10**400}]}, "edit 0 of the recipe"),
            ({"edits": [{"layer": "a", "units": [1], "level": {}}]}, "edit 0 of the recipe"),
            ({"edits": [{"layer": "a", "units": [1], "region": [[1], [0, 1]]}]}, "edit 0 of the recipe"),
            ({"edits": [{"layer": "a", "units": [1], "strength": None}]}, "edit 0 of the recipe"),
        ],
    )
    def test_wrong_parts(self, recipe, change, message):
        with pytest.raises(ValueError, match=message):
            gl.Recipe.from_json(json.dumps(json.loads(recipe.to_json()) | change))

    def test_edits_are_edits(self, G):
        with pytest.raises(ValueError, match="str among the edits; expected those of"):
            gl.Recipe.of(G, 7, [EDITS[0].to_json()])

    def test_of_another_generator(self, residual, recipe, G):
        names = rf"generator scenes \(fingerprint {G.fingerprint}\), not with Residual \(fingerprint \w{{16}}\)"
        with pytest.raises(ValueError, match=names):
            recipe.check(residual)
        with pytest.raises(ValueError, match=r"made with the generator Residual .* gl.replay\(recipe, generator=…\)"):
            gl.replay(gl.Recipe.of(residual, 3))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (gl.ablate("layer10", [1]), "no layer 'layer10' in scenes; did you mean 'layer1'"),
            (gl.ablate("layer4", [500]), "unit 500 is out of range"),
            (gl.ablate("layer4", [1], region=np.eye(4)), r"region of shape \(4, 4\): layer4 has 8 x 8 cells"),
            (gl.insert("layer5", [1, 2], level=MAPS), r"level maps of shape \(8, 8\): layer5 has 16 x 16 cells"),
        ],
    )
    def test_edits_that_do_not_fit(self, G, edit, message):
        foreign = gl.Recipe("scenes", G.fingerprint, 7, edits=edit)
        for use in (lambda: gl.Recipe.of(G, 7, edit), lambda: foreign.check(G), lambda: gl.replay(foreign, G)):
            with pytest.raises(ValueError, match=message):
                use()


class TestReplay:
    def test_is_the_edited_image(self, G, recipe, untouched):
        untouched(G.net)
        picture = gl.replay(recipe)
        assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
        expected = to_uint8(G.generate([7], EDITS))[0].astype(int)
        assert np.abs(picture - expected).max() <= 1
        assert np.abs(picture - to_uint8(G.generate([7]))[0].astype(int)).mean() > 2

    def test_recipe_file_and_text(self, recipe, G, tmp_path):
        recipe.save(tmp_path / "some.json")
        expected = gl.replay(recipe, generator=G).tobytes()
        for some in (recipe, recipe.to_json(), tmp_path / "some.json", str(tmp_path / "some.json")):
            assert gl.replay(some).tobytes() == expected
        with pytest.raises(FileNotFoundError):
            gl.replay(tmp_path / "other.json")

    def test_same_bytes_in_another_process(self, recipe, tmp_path):
        """Also with another number of threads."""
        recipe.save(tmp_path / "some.json")
        code = """if True:
            import sys, hashlib, torch, ganlens
            torch.set_num_threads(2)
            print(hashlib.sha256(ganlens.replay(sys.argv[1])).hexdigest())
        """
        command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "some.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(gl.replay(recipe)).hexdigest()

    @pytest.mark.parametrize("layers", [*permutations(["stem", "block1.conv2", "block1", "norm"], 2)])
    def test_two_layers_with_skips(self, residual, layers):
        edits = [gl.insert(layer, [i, 4], level=1.5, strength=0.8) for i, layer in enumerate(layers)]
        picture = gl.replay(gl.Recipe.of(residual, 5, edits), residual)
        assert np.abs(picture - to_uint8(residual.generate([5], edits))[0].astype(int)).max() <= 1
        for edit in edits:
            assert not np.array_equal(picture, to_uint8(residual.generate([5], edit))[0])


class TestRenderer:
    def test_two_threads_do_not_wait_for_each_other_for_ever(self, residual):
        """One asks for features behind an edit, the other renders, each of images that are not open yet."""
        renderer, edit = Renderer(residual), gl.ablate("stem", [0])

        def ask():
            for seed in range(150):
                renderer.features(seed, [edit], "block2")

        def render():
            for seed in range(150, 300):
                renderer.render(seed, [edit])

        threads = [threading.Thread(target=work, daemon=True) for work in (ask, render)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)

    def test_history_does_not_matter(self, G, recipe):
        """After any other images, and after one that was given up, an image is what it is alone."""
        sessions = [(seed, edits) for seed in (7, 8) for edits in ([], EDITS, EDITS[:1], EDITS[1:], EDITS[::-1])]
        alone = [Renderer(G).render(*session) for session in sessions]
        renderer = Renderer(G)
        for i in np.random.default_rng(0).integers(0, len(sessions), 40):
            with pytest.raises(Abandoned):
                renderer.render(9, EDITS, stop=lambda: True)
            x, picture = renderer.render(*sessions[i])
            assert torch.equal(x, alone[i][0])
            assert picture.tobytes() == alone[i][1].tobytes()
            assert len(renderer.kept) <= KEPT
        assert alone[1][1].tobytes() == gl.replay(recipe).tobytes()

    def test_opening_and_editing_can_be_stopped(self, residual):
        """What was given up while opening is not kept; what was opened stays open when an edit of it is given up."""
        renderer, edit = Renderer(residual), gl.ablate("block2", [1])
        with pytest.raises(Abandoned):
            renderer.render(3, edit, stop=lambda: True)
        assert not renderer.kept
        picture = renderer.render(3, edit)[1]
        opened = renderer.opened("block2", 3)
        with pytest.raises(Abandoned):
            renderer.render(3, edit, stop=lambda: True)
        assert renderer.opened("block2", 3) is opened
        assert renderer.render(3, edit, stop=lambda: False)[1].tobytes() == picture.tobytes()

    def test_unedited_image_is_the_same_from_every_layer(self, G, residual):
        for some in (G, residual):
            pictures = {Renderer(some).render(3, layer=layer)[1].tobytes() for layer in some.layers}
            assert pictures == {gl.replay(gl.Recipe.of(some, 3), some).tobytes()}

    def test_what_lies_in_front_runs_once(self, G):
        """Opened before or with the first edit; then only what lies behind the first edited layer runs."""
        runs = []
        hooks = [m.register_forward_hook(lambda m, i, o, n=n: runs.append(n)) for n, m in G.net.layer2.named_modules()]
        renderer = Renderer(G)
        for _ in range(3):
            renderer.render(3, layer="layer4")
            renderer.render(3, EDITS)
        for hook in hooks:
            hook.remove()
        assert runs.count("conv") == 1

    def test_the_oldest_is_closed_first(self, G):
        renderer = Renderer(G)
        for seed in (0, 1, 2, 3, 0, 4):
            renderer.render(seed, layer="layer4")
        assert [seed for _, seed, _ in renderer.kept] == [2, 3, 0, 4]

    def test_bad_input(self, G):
        renderer = Renderer(G)
        renderer.render(7)
        for arguments, message in [((7.5,), "whole numbers"), (([7, 8],), "whole numbers"), ((-1,), "outside")]:
            with pytest.raises(ValueError, match=message):
                renderer.render(*arguments)
        with pytest.raises(ValueError, match="no layer 'layer44' in scenes"):
            renderer.render(7, layer="layer44")
        with pytest.raises(ValueError, match="unit 500 is out of range"):
            renderer.render(7, gl.ablate("layer4", [500]))
