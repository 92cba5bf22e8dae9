"""Edits are values; reading, editing and resuming leave the network as it was."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
from planted import Residual, Z
from torch import nn

from ganlens import Edit, Generator, ablate, insert
from ganlens.models.editing import quantile_of
from ganlens.models.hooks import Abandoned, hooked, stoppable
from ganlens.models.opened import Opened

EDITS = [
    ablate("layer", [2]),
    ablate("layer", [0, 3], to="mean"),
    ablate("layer", np.array([4, 1]), region=np.eye(3), strength=0.25),
    insert("layer", [1], level=-2.5),
    insert("layer", [3, 1, 2], level=[1.5, 0.1, -1e-9], region=[[0, 0.5], [1 / 3, 1]]),
    insert("layer", range(5), level="q0.99", region=torch.ones(2, 2) / 3),
    insert("layer", [1], level=np.float32(0.1), strength=np.float32(0.3)),
    insert("layer", [4, 2], level=np.arange(12).reshape(2, 2, 3) / 7),
    insert("layer", [4], level=torch.rand(1, 2, 2, requires_grad=True), region=np.eye(2)),
]
MAPS = np.random.default_rng(3).normal(size=(2, 3, 3)).astype(np.float32)


@pytest.fixture
def features():
    return torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(0))


class TestValue:
    def test_frozen(self):
        for field in dataclasses.fields(Edit):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(EDITS[0], field.name, None)

    @pytest.mark.parametrize("edit", EDITS, ids=repr)
    def test_equal_hashable_and_kept_by_json(self, edit):
        again = Edit.from_json(edit.to_json())
        assert again == edit
        assert hash(again) == hash(edit)
        assert "\n" not in edit.to_json()
        assert set(json.loads(edit.to_json())) == {field.name for field in dataclasses.fields(Edit)}

    def test_all_are_different(self):
        assert len({*EDITS, *EDITS}) == len(EDITS)

    def test_what_it_was_made_of_may_change(self):
        units, region, level = [1, 2], np.ones((3, 3)), np.array([1.0, 2.0])
        edit = insert("layer", units, level, region=region)
        before = edit.to_json()
        units[0], region[:], level[:] = 4, 0, 9
        assert edit.to_json() == before

    def test_level_maps_survive_to_the_bit(self):
        """Also numbers next to zero and next to the largest."""
        info = np.finfo(np.float32)
        maps = MAPS.copy()
        maps[0] = [[info.smallest_subnormal, info.tiny, info.max], [-info.max, -0.0, 0.1], [1 / 3, 1e-9, 1 + info.eps]]
        for given in (maps, torch.from_numpy(maps), maps.tolist()):
            edit = Edit.from_json(insert("layer", [5, 0], level=given).to_json())
            assert np.array(edit.level, np.float32).tobytes() == maps.tobytes()

    def test_on_changes_a_copy(self):
        edit = ablate("layer", [1])
        other = edit.replace(region=np.eye(2), strength=0.5)
        assert (edit.region, edit.strength) == (None, 1)
        assert (other.region, other.strength, other.units) == (((1, 0), (0, 1)), 0.5, (1,))

    def test_repr_is_short(self):
        edit = insert("layer", range(500), level=np.arange(500), region=np.ones((64, 64)))
        assert len(repr(edit)) < 150
        assert "500" in repr(edit)
        assert "4096 cells" in repr(edit)
        assert repr(insert("layer", [3, 1], level=MAPS)) == "<Edit layer: units 3, 1 to maps of their own everywhere>"

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ablate("layer", []), r"units \[\].*at least one"),
            (lambda: ablate("layer", [1.5]), r"units \[1.5\].*whole numbers"),
            (lambda: ablate("layer", ["1"]), "units .*whole numbers"),
            (lambda: ablate("layer", [True, False]), "units .*whole numbers"),
            (lambda: ablate("layer", [[1], [2]]), "units .*whole numbers"),
            (lambda: ablate("layer", [-1]), "unit -1 is negative; .*from 0"),
            (lambda: ablate("layer", [3, 4, 3]), "a unit is listed twice"),
            (lambda: ablate("layer", [3], to="max"), "to='max'.*'zero' .*'mean'"),
            (lambda: ablate("layer", [3], region=[1, 0]), r"region of shape \(2,\): expected \(H, W\)"),
            (lambda: ablate("layer", [3], region=np.zeros((0, 4))), r"region of shape \(0, 4\): expected \(H, W\)"),
            (lambda: ablate("layer", [3], region=[[2.0]]), r"outside \[0, 1\]"),
            (lambda: ablate("layer", [3], region=[[-0.1]]), r"outside \[0, 1\]"),
            (lambda: ablate("layer", [3], region=[[float("nan")]]), r"outside \[0, 1\]"),
            (lambda: ablate("layer", [3], strength=1.1), r"strength 1.1 is outside \[0, 1\]"),
            (lambda: ablate("layer", [3], strength=float("nan")), r"strength nan is outside \[0, 1\]"),
            (
                lambda: insert("layer", [3, 4], level=[1.0]),
                r"level of shape \(1,\) for 2 units: expected one number, one per",
            ),
            (lambda: insert("layer", [3], level=MAPS), r"shape \(2, 3, 3\) for 1 units: .* per unit \(1, H, W\)"),
            (lambda: insert("layer", [3, 4], level=MAPS[:, 0]), r"level of shape \(2, 3\) for 2 units"),
            (lambda: insert("layer", [3, 4], level=MAPS[:, :0]), r"level of shape \(2, 0, 3\) for 2 units"),
            (lambda: insert("layer", [3, 4], level=MAPS[None]), r"level of shape \(1, 2, 3, 3\) for 2 units"),
            (lambda: insert("layer", [3, 4], level=MAPS * [[[1, np.inf, 1]]]), "not finite"),
            (lambda: insert("layer", [3, 4], level=MAPS, region=np.ones((3, 2))), r"\(3, 3\) cells .* of \(3, 2\)"),
            (lambda: ablate(4, [3]), "layer 4: expected a name"),
            (lambda: insert("layer", [3], level=float("inf")), "not finite"),
            (lambda: insert("layer", [3], level="high"), "level 'high': expected a number, 'mean', or a quantile"),
            (lambda: insert("layer", [3], level="q1.5"), "level 'q1.5': expected"),
            (lambda: Edit.from_json("{"), "not an edit: .*expected the JSON"),
            (lambda: Edit.from_json("[1]"), "not an edit"),
            (lambda: Edit.from_json('{"layer": "layer"}'), "not an edit: .*units"),
            (lambda: Edit.from_json('{"layer": "a", "units": [1], "color": 3}'), "not an edit: .*color"),
            (lambda: Edit.from_json('{"layer": "a", "units": [1], "strength": "all"}'), "not an edit"),
            (lambda: Edit.from_json('{"layer": "a", "units": [1], "level": 1' + "0" * 400 + "}"), "not an edit"),
            (lambda: Edit.from_json('{"layer": "a", "units": [-1]}'), "unit -1 is negative"),
            (lambda: Edit.from_json('{"layer": "a", "units": [1], "level": NaN}'), "not finite"),
        ],
    )
    def test_bad_input(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(("name", "q"), [("q0.995", 0.995), ("q.5", 0.5), ("q0", 0), ("q1", 1), ("mean", None)])
    def test_named_levels(self, name, q):
        assert quantile_of(name) == q


class TestApply:
    @pytest.mark.parametrize("strength", [0, 0.3, 1])
    @pytest.mark.parametrize("with_region", [False, True])
    def test_is_the_equation(self, features, strength, with_region):
        """As published, r' = (1 - a) r + a k, cell by cell."""
        region = np.random.default_rng(0).random((3, 3)) if with_region else None
        edit = insert("layer", [3, 0], level=[2.0, -1.0], region=region, strength=strength)
        found = edit.apply(features)
        for n, u, y, x in np.ndindex(features.shape):
            a = strength * (region[y, x] if with_region else 1) if u in (3, 0) else 0
            k = {3: 2.0, 0: -1.0}.get(u, 0)
            assert found[n, u, y, x].item() == pytest.approx((1 - a) * features[n, u, y, x].item() + a * k, abs=1e-6)

    @pytest.mark.parametrize("region", [None, np.random.default_rng(0).random((3, 3))])
    def test_level_maps_are_the_equation(self, features, region):
        edit = insert("layer", [3, 0], level=MAPS, region=region, strength=0.75)
        found = edit.apply(features)
        for n, u, y, x in np.ndindex(features.shape):
            a = 0.75 * (1 if region is None else region[y, x]) if u in (3, 0) else 0
            k = MAPS[{3: 0, 0: 1}.get(u, 0), y, x]
            assert found[n, u, y, x].item() == pytest.approx((1 - a) * features[n, u, y, x].item() + a * k, abs=1e-6)

    def test_copy_and_paste(self, features):
        """What two units do in one image is, to the bit, what they do in the painted cells of another."""
        edit = insert("layer", [4, 1], level=features[0, [4, 1]], region=np.eye(3))
        pasted, diagonal = edit.apply(features), torch.eye(3) == 1
        assert torch.equal(pasted[2, [4, 1]][:, diagonal], features[0, [4, 1]][:, diagonal])
        assert torch.equal(pasted[..., ~diagonal], features[..., ~diagonal])
        assert torch.equal(pasted[:, [0, 2, 3]], features[:, [0, 2, 3]])

    def test_ends_are_exact(self, features):
        edit = insert("layer", [1, 4], level=[0.1, 1e9])
        forced = edit.apply(features)
        assert (forced[:, 1] == np.float32(0.1)).all()
        assert (forced[:, 4] == 1e9).all()
        assert torch.equal(forced[:, [0, 2, 3]], features[:, [0, 2, 3]])
        assert torch.equal(edit.replace(strength=0).apply(features), features)
        assert torch.equal(edit.replace(region=np.zeros((3, 3))).apply(features), features)

    def test_given_features_stay(self, features):
        before = features.clone()
        for edit in EDITS[:1] + EDITS[2:4]:
            found = edit.apply(features)
            assert not torch.equal(found, features)
            found.zero_()
            assert torch.equal(features, before)

    def test_order_of_composition(self, features):
        half, on = ablate("layer", [1], strength=0.5), insert("layer", [1], level=4.0)
        assert (half.apply(on.apply(features))[:, 1] == 2).all()
        assert (on.apply(half.apply(features))[:, 1] == 4).all()

    def test_edits_of_different_units_commute(self, features):
        a, b = ablate("layer", [1], region=np.eye(3)), insert("layer", [2], level=4.0, strength=0.7)
        assert torch.equal(a.apply(b.apply(features)), b.apply(a.apply(features)))

    def test_gradients_pass(self, features):
        features.requires_grad_()
        region = torch.tensor([[1, 0.25, 0], [0, 0, 0], [0, 0, 0]])
        ablate("layer", [2], region=region, strength=0.5).apply(features).sum().backward()
        assert (features.grad[:, [0, 1, 3, 4]] == 1).all()
        assert torch.equal(features.grad[:, 2], (1 - 0.5 * region).expand(4, 3, 3))

    def test_gradients_reach_the_level(self, features):
        level = torch.tensor([3.0], requires_grad=True)
        insert("layer", [2], level="mean").apply(features, level).sum().backward()
        assert level.grad.item() == features[:, 2].numel()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_type_is_kept(self, features, dtype):
        edited = insert("layer", [2], level=0.5, region=np.eye(3)).apply(features.to(dtype))
        assert edited.dtype == dtype
        assert (edited[:, 2, 0, 0] == 0.5).all()

    def test_inference_mode(self, features):
        edit = ablate("layer", [2], strength=0.5)
        with torch.inference_mode():
            inside = edit.apply(features.clone())
        assert torch.equal(inside, edit.apply(features))

    def test_named_level_needs_numbers(self, features):
        with pytest.raises(ValueError, match="level 'mean' has no numbers here; let a Generator apply"):
            ablate("layer", [2], to="mean").apply(features)


