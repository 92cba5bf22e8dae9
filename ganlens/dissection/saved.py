"""The file of a saved dissection: written whole, read and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ganlens.arguments import MOST_IMAGES, MOST_LETTERS, close_match, short_repr
from ganlens.dissection.certificates import Certificates
from ganlens.dissection.formulas import Formulas, UnitFormula
from ganlens.dissection.layer_statistics import RULES
from ganlens.dissection.ranking import KEPT_RANKINGS
from ganlens.files import arrays_to_bytes, read_arrays, with_header, write_atomically
from ganlens.models.network import EMBEDDED, ImageNetwork, changed
from ganlens.segmenters.base import Concept, Segmenter
from ganlens.statistics import Levels

if TYPE_CHECKING:
    from ganlens.dissection.result import Dissection

FORMAT = 1
MOST_NUMBERS = 2**26  # in an array
MOST_BINS = 2**16  # of the levels, and top images
PAINTING = ("gained", "beside", "removed", "spoiled")  # numbers of what can be painted
OPTIONAL: dict[str, dict | list] = {"flags": {}, "broken": []}  # what they are where a file has no such entry
SETTINGS = ("layer", "rule", "quantile", "n", "sample", "complete", "within_category", "shape", "origin", *OPTIONAL)
FLAGS = ("artifact", "favourite")
ORIGIN = ("generator", "generator_fingerprint", "segmenter", "segmenter_fingerprint")
ARRAYS = ("thresholds_by_concept", "on", "overlap", "area", "scope", "valid", "top", "top_values")
# The axes of all arrays of a file: U units, C concepts, K top images, B bins.
AXES = dict.fromkeys(("levels_low", "levels_slope", "levels_below", "levels_total"), "U")
AXES |= {"levels_lowest": "U", "levels_highest": "U", "levels_counts": "UB", "levels_bins": "", "levels_cells": ""}
AXES |= dict.fromkeys(ARRAYS, "UC") | {"area": "C", "scope": "C", "top": "UK", "top_values": "UK"}


OPTIONAL_AXES = dict.fromkeys(("effects", *(f"ranking_{by}" for by in KEPT_RANKINGS)), "UC")
OPTIONAL_AXES |= dict.fromkeys((f"certificate_{name}" for name in Certificates.names), "UC")
OPTIONAL_AXES["control"] = "C"
OPTIONAL_AXES |= dict.fromkeys((f"painting_{name}" for name in PAINTING), "C")


def is_text(value) -> bool:
    return isinstance(value, str)


def is_whole(value) -> bool:
    return type(value) is int and value >= 0


KINDS = {  # of the entries of a header
    "layer": is_text,
    "rule": is_text,
    "quantile": lambda value: type(value) is float and 0 < value < 1,
    "n": is_whole,
    "sample": is_whole,
    "complete": lambda value: type(value) is bool,
    "within_category": lambda value: type(value) is bool,
    "shape": lambda value: isinstance(value, list) and len(value) == 4 and all(map(is_whole, value)),
    "concepts": lambda value: isinstance(value, list) and len(value) > 0 and all(map(is_pair, value)),
}


def is_pair(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_text, value))


def header_of(D: "Dissection") -> dict:
    """Settings, origin and vocabulary of a dissection."""
    settings = {name: getattr(D, name) for name in SETTINGS}
    settings = {name: value for name, value in settings.items() if value or name not in OPTIONAL}
    painting = {name: value for name, value in D.painting.items() if name not in PAINTING}
    settings |= {"painting": painting} if painting else {}
    settings |= {"formulas": D.formulas.state()} if D.formulas else {}
    return {"format": FORMAT, "concepts": [list(c) for c in D.concepts], **settings}


def write_archive(D: "Dissection", path: str | Path) -> None:
    """Write everything but the live objects to an ``.npz`` file, whole or not at all."""
    arrays = {name: getattr(D, name) for name in ARRAYS}
    arrays |= {f"levels_{name}": array for name, array in D.levels.state().items()}
    if D.effects is not None:
        D.check_effects()
        arrays["effects"] = np.asarray(D.effects, float)
    arrays |= {f"ranking_{by}": values for by, values in D.rankings.items()}
    if D.control is not None:
        arrays["control"] = D.control
    if D.certificates is not None:
        arrays |= {f"certificate_{name}": getattr(D.certificates, name) for name in Certificates.names}
    if D.formulas is not None:
        check_formulas(Path(path), D.formulas.state(), len(D.iou))
    arrays |= {f"painting_{name}": D.painting[name] for name in PAINTING if D.painting}
    write_atomically(path, arrays_to_bytes(with_header(header_of(D), arrays)))


def fields_of(header: dict, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of the dissection that a file holds."""
    prefix = "levels_"
    levels = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    rankings = {by: arrays[f"ranking_{by}"] for by in KEPT_RANKINGS if f"ranking_{by}" in arrays}
    fields = {name: header[name] for name in SETTINGS} | {"shape": tuple(header["shape"])}
    fields |= {name: arrays[name] for name in ARRAYS} | {"levels": Levels.from_state(levels)}
    concepts = tuple(Concept(*pair) for pair in header["concepts"])
    painting = header.get("painting", {})
    painting |= {name: arrays[f"painting_{name}"] for name in PAINTING if painting}
    fields |= {"concepts": concepts, "rankings": rankings, "effects": arrays.get("effects")}
    formulas = header.get("formulas")
    fields |= {"control": arrays.get("control"), "formulas": Formulas.from_state(formulas) if formulas else None}
    known = [arrays[f"certificate_{name}"] for name in Certificates.names if f"certificate_{name}" in arrays]
    return fields | {"painting": painting, "certificates": Certificates(*known) if known else None}


