"""Whether half precision leaves the concepts of units as they are."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product

from ganlens.arguments import first_few
from ganlens.dissection.passes import Pass, dissection_of
from ganlens.dissection.result import Dissection
from ganlens.progress import progress_bar


def keeps_concepts(pass_: Pass, progress, interrupted: Callable[[], bool]) -> bool:
    """Whether half precision leaves the concept of every unit as it is, in the images of the pilot; if not, a warning.

    An interrupt is raised, as nothing was done yet.
    """
    question = replace(pass_.question, n=len(pass_.question.pilot))
    with progress_bar(progress is True, 2 * question.n, "check half precision") as done:

        def after(_, images: int) -> bool:
            done(images)
            return interrupted()

        def tried(half: bool) -> dict[tuple[str, str], Dissection]:
            trial = Pass(pass_.generator, pass_.segmenter, question, pass_.batch, half)
            if not trial.run(question.seeds, after, lambda _: None):
                raise KeyboardInterrupt
            trial.settle()
            pass_.batch = trial.batch
            return {pair: dissection_of(trial, *pair, {}) for pair in product(question.layers, question.rules)}

        full = tried(False)
        try:
            half = tried(True)
        except Exception as error:  # whatever a network does that does not know this type of number
            why = f"does not work ({type(error).__name__}: {error})"
        else:
            why = changes(full, half)
    if why:
        warnings.warn(f"half precision {why}; going on in float32", stacklevel=4)
    return not why


def changes(full: dict[tuple[str, str], Dissection], half: dict[tuple[str, str], Dissection]) -> str:
    """Which units match other concepts in half precision, by layer, in words; "" where all is the same."""
    units: dict[str, set[int]] = {}
    for (layer, rule), D in full.items():
        units.setdefault(layer, set()).update(changed_units(D, half[layer, rule]))
    said = [f"{layer}: {first_few(sorted(some))}" for layer, some in units.items() if some]
    return f"changes the concepts of units ({'; '.join(said)})" if said else ""


def changed_units(before: Dissection, after: Dissection) -> list[int]:
    """Units that match a concept in one of two dissections and are nearest to another one, or broken, in the other."""
    pairs = zip(before.labels, after.labels, strict=True)
    other = [a.unit for a, b in pairs if a.concept != b.concept and (a.interpretable or b.interpretable)]
    return other + list({*before.broken} ^ {*after.broken})
