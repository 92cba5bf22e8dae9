"""Formulas: the search against all expressions that can be written, planted ones, and what is said of them."""

from dataclasses import replace
from itertools import product

import numpy as np
import planted
import pytest
import torch

import ganlens as gl
from ganlens.dissection.formula_search import FORMS, Formula, best_formula, together
from ganlens.dissection.unit_formulas import Counts, sets_of

WANTED = {1: "a or b", 2: "a and gold", 3: "a and not gold", 4: "a or b or c", 5: "(a or b) and gold"}


@pytest.fixture(scope="module")
def planes():
    net = planted.Formulas()
    G = gl.Generator.wrap(net, z_dim=planted.Z, layers=["layer"], name="formulas")
    S = gl.Segmenter.wrap(planted.formula_planes, planted.FORMULA_CONCEPTS, name="planes")
    return gl.dissect(G, S, "layer", n=256, quantile=0.1, progress=False)


def expressions(masks: list[np.ndarray], size: int):
    """Everything that can be said with that many concepts: which they are, and where it holds."""
    if size == 1:
        yield from (({c}, mask) for c, mask in enumerate(masks))
        return
    for left in range(1, size):
        for (a, x), (b, y) in product(expressions(masks, left), expressions(masks, size - left)):
            yield from ((a | b, x | y), (a | b, x & y), (a | b, x & ~y))


class TestSearch:
    @pytest.mark.parametrize("planes", [1, 2, 3])
    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_nothing_that_can_be_said_is_better(self, planes, length):
        for seed in range(6):
            random = np.random.default_rng([planes, length, seed])
            labels = random.integers(-1, 5, (3, planes, 6, 6))
            unit = random.random((3, 6, 6)) < (0.2 + 0.6 * (labels[:, 0] == 2) * (labels[:, -1] != 3))
            place, sets = sets_of(labels)
            members, masks = np.array(sets), [(labels == c).any(1) for c in range(5)]
            area = np.bincount(place.ravel(), minlength=len(sets))
            on = np.bincount(place[unit], minlength=len(sets))
            formula, iou = best_formula(unit.sum(), *(together(x, members, 5, length) for x in (on, area)), length)
            best = max(
                (unit & holds).sum() / (unit | holds).sum()
                for size in range(1, length + 1)
                for _, holds in expressions(masks, size)
            )
            assert iou == pytest.approx(best)
            holds = formula.holds(members)[place]
            assert (unit & holds).sum() / (unit | holds).sum() == pytest.approx(best)
            words = FORMS[formula.form].format(*(f"masks[{c}]" for c in formula.concepts))
            said = eval(words.replace("and not", "& ~").replace("and", "&").replace("or", "|"), {"masks": masks})
            assert (said == holds).all()

    def test_the_simplest_of_equals(self):
        members, counts = np.array([[0], [1], [-1]]), np.array([10, 5, 50])
        on = np.array([10, 0, 0])
        tables = [together(x, members, 2) for x in (on, counts)]
        assert best_formula(10, *tables, 3) == (Formula(0, (0,)), 1.0)

    def test_sets_of_pixels(self):
        labels = np.array([[[[0, 1], [2, -2]], [[1, 1], [-1, -2]]]])
        place, sets = sets_of(labels)
        assert [set(sets[p]) - {-1} for p in place.ravel()[:3]] == [{0, 1}, {1}, {2}]
        assert place.ravel()[3] == -2

    def test_gains_have_the_error_that_repetition_shows(self):
        gains, errors = [], []
        for seed in range(300):
            random = np.random.default_rng(seed)
            both, on = random.poisson(20, 32), random.poisson(60, 32)
            own, simpler = Counts(both + random.poisson(4, 32), on + 70), Counts(both, on + 60)
            gain = own.gain(simpler)
            gains.append(gain.value)
            errors.append(gain.error)
        assert np.std(gains) == pytest.approx(np.mean(errors), rel=0.12)