def check_origin(path: str | Path, origin: dict, generator: ImageNetwork | None, segmenter: Segmenter | None) -> None:
    """ValueError if a file was made with another generator or segmenter, or with other settings of the generator."""
    for what, live in (("generator", generator), ("segmenter", segmenter)):
        known = origin[f"{what}_fingerprint"]
        if live is not None and live.fingerprint != known:
            if origin[what] == live.name == EMBEDDED:
                remedy = f"its numbers can be read without a {what}, or dissect anew"
                raise ValueError(f"{path} is of another version: {changed(known, live.fingerprint, what)}; {remedy}")
            raise ValueError(
                f"{path} was made with the {what} {origin[what]} (fingerprint {known}), not with "
                f"{live.name} (fingerprint {live.fingerprint}); its numbers can be read without a {what}"
            )
    chosen = origin.get("generator_settings", {})
    if generator is not None and generator.chosen != chosen:
        wanted = ", ".join(f"{name}={value!r}" for name, value in (generator.defaults | chosen).items())
        raise ValueError(
            f"{path} was made with {origin['generator']}, not with {generator.title}: give generator.variant({wanted})"
        )


def read_archive(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a saved dissection; ValueError if it is none."""
    header, arrays = read_arrays(path, "dissection", check_claims)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise ValueError(f"{path} has format version {found}; this ganlens reads version {FORMAT}")
    header = {name: empty.copy() for name, empty in OPTIONAL.items()} | header
    check_parts(path, header, arrays)
    return header, arrays


def check_claims(header: dict, claims: Mapping[str, np.ndarray]) -> None:
    """ValueError if a file holds arrays that no dissection has, or larger ones than its units and concepts need."""
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    for name, claim in claims.items():
        if name not in AXES | OPTIONAL_AXES:
            raise ValueError(f"it holds {name!r}, which no dissection has")
        axes = (AXES | OPTIONAL_AXES).get(name, "")
        sizes = {axis: n for axis, n in zip("UC", claims["on"].shape, strict=False)} if "on" in claims else {}
        shape = [sizes.get(axis, MOST_BINS) for axis in axes]
        if claim.ndim != len(axes) or any(n > most for n, most in zip(claim.shape, shape, strict=True)):
            raise ValueError(f"{name} of shape {claim.shape} does not fit the other parts")
        if claim.size > MOST_NUMBERS:
            raise ValueError(f"{name} of shape {claim.shape} is larger than that of any dissection")


def check_values(path: Path, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """ValueError if counts, levels or texts are none that a dissection can have found."""
    for name, kinds in (("on overlap area scope top levels_below levels_total", "iu"), ("valid", "b")):
        wrong = [one for one in name.split() if arrays[one].dtype.kind not in kinds]
        if wrong:
            raise ValueError(f"{path} is damaged: {wrong[0]} holds {arrays[wrong[0]].dtype}")
    on, overlap, area, scope = (arrays[name] for name in ("on", "overlap", "area", "scope"))
    fit = min(array.min(initial=0) for array in (on, overlap, area, scope)) >= 0 and scope.max(initial=0) < 2**53
    fit &= bool((overlap <= np.minimum(on, area)).all() and (area <= scope).all() and (on <= scope).all())
    fit &= bool((arrays["top"] >= -1).all() and arrays["top"].max(initial=-1) < 2**32 and arrays["top"].shape[1] > 0)
    fit &= all(not np.isnan(arrays[name]).any() for name in ("thresholds_by_concept", "top_values"))
    fit &= all(np.isfinite(arrays[f"levels_{name}"]).all() for name in ("low", "slope", "lowest", "highest"))
    fit &= all((arrays[f"levels_{name}"] >= 0).all() for name in ("counts", "below", "slope", "cells"))
    bins = int(arrays["levels_bins"])
    fit &= bins == arrays["levels_counts"].shape[1] > 0 and len(on) > 0 and min(header["shape"]) > 0
    if not fit:
        raise ValueError(f"{path} is damaged: its counts and levels are none of a dissection")
    texts = [*(text for pair in header["concepts"] for text in pair), header["layer"], header["origin"]["generator"]]
    odd = [text for text in texts if not text or len(text) > MOST_LETTERS or not text.isprintable()]
    pairs = [tuple(pair) for pair in header["concepts"]]
    if odd or len({*pairs}) < len(pairs) or header["rule"] not in RULES or max(header["shape"]) > 2**15:
        what = f"the name {short_repr(odd[0])}" if odd else "its concepts, rule or shape"
        raise ValueError(f"{path} is damaged: {what}")
    if header["n"] < 1 or header["n"] > MOST_IMAGES or header["sample"] > 2**32 // MOST_IMAGES:
        raise ValueError(f"{path} is damaged: n={header['n']}, sample={header['sample']}")
    if not isinstance(header["origin"].get("generator_settings", {}), dict):
        raise ValueError(f"{path} is damaged: the settings of its generator")


def check_parts(path: Path, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """ValueError if a part is missing or does not fit the others."""
    origin = header["origin"] if isinstance(header.get("origin"), dict) else {}
    missing = [name for name in ("concepts", *SETTINGS) if name not in header]
    missing += [f"origin.{name}" for name in ORIGIN if name not in origin]
    missing += [name for name in AXES if name not in arrays]
    if missing:
        raise ValueError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    wrong = [name for name, fits in KINDS.items() if not fits(header[name])]
    wrong += [f"origin.{name}" for name in ORIGIN if not isinstance(origin[name], str)]
    if wrong:
        raise ValueError(f"{path} is damaged: field {wrong[0]} is not of its type")
    sizes = {"C": len(header["concepts"])}
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ValueError(f"{path} is damaged: not all of its arrays hold numbers")
    for name, axes in ((name, axes) for name, axes in (AXES | OPTIONAL_AXES).items() if name in arrays):
        shape = arrays[name].shape
        if len(shape) != len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, shape, strict=True)):
            raise ValueError(f"{path} is damaged: {name} of shape {shape} does not fit the other parts")
    check_flags(path, header["flags"], sizes["U"])
    check_certificates(path, arrays)
    check_painting(path, header.get("painting", {}), arrays)
    check_formulas(path, header.get("formulas"), sizes["U"])
    check_values(path, header, arrays)
    if not are_units(header["broken"], sizes["U"]):
        raise ValueError(f"{path} is damaged: its broken units are no list of units 0 … {sizes['U'] - 1}")


def check_certificates(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError if the certificates of a file are not whole, or none."""
    there = [arrays[f"certificate_{name}"] for name in Certificates.names if f"certificate_{name}" in arrays]
    if not there:
        return
    fit = len(there) == len(Certificates.names) and all(array.dtype.kind == "f" for array in there)
    if fit:
        low, high, p, *measures = there
        fit = bool((np.isnan(low) == np.isnan(high)).all() and ((low <= high) | np.isnan(low)).all())
        fit = fit and all((array >= -1).all() and (array <= 1).all() for array in (p, *measures)) and p.min() >= 0
    if not fit:
        raise ValueError(f"{path} is damaged: its certificates are none of a dissection")


def check_painting(path: Path, settings: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError if what is said of painting is not whole."""
    there = [name for name in PAINTING if f"painting_{name}" in arrays]
    plain = isinstance(settings, dict) and all(isinstance(value, int | float | str) for value in settings.values())
    if not plain or bool(settings) != bool(there) or len(there) not in (0, len(PAINTING)):
        raise ValueError(f"{path} is damaged: what can be painted")


def check_formulas(path: Path, state, count: int) -> None:
    """ValueError if the formulas of a file are not those of units among ``count``."""
    if state is None:
        return
    fit = isinstance(state, dict) and {*state} == {"n", "units", "found"} and isinstance(state["found"], list)
    fit = fit and is_whole(state["n"]) and is_whole(state["units"]) and max(state["n"], state["units"]) <= MOST_IMAGES
    fit = fit and all(map(is_formula, state["found"]))
    units = [one[0] for one in state["found"]] if fit else []
    if not fit or not are_units(units, count) or len({*units}) < len(units):
        raise ValueError(f"{path} is damaged: its formulas are none of units 0 … {count - 1}")


def is_formula(row) -> bool:
    """Whether a row holds a number of a unit, texts and finite numbers, as a `UnitFormula` does."""
    if not isinstance(row, list) or len(row) != len(UnitFormula._fields):
        return False
    texts = [value for value, kind in zip(row, UnitFormula.__annotations__.values(), strict=True) if kind is str]
    rest = [value for value, kind in zip(row, UnitFormula.__annotations__.values(), strict=True) if kind is float]
    plain = all(is_text(text) and 0 < len(text) <= 4 * MOST_LETTERS and text.isprintable() for text in texts)
    return plain and all(type(value) is float and -1 <= value <= 1 for value in rest)


def check_flags(path: Path, flags: dict, count: int) -> None:
    """ValueError if the flags of a file are not lists of units among ``count``."""
    for name, units in flags.items() if isinstance(flags, dict) else [("flags", None)]:
        if name not in FLAGS or not are_units(units, count):
            raise ValueError(f"{path} is damaged: its flags {name!r} are no list of units 0 … {count - 1}")


def check_flag(name: str) -> None:
    """ValueError with close matches if there is no such flag."""
    if not isinstance(name, str) or name not in FLAGS:
        raise ValueError(close_match("flag", name, FLAGS, "this dissection"))


def are_units(units, count: int) -> bool:
    return isinstance(units, list) and all(type(unit) is int and 0 <= unit < count for unit in units)