class TestHooked:
    def test_inside_and_after(self, untouched):
        net = untouched(Residual())
        z = torch.randn(3, Z)
        before = net.eval()(z)
        with hooked(net, {"block2": lambda r: r * 0, "up": lambda r: None}):
            assert not torch.allclose(net(z), before)
        assert torch.equal(net(z), before)

    def test_gradients_reach_the_latent(self, untouched):
        net, edit = untouched(Residual().eval()), ablate("block2", [0, 1, 2], region=np.eye(8))
        z = torch.randn(3, Z).requires_grad_()
        with hooked(net, {"block2": edit.apply}):
            net(z).square().sum().backward()
        step = torch.zeros_like(z)
        step[1, 2] = 1e-3
        with torch.no_grad(), hooked(net, {"block2": edit.apply}):
            rise = (net(z + step).square().sum() - net(z - step).square().sum()) / 2e-3
        assert z.grad[1, 2].item() == pytest.approx(rise.item(), rel=0.05)

    @pytest.mark.parametrize("way", ["in the network", "in the function", "unknown layer"])
    def test_nothing_stays_after_an_error(self, untouched, way):
        net = untouched(Residual().eval())
        net.fail = way == "in the network"
        functions = {"up": lambda r: r, "block2": lambda r: 1 / 0 if way == "in the function" else r}
        if way == "unknown layer":
            functions["nowhere"] = lambda r: r
        with pytest.raises((RuntimeError, ZeroDivisionError, AttributeError)), hooked(net, functions):
            net(torch.randn(2, Z))


