"""What was found, as one page that can be sent around: a file without a server, readable without scripts."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ganlens.arguments import as_list
from ganlens.dissection.result import Dissection
from ganlens.files import check_targets, write_atomically
from ganlens.progress import interrupt_between_steps, progress_bar

ENDINGS = (".html", ".htm")
UNSAFE = re.compile(r"[^\w.-]+")  # what is left out of names of files


def report(
    dissections: Dissection | Mapping[str, Dissection],
    path: str | Path,
    effects: Iterable = (),
    *,
    live: bool = False,
    progress: bool | Callable[[int, int], None] = True,
) -> Path:
    """Write a page that shows a dissection, or several, and beside it the same as CSV and JSON.

    Parameters
    ----------
    dissections : Dissection or dict of str to Dissection
        What was found; several by layer, as `ganlens.dissect` gives them, or by any other name. Units are shown with
        images if the dissection has its generator, and with what they cause if it has its effects.
    path : str or Path
        The page, a name that ends in ``.html``. It needs no other file and no network. Files that exist are replaced
        once everything is computed.
    effects : iterable, optional
        Further results to show: an `Effect`, what `ganlens.compare_rankings` or `ganlens.context` returns, the Axes of
        a figure; of everything else, its ``repr``.
    live : bool
        Whether the page also paints: it then holds the generator, as `ganlens.painting_page` does, and pictures of
        units are smaller; 9 MB for a layer of the embedded generator.
    progress : bool or callable
        Whether to show a bar while images are drawn, or a function to be told ``(done, total)``.

    Returns
    -------
    Path
        The page. Its table is beside it under the same name with ``.csv``, settings, summary and table with ``.json``;
        of several dissections, with each one's name before the ending.

    Raises
    ------
    ValueError
        Not a dissection, or a name with another ending; ``live`` with a generator that cannot run in a page.
    OSError
        The folder does not exist or takes no files.

    Examples
    --------
    >>> import ganlens as gl, tempfile
    >>> D = gl.dissect(gl.load_generator("scenes"), gl.load_segmenter("scenes"), "layer9", n=8, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = gl.report(D, f"{folder}/layer9.html", progress=False)
    ...     sorted(file.name for file in page.parent.iterdir())
    ['layer9.csv', 'layer9.html', 'layer9.json']
    """
    from ganlens.pages.report_page import document  # brings matplotlib
    from ganlens.pages.report_pictures import count, pictures_of

    path, results, parts = check_path(path), check_results(effects), check_dissections(dissections)
    files = tables_beside(path, parts)
    check_targets(files_of(path, parts), replace=True)
    drawn, painting = sum(map(count, parts.values())), painting_of(parts, progress) if check_live(live) else None
    with progress_bar(progress if drawn else False, drawn, "report") as tell:
        text = document(parts, results, lambda D: pictures_of(D, tell, small=live), files, painting)
    with interrupt_between_steps():
        for name, D in parts.items():
            D.to_csv(files[name][0])
            D.to_json(files[name][1])
        write_atomically(path, text.encode())
    return path


def painting_of(parts: Mapping[str, Dissection], progress) -> str:
    """The page that paints with the units of dissections."""
    from ganlens.pages.painting_page import page_of

    return page_of({D.layer: D for D in parts.values()}, 0, 20, True, progress)


def check_live(live: object) -> bool:
    """Whether the page is to paint; ValueError if that is not said."""
    if not isinstance(live, bool):
        raise ValueError(f"live={live!r}: expected True or False")
    return live


def files_of(path: Path, names: Iterable) -> list[Path]:
    """Everything that is written: the page, and its tables."""
    return [path, *(file for pair in tables_beside(path, names).values() for file in pair)]


def tables_beside(path: Path, names: Iterable) -> dict[str, tuple[Path, Path]]:
    """Where CSV and JSON go: under the page's name, with that of the dissection where there are several."""
    names = list(map(str, names))
    stems = {name: f"{path.stem}-{UNSAFE.sub('-', name)}" for name in names}
    if len(names) == 1:
        stems = dict.fromkeys(names, path.stem)
    return {name: (path.with_name(f"{stem}.csv"), path.with_name(f"{stem}.json")) for name, stem in stems.items()}


# ---- what was given


def check_dissections(given: object) -> dict[str, Dissection]:
    """Dissections by name; ValueError if there are none, or something else is among them."""
    if isinstance(given, Dissection):
        return {given.layer: given}
    if not isinstance(given, Mapping):
        hint = ""
        if isinstance(given, str | Path):
            hint = f"; a saved one is loaded first: gl.Dissection.load({str(given)!r})"
        elif isinstance(given, Sequence):
            hint = "; several are given by name: {'layer4': D4, 'layer5': D5}"
        raise ValueError(f"report of {kind(given)}: expected a Dissection, or a dict of them{hint}")
    if not given:
        raise ValueError("no dissections: expected at least one")
    for name, D in given.items():
        if not isinstance(D, Dissection):
            raise ValueError(f"report of {kind(D)} for {name!r}: expected a Dissection, as gl.dissect returns it")
    return {str(name): D for name, D in given.items()}


def check_path(path: object) -> Path:
    """Where the page goes; ValueError if that is no name of a page."""
    if not isinstance(path, str | Path):
        raise ValueError(f"a report at {kind(path)}: expected a path that ends in .html, such as 'layer4.html'")
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        hint = path.with_suffix(".html").name if path.name else "report.html"
        raise ValueError(f"a report named {path.name!r}: expected a name that ends in .html, such as {hint!r}")
    return path


def check_results(effects: object) -> list:
    """Return a list of further results; a single result that is not in a list is refused."""
    if isinstance(effects, Mapping):
        raise ValueError(f"effects={kind(effects)}: expected a list of results, such as [effect]")
    return as_list("effects", effects, "a list of results, such as [effect]")


def kind(value: object) -> str:
    """What something is, in words."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
