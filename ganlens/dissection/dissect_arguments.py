"""What `ganlens.dissect` is given, checked before anything is computed."""

from inspect import signature
from numbers import Integral, Real

from ganlens.arguments import MOST_IMAGES, check_kind, short_repr
from ganlens.dissection.layer_statistics import RULES
from ganlens.models.network import ImageNetwork
from ganlens.segmenters.base import Segmenter
from ganlens.shards import check_executor

MOST_TOP = 10_000


def check_networks(generator, segmenter) -> None:
    check_kind(
        "generator", generator, ImageNetwork, "one from gl.load_generator, gl.Generator.wrap or gl.Classifier.wrap"
    )
    check_kind("segmenter", segmenter, Segmenter, "one from gl.load_segmenter or gl.Segmenter.wrap")


def as_names(name: str, given, expected: str) -> list[str]:
    """Names as a list, each once."""
    try:
        names = [given] if isinstance(given, str) else list(given)
    except TypeError:
        names = [None]
    if not all(isinstance(found, str) for found in names):
        raise ValueError(f"{name}={given!r}: expected {expected}")
    return list(dict.fromkeys(names))


def check_arguments(generator, layers, n, rules, quantile, sample, batch_size, top) -> None:
    if not layers:
        have = ", ".join(generator.layers) or "none with maps: name a module, of those in .table()"
        raise ValueError(f"no layer given; {generator.name} has {have}")
    for layer in layers:
        generator.check_layer(layer)
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    if not rules:
        raise ValueError(f"no rule given; expected one or more of {', '.join(RULES)}")
    check_whole("n", n, 1, MOST_IMAGES, f'expected 1 … {MOST_IMAGES} images, or "auto"; 1000 is a good start')
    if n == 1 and set(rules) - {"quantile"}:
        raise ValueError(f"n=1: rule {rules[-1]!r} chooses on images of even seeds and scores on odd ones; give n >= 2")
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1, None, "expected at least 1, or None")
    check_whole("top", top, 1, MOST_TOP, f"expected 1 … {MOST_TOP} images for each unit")
    real = isinstance(quantile, Real) and not isinstance(quantile, bool)
    if not real or not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile}: expected a share between 0 and 1, such as 0.01")
    last = 2**32 // MOST_IMAGES - 1
    check_whole("sample", sample, 0, last, f"expected 0 … {last}")
    if generator.count is not None and (sample or n > generator.count):
        have = f"{generator.name} has {generator.count} images, which are one sample"
        raise ValueError(f"n={n}, sample={sample}: {have}; give sample=0 and n={generator.count} or fewer")


def check_work(batch_size, memory, executor, shards, half, watch) -> None:
    if batch_size is not None and memory is not None:
        raise ValueError("batch_size and memory were both given; give one of them")
    check_executor(executor, shards)
    if watch is not None and not takes(watch, 2):
        expected = "something that is called with what was found and whether that is all, such as UnitGallery.live()"
        raise ValueError(f"watch={short_repr(watch)}: expected {expected}")
    if not isinstance(half, bool):
        raise ValueError(f"half={half!r}: expected True or False")


def takes(function, count: int) -> bool:
    """Whether something can be called with so many arguments, as far as that can be seen."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # functions of C that do not say
        return True
    return True


def check_whole(name: str, value, low: int, high: int | None, expected: str) -> None:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ValueError(f"{name}={value}: {expected}")