class TestStoppable:
    @torch.no_grad()
    def test_asked_before_each_module(self, untouched):
        """The pass ends before the module at which the answer changes."""
        net, z = untouched(Counting()), torch.ones(2, Z)
        expected = net(z)
        for time in range(11):  # the chain, two modules, and four links with a convolution in each
            answers, before = iter([False] * time + [True]), net.calls()
            with pytest.raises(Abandoned), stoppable(net, partial(next, answers)):
                net(z)
            assert sum(net.calls()) - sum(before) == max(0, (time - 2) // 2)
        answers = iter([False] * 11)
        with stoppable(net, None), stoppable(net, partial(next, answers)):
            assert torch.equal(net(z), expected)
        assert list(answers) == []

    def test_nothing_stays_when_asking_fails(self, untouched):
        net = untouched(Residual().eval())
        with pytest.raises(ZeroDivisionError), stoppable(net, lambda: 1 / 0):
            net(torch.ones(2, Z))


class Counting(nn.Sequential):
    """A chain that counts how often each link runs."""

    def __init__(self):
        super().__init__(nn.Unflatten(1, (Z, 1, 1)), nn.Upsample(scale_factor=2), *(Link() for _ in range(4)))

    def calls(self):
        return [link.calls for link in list(self)[2:]]


class Link(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(Z, Z, 1), 0

    def forward(self, r):
        self.calls += 1
        return self.conv(r).sin()


class AddedInPlace(nn.Module):
    """What comes before the layer is written to after it."""

    def __init__(self, between=False):
        super().__init__()
        self.stem, self.block, self.between = nn.Conv2d(Z, 3, 1), nn.Conv2d(3, 3, 1), between

    def forward(self, z):
        r = self.stem(z[..., None, None].expand(-1, -1, 2, 2))
        if self.between:
            doubled = r * 2
            r += 1
            return self.block(r) + doubled
        r += self.block(r)
        return r


class TestOpened:
    @pytest.mark.parametrize(
        "layer", ["dense", "stem", "block1.conv1", "block1", "up", "block2.conv2", "block2", "norm"]
    )
    @torch.no_grad()
    def test_resume_is_the_full_pass(self, untouched, layer):
        """Also with skips, shared activations, and results written in place."""
        net, z = untouched(Residual(late=True).eval()), torch.randn(3, Z)
        opened = Opened(net, layer, (z,))
        torch.testing.assert_close(opened.resume(opened.features), net(z))
        for factor in (0, -1, 2.5):  # again and again
            with hooked(net, {layer: lambda r, factor=factor: r * factor}):
                expected = net(z)
            torch.testing.assert_close(opened.resume(opened.features * factor), expected)
        torch.testing.assert_close(opened.resume(opened.features), opened.output)

    @pytest.mark.parametrize("between", [False, True])
    @pytest.mark.parametrize("layer", ["stem", "block"])
    @torch.no_grad()
    def test_memory_is_not_written_to(self, layer, between):
        net, z = AddedInPlace(between), torch.randn(2, Z)
        opened = Opened(net, layer, (z,))
        torch.testing.assert_close(opened.resume(opened.features), net(z))
        with hooked(net, {layer: lambda r: r + 1}):
            expected = net(z)
        torch.testing.assert_close(opened.resume(opened.features + 1), expected)

    @torch.no_grad()
    def test_only_what_lies_behind_runs(self):
        net, z = Counting(), torch.randn(2, Z)
        opened = Opened(net, "3", (z,))
        before = net.calls()
        opened.resume(opened.features)
        assert [b - a for a, b in zip(before, net.calls(), strict=True)] == [0, 0, 1, 1]

    @torch.no_grad()
    def test_one_image_stands_for_many(self):
        net, z = Residual().eval(), torch.randn(1, Z)
        opened = Opened(net, "block2", (z,))
        many = torch.randn(5, 6, 8, 8)
        torch.testing.assert_close(opened.resume(many), torch.cat([opened.resume(m[None]) for m in many]))

    @torch.no_grad()
    def test_given_features_stay(self):
        opened = Opened(Residual().eval(), "stem", (torch.randn(2, Z),))
        features = torch.randn(2, 6, 4, 4)
        before = features.clone()
        opened.resume(features)
        assert torch.equal(features, before)

    def test_gradients_reach_the_features(self, untouched):
        net = untouched(Residual().eval())
        with torch.inference_mode():
            opened = Opened(net, "block1", (torch.randn(2, Z),))
        features = torch.randn(2, 6, 4, 4, requires_grad=True)
        opened.resume(features).sum().backward()
        assert features.grad.abs().sum() > 0

    def test_nothing_stays_after_an_error(self, untouched):
        net, z = untouched(Residual().eval()), torch.randn(2, Z)
        opened = Opened(net, "up", (z,))
        net.fail = True
        with pytest.raises(RuntimeError, match="as asked"):
            opened.resume(opened.features)
        with pytest.raises(RuntimeError, match="as asked"):
            Opened(net, "up", (z,))
        with pytest.raises(RuntimeError):
            opened.resume(opened.features[:, :3])

    def test_own_forward_comes_back(self):
        """A forward that someone else has put in place of the class's own is there again."""
        net = Counting()
        mine = lambda r: r  # noqa: E731
        net[2].forward = mine
        with torch.no_grad():
            opened = Opened(net, "3", (torch.randn(2, Z),))
            opened.resume(opened.features)
        assert vars(net[2])["forward"] is mine

    def test_layer_that_never_runs(self, untouched):
        net = Residual()
        net.idle = nn.Conv2d(1, 1, 1)
        with pytest.raises(ValueError, match="layer 'idle' did not run"):
            Opened(untouched(net.eval()), "idle", (torch.randn(2, Z),))


def test_parallel_branches_resume():
    """Two branches that start at the latent: each can be resumed with the other one remembered."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Sequential(nn.Linear(Z, 12), nn.Unflatten(1, (3, 2, 2))) for _ in range(2))

        def forward(self, z):
            return self.a(z) * self.b(z)

    net = Branches()
    G = Generator.wrap(net, Z)
    for layer, other in (("a", "b"), ("b", "a")):
        opened = G.open(layer, range(3))
        found = opened.resume(torch.full((3, 3, 2, 2), 0.5))
        with torch.no_grad():
            expected = (0.5 * getattr(net, other)(G.latents(range(3)))).clamp(-1, 1)
        torch.testing.assert_close(found, expected)