class TestPlanted:
    def test_formulas_are_found_and_none_is_made_up(self, planes):
        for sample in range(20):
            found = gl.unit_formulas(planes, n=512, sample=sample, progress=False)
            assert {one.unit: one.formula for one in found.found} == WANTED
            assert all(one.gain > one.chance and one.low > 0 for one in found.found)

    def test_ious_are_those_of_the_held_out_images(self, planes):
        found = gl.unit_formulas(planes, [1], n=256, progress=False).found[0]
        seeds = [seed for seed in range(256) if seed // 8 % 2]
        images, features = planes.generator.read(planes.generator.latents(seeds), ["layer"])
        on = features["layer"][:, 1] > planes.thresholds[1]
        first = planted.formula_planes(images)[:, 0]
        holds, alone = (first == 1) | (first == 2), first == {"a": 1, "b": 2}[found.concept]
        for mask, iou in ((holds, found.iou), (alone, found.concept_iou)):
            assert float((on & mask).sum() / (on | mask).sum()) == pytest.approx(iou)

    def test_at_most_two_concepts(self, planes):
        found = gl.unit_formulas(planes, n=512, length=2, progress=False)
        assert {one.unit: one.formula for one in found.found if one.unit < 4} == {u: WANTED[u] for u in (1, 2, 3)}
        assert all(len(one.formula.split(" or ")) + len(one.formula.split(" and ")) == 3 for one in found.found)

    @pytest.mark.parametrize("rule", ["quantile", "iqr", "iou"])
    def test_labels_of_other_images_say_nothing(self, G, S, rule):
        """Units that are on nearly everywhere gain much by long formulas, whatever images show."""

        def of_another(x):
            seeds = [int(1e6 + 1e5 * picture.abs().sum().item() % 1e6) for picture in x]
            return S.labels(G.generate(seeds))

        other = gl.Segmenter.wrap(of_another, S.concepts, name="other images")
        D = gl.dissect(G, other, "layer6", n=256, rule=rule, progress=False)
        assert len(gl.unit_formulas(D, n=512, progress=False).found) <= 1

    def test_labels_that_say_nothing(self, planes):
        shuffled = gl.Segmenter.wrap(
            lambda x: planted.formula_planes(x.roll(1, 0)), planted.FORMULA_CONCEPTS, name="of other images"
        )
        D = replace(planes, segmenter=shuffled)
        assert gl.unit_formulas(D, n=1024, progress=False).found == ()

    @pytest.mark.parametrize(("rule", "quantile"), [("iou", 0.01), ("quantile", 0.05)])
    def test_noise_follows_nothing(self, rule, quantile):
        """Maps that have nothing to do with the picture; formulas of 3 concepts come close to the bar by their size."""
        G = gl.Generator.wrap(planted.Noise(), planted.Z, layers=["layer"], name="noise")
        D = gl.dissect(G, planted.shares(0.06), "layer", n=256, rule=rule, quantile=quantile, progress=False)
        found = [len(gl.unit_formulas(D, n=512, sample=sample, progress=False).found) for sample in range(4)]
        assert sum(found) <= 2  # of 120


class TestResult:
    def test_kept_shown_and_saved(self, planes, tmp_path):
        D = replace(planes, formulas=gl.unit_formulas(planes, n=256, progress=False))
        assert "Closer, on held-out images: a or b (IoU " in D.describe(1)
        assert "Closer" not in D.describe(0)
        assert [row["formula"] for row in D.rows()][:2] == ["", "a or b"]
        assert "formula" not in planes.rows()[0]
        D.save(tmp_path / "D.npz")
        again = gl.Dissection.load(tmp_path / "D.npz")
        assert again.formulas.rows() == D.formulas.rows()
        assert repr(again.formulas) == repr(D.formulas)
        assert "a or b" in D.formulas._repr_html_()
        assert len(D.formulas.table()) == len(D.formulas.found)

    def test_units_of_any_kind(self, planes):
        assert gl.unit_formulas(planes, [], n=128, progress=False).units == 0
        some = gl.unit_formulas(planes, (np.int64(unit) for unit in (1, 1, 0)), n=128, progress=False)
        assert some.units == 2

    def test_concepts_of_one_name(self, planes):
        concepts = tuple(gl.Concept("b", "material") if c.name == "gold" else c for c in planes.concepts)
        D = replace(planes, concepts=concepts)
        assert gl.unit_formulas(D, [1], n=512, progress=False).found[0].formula == "a or b:thing"

    def test_formulas_of_another_layer_are_not_saved(self, planes, tmp_path):
        found = gl.unit_formulas(planes, n=256, progress=False)
        wrong = replace(found, found=(found.found[0]._replace(unit=99),))
        with pytest.raises(ValueError, match="formulas"):
            replace(planes, formulas=wrong).save(tmp_path / "D.npz")
        assert not (tmp_path / "D.npz").exists()

    def test_nothing_found(self, planes, tmp_path):
        none = gl.unit_formulas(planes, [0, 7], n=128, progress=False)
        assert (len(none.table()), none.rows()) == (0, [])
        none.to_csv(tmp_path / "none.csv")
        assert (tmp_path / "none.csv").read_text().startswith("unit,formula,iou")
        assert "<table" not in none._repr_html_()

    def test_interrupt_gives_a_part(self, planes):
        def press(done, total):
            if done >= 160:
                raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="interrupted"):
            found = gl.unit_formulas(planes, n=512, progress=press)
        assert found.n == 160

    def test_one_unit_is_as_among_others(self, planes):
        own = gl.unit_formulas(planes, [1], n=256, progress=False).found[0]
        among = gl.unit_formulas(planes, n=256, progress=False).of(1)
        assert own._replace(q=0) == among._replace(q=0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n": 64}, "n >= 128"),
            ({"length": 4}, "2 or 3"),
            ({"units": [99]}, "out of range"),
            ({"sample": -1}, "sample"),
        ],
    )
    def test_bad_arguments(self, planes, arguments, message):
        with pytest.raises(ValueError, match=message):
            gl.unit_formulas(planes, progress=False, **arguments)

    def test_within_categories(self, planes):
        with pytest.raises(ValueError, match="within_category"):
            gl.unit_formulas(replace(planes, within_category=True), progress=False)

    def test_a_damaged_file_is_refused(self, planes, tmp_path):
        from ganlens.files import arrays_to_bytes, read_arrays, with_header

        D = replace(planes, formulas=gl.unit_formulas(planes, n=256, progress=False))
        D.save(tmp_path / "D.npz")
        header, arrays = read_arrays(tmp_path / "D.npz", "dissection", lambda *_: None)
        for damage in ({"found": [[1, "a"]]}, {"n": -1}, {"found": [[99, *header["formulas"]["found"][0][1:]]]}):
            broken = header | {"formulas": header["formulas"] | damage}
            (tmp_path / "broken.npz").write_bytes(arrays_to_bytes(with_header(broken, arrays)))
            with pytest.raises(ValueError, match="formulas"):
                gl.Dissection.load(tmp_path / "broken.npz")


def test_torch_is_not_asked_for_gradients(planes):
    with torch.enable_grad():
        assert gl.unit_formulas(planes, [0], n=128, progress=False).units == 1
