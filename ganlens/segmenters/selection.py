"""Some of a segmenter's concepts, or several of them as one."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ganlens.arguments import as_list, short_repr
from ganlens.segmenters.base import Concept, Segmenter, as_concept


class Group(NamedTuple):
    """A concept, and the concepts of the segmenter behind that it stands for, by their places."""

    concept: Concept
    members: tuple[int, ...]


class SelectedSegmenter(Segmenter):
    """A segmenter's labels under fewer names; what is not chosen is none.

    ``S.only("door", "window")`` and ``S.merge({"plant": ["tree", "palm"]})`` make one.

    Parameters
    ----------
    segmenter : Segmenter
        Finds the concepts.
    groups : sequence of Group
        The new vocabulary.

    Notes
    -----
    The label planes stay as many; those of categories of which nothing is chosen hold none. The score of several
    concepts is the sum of theirs, at most 1.

    Examples
    --------
    >>> S = Segmenter.wrap(lambda x: (x[:, 0] > 0).int() + 1, ["sky", "tree"])
    >>> S.only("tree").labels(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2))[0, 0].tolist()
    [[0, 1]]
    """

    def __init__(self, segmenter: Segmenter, groups: Sequence[Group]):
        self.segmenter, self.groups = segmenter, tuple(groups)
        self.concepts = tuple(group.concept for group in groups)
        if len({*self.concepts}) < len(self.concepts):
            twice = next(concept for concept in self.concepts if self.concepts.count(concept) > 1)
            raise ValueError(f"{segmenter.name} would have the concept {str(twice)!r} twice; give another name")
        self.name, self.threshold = segmenter.name, segmenter.threshold
        self.number = torch.zeros(len(segmenter.concepts) + 2, dtype=torch.int64)  # by label, from -1 on
        self.number[0] = -1
        for new, group in enumerate(groups, 1):
            self.number[torch.tensor(group.members) + 2] = new

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        labels = self.segmenter.labels(images).long()
        return self.number.to(labels.device)[labels + 1]

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.segmenter.scores(images)
        return torch.stack([scores[:, list(group.members)].sum(1).clamp(max=1) for group in self.groups], 1)

    @property
    def fingerprint(self) -> str:
        text = f"selected {self.segmenter.fingerprint} {self.groups}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def only(S: Segmenter, concepts: Sequence[str | Concept]) -> SelectedSegmenter:
    """Some of a segmenter's concepts, in the order of its vocabulary; ValueError for none, or for others."""
    places = sorted({S.index(concept) for concept in concepts})
    if not places:
        raise ValueError(f"no concept given; {S.name} has {', '.join(map(str, S.concepts))}")
    return SelectedSegmenter(S, [Group(S.concepts[place], (place,)) for place in places])


def merge(S: Segmenter, merged: Mapping[str, Sequence[str | Concept]]) -> SelectedSegmenter:
    """Several concepts of a category as one, by its name; the others stay."""
    if not isinstance(merged, Mapping) or not merged:
        raise ValueError(f"merge of {short_repr(merged)}: expected names with concepts: {{'plant': ['tree', 'palm']}}")
    groups: dict[tuple[int, ...], Group] = {(place,): Group(c, (place,)) for place, c in enumerate(S.concepts)}
    owner: dict[int, str] = {}
    for name, members in merged.items():
        if isinstance(members, str):
            raise ValueError(f"merge of {members!r} into {short_repr(name)}: expected a list of concepts")
        places = tuple(sorted({S.index(member) for member in as_list("concepts", members, "a list of concepts")}))
        categories = {S.concepts[place].category for place in places}
        if len(categories) != 1:
            found = f"are of {' and '.join(sorted(categories))}" if categories else "are none"
            raise ValueError(f"the concepts of {short_repr(name)} {found}; expected some of one category")
        for place in places:
            if owner.setdefault(place, name) != name:
                raise ValueError(f"{str(S.concepts[place])!r} is merged into {owner[place]!r} and into {name!r}")
            groups.pop((place,), None)
        groups[places] = Group(as_concept((name, categories.pop())), places)
    return SelectedSegmenter(S, sorted(groups.values(), key=lambda group: group.members[0]))
