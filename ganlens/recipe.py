"""An edit session as a value: a seed and what was done to it, replayed without a browser to the same bits."""

import json
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from ganlens.arguments import check_kind
from ganlens.files import check_ordinary, write_atomically
from ganlens.images import to_uint8
from ganlens.models import load_generator
from ganlens.models.base import Generator
from ganlens.models.classifier import as_generator
from ganlens.models.editing import Edit, as_edits
from ganlens.models.hooks import hooked
from ganlens.models.latents import as_seeds
from ganlens.models.network import EMBEDDED, changed
from ganlens.models.opened import OpenedGenerator

FORMAT = 1
MOST_SIZE = 2**28  # bytes of a file
KEPT = 4  # opened layers that a renderer keeps


@dataclass(frozen=True)
class Recipe:
    """One image of a generator and the edits that were made to it.

    Attributes
    ----------
    generator, fingerprint : str
        Name of the generator, and the hash of its numbers.
    seed : int
        Which image.
    edits : tuple of Edit
        Applied in their order.
    settings : dict
        Those of the generator that were not the usual ones, for instance ``{"truncation": 0.7}``.

    Examples
    --------
    >>> import ganlens as gl
    >>> G = gl.load_generator("scenes")
    >>> recipe = gl.Recipe.of(G, seed=7, edits=[gl.ablate("layer4", [3, 5])])
    >>> recipe == gl.Recipe.from_json(recipe.to_json())
    True
    >>> gl.replay(recipe).shape
    (64, 64, 3)
    """

    generator: str
    fingerprint: str
    seed: int
    _: KW_ONLY
    edits: tuple[Edit, ...] = ()
    settings: dict = field(default_factory=dict, hash=False)

    def __post_init__(self):
        for name in ("generator", "fingerprint"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected a text, as Recipe.of sets it")
        object.__setattr__(self, "seed", as_seeds([self.seed])[0])
        object.__setattr__(self, "edits", as_edits(self.edits))
        object.__setattr__(self, "settings", read_settings(self.settings))

    @classmethod
    def of(cls, G: Generator, seed: int, edits: Sequence[Edit] | Edit = ()) -> "Recipe":
        """The recipe of a generator's image; ValueError if an edit does not fit."""
        G = as_generator(G)
        recipe = cls(G.name, G.fingerprint, seed, edits=as_edits(edits), settings=G.chosen)
        check_edits(G, recipe.edits)
        return recipe

    def check(self, G: Generator) -> None:
        """ValueError if the recipe is another generator's, or an edit or a setting does not fit."""
        as_generator(G)
        fingerprint = G.fingerprint
        if fingerprint != self.fingerprint:
            if self.generator == G.name == EMBEDDED:
                raise ValueError(f"the recipe is of another version: {changed(self.fingerprint, fingerprint)}")
            raise ValueError(
                f"the recipe was made with the generator {self.generator} (fingerprint {self.fingerprint}), not with "
                f"{G.name} (fingerprint {fingerprint}); give the one it was made with: gl.replay(recipe, generator=…)"
            )
        check_edits(G, self.edits)
        self.variant_of(G)

    def variant_of(self, G: Generator) -> Generator:
        """The generator with the recipe's settings, whatever its own are; ValueError if it has no such settings."""
        return G.variant(**(G.defaults | self.settings))

    def to_json(self) -> str:
        """JSON with a line for each edit; `from_json` is the way back."""
        head = {"format": FORMAT, "generator": self.generator, "fingerprint": self.fingerprint, "seed": self.seed}
        head |= {"settings": self.settings} if self.settings else {}
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        edits = ",".join(f"\n  {edit.to_json()}" for edit in self.edits)
        return "{\n " + ",\n ".join([*lines, f'"edits": [{edits}]']) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Recipe":
        """Read a recipe written by `to_json`; ValueError if it is none, or of another format."""
        try:
            fields = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a recipe: broken JSON, {error}; expected what Recipe.save writes") from error
        if not isinstance(fields, dict) or "format" not in fields:
            raise ValueError('not a recipe: it has no "format"; expected what Recipe.save writes')
        if fields["format"] != FORMAT:
            raise ValueError(f"recipe of format {fields['format']!r}; this ganlens reads format {FORMAT}")
        names = ("generator", "fingerprint", "seed", "edits")
        if fields.keys() - {"settings"} != {"format", *names}:
            raise ValueError(f"not a recipe: it has {', '.join(fields)}; expected format, {', '.join(names)}")
        what = (fields[name] for name in names[:3])
        return cls(*what, edits=read_edits(fields["edits"]), settings=fields.get("settings", {}))

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file, whole or not at all."""
        write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a file written by `save`; ValueError that names the file if it is no recipe."""
        check_ordinary(path, MOST_SIZE)
        content = Path(path).read_bytes()
        try:
            return cls.from_json(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def check_edits(G: Generator, edits: Sequence[Edit]) -> None:
    for edit in edits:
        G.check_edit(edit)


def read_settings(settings) -> dict:
    """Settings by name; ValueError if they are nothing of the kind."""
    plain = isinstance(settings, dict) and all(
        isinstance(name, str) and (value is None or (type(value) in (int, float) and isfinite(value)))
        for name, value in settings.items()
    )
    if not plain:
        raise ValueError(
            f"settings of the recipe: {settings!r}; expected numbers by name, such as {{'truncation': 0.7}}"
        )
    return dict(settings)


def read_edits(edits) -> tuple[Edit, ...]:
    """Edits of their fields, as JSON has them; ValueError that says which one is wrong."""
    if not isinstance(edits, list):
        raise ValueError(f"edits of the recipe: {type(edits).__name__} given; expected a list")
    found = []
    for i, fields in enumerate(edits):
        try:
            found.append(Edit(**fields))
        except (TypeError, OverflowError, ValueError) as error:
            raise ValueError(f"edit {i} of the recipe: {error}") from error
    return tuple(found)


class Renderer:
    """Makes edited images of one generator; what lies in front of the edits runs once and is remembered.

    The canvas and `replay` both go through `render`: the bits of an image depend on seed and edits alone.

    Parameters
    ----------
    G : Generator
        Its layers are opened; the last ``KEPT`` of them stay open.

    Examples
    --------
    >>> import ganlens as gl
    >>> renderer = Renderer(gl.load_generator("scenes"))
    >>> x, picture = renderer.render(seed=7, edits=[gl.ablate("layer4", [3, 5])])
    >>> x.shape, picture.shape
    (torch.Size([1, 3, 64, 64]), (64, 64, 3))
    """

    def __init__(self, G: Generator):
        self.G, self.lock = as_generator(G), Lock()
        self.kept: dict[tuple, OpenedGenerator] = {}  # the newest is the last

    def render(
        self,
        seed: int,
        edits: Sequence[Edit] | Edit = (),
        stop: Callable[[], bool] | None = None,
        layer: str | None = None,
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Image (1, 3, Y, X) in [-1, 1] and picture (Y, X, 3), uint8, of a seed with edits applied in their order.

        Parameters
        ----------
        stop : callable, optional
            Asked before each module runs; where it says True, `Abandoned` is raised.
        layer : str, optional
            Where there are no edits: the layer to open, so that a first edit of it is fast. It changes no bit.

        Raises
        ------
        ValueError
            An edit does not fit the generator.
        """
        edits = as_edits(edits)
        layers = {edit.layer for edit in edits} or {layer or next(iter(self.G.layers))}
        x = self.opened(self.G.earliest(layers), seed, stop).edited(edits, stop)
        return x, to_uint8(x)[0]

    def features(self, seed: int, edits: Sequence[Edit] | Edit, layer: str) -> torch.Tensor:
        """Features (1, U, H, W) of a layer of the edited image, edits of that layer included."""
        front = [edit for edit in as_edits(edits) if self.G.earliest({edit.layer, layer}) != layer]
        same = [edit for edit in as_edits(edits) if edit.layer == layer]
        with torch.no_grad():
            if not front:
                return self.G.edited_features(self.opened(layer, seed).features, same)
            found = []
            opened = self.opened(self.G.earliest({edit.layer for edit in front}), seed)  # before the other lock is held
            with self.G._lock, hooked(self.G.net, {layer: lambda r: found.append(r.clone())}):
                opened.edited(front)
            return self.G.edited_features(found[0][:1], same)

    def opened(self, layer: str, seed: int, stop: Callable[[], bool] | None = None) -> OpenedGenerator:
        """A layer of an image, opened now or before."""
        key = layer, *as_seeds([seed]), self.G.device
        with self.lock:
            found = self.kept.pop(key, None) or self.G.open(layer, seed, stop=stop)
            self.kept[key] = found
            if len(self.kept) > KEPT:
                del self.kept[next(iter(self.kept))]
        return found


def replay(recipe: Recipe | str | Path, generator: Generator | None = None) -> np.ndarray:
    """The picture (Y, X, 3), uint8, of a recipe: bit for bit what the canvas showed.

    Parameters
    ----------
    recipe : Recipe, path or str
        The recipe, its file, or its JSON.
    generator : Generator, optional
        The one that the recipe was made with; by default the embedded one.

    Raises
    ------
    ValueError
        No recipe, or one of another generator, or with settings that this one does not have.

    Examples
    --------
    >>> import ganlens as gl
    >>> replay(gl.Recipe.of(gl.load_generator("scenes"), seed=7)).dtype
    dtype('uint8')
    """
    recipe = as_recipe(recipe)
    G = load_generator("scenes") if generator is None else generator
    recipe.check(G)
    return Renderer(recipe.variant_of(G)).render(recipe.seed, recipe.edits)[1]


def as_recipe(recipe: Recipe | str | Path) -> Recipe:
    """A recipe as it is, of its JSON, or of its file."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str) and recipe.lstrip().startswith("{"):
        return Recipe.from_json(recipe)
    return Recipe.load(check_kind("recipe", recipe, str | Path, "a Recipe, its JSON, or the path of its file"))
