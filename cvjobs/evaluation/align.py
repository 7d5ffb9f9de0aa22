"""Which image of the predictions is which of the truth, and which class is which."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.metrics.objects import Ints

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Images:
    """How the images of an evaluation fit together.

    ``place`` (rows,) is where each row of the predictions is in the truth, -1 where the truth does not know it.
    """

    place: Ints
    truth: int
    failed: int

    @property
    def counts(self) -> dict[str, int]:
        """``truth`` images; of them ``evaluated`` have a prediction, ``failed`` an error and ``missing`` neither.

        ``unknown`` are predictions for images that the truth does not know; they are left out.
        """
        known = int((self.place >= 0).sum())
        return {
            "truth": self.truth,
            "evaluated": known,
            "failed": self.failed,
            "missing": self.truth - known - self.failed,
            "unknown": len(self.place) - known,
        }


def pair_images(truth: Sequence[str], endings: bool, rows: Sequence[str], failed: Sequence[str]) -> Images:
    """Pair images by path, or else by a base name that no other image has on its side.

    ``endings`` false: the names of the truth come without ``.jpg`` and the like. Raises WrongUse where none fits.
    """
    given = [*rows, *failed] if endings else [posixpath.splitext(path)[0] for path in (*rows, *failed)]
    known: dict[str, int] = {}
    for number, name in enumerate(truth):
        known.setdefault(name, number)
    alone = _unique(truth)
    once = _unique(given)
    place = np.full(len(given), -1)
    taken: set[int] = set()
    for number, path in enumerate(given):
        at = known.get(path, -1)
        if at >= 0 and at not in taken:
            place[number] = at
            taken.add(at)
    for number, path in enumerate(given):
        base = posixpath.basename(path)
        at = alone.get(base, -1)
        if place[number] < 0 <= at and at not in taken and once[base] >= 0:
            place[number] = at
    if given and len(truth) and (place < 0).all():
        raise WrongUse(
            f"No image of the predictions is in the truth: it knows {_some(truth)}, "
            f"the predictions are of {_some(given)}: name the truth of these images."
        )
    return Images(place=place[: len(rows)], truth=len(truth), failed=int((place[len(rows) :] >= 0).sum()))


def _unique(paths: Sequence[str]) -> dict[str, int]:
    """Return where each base name is, -1 where several have it."""
    names = [posixpath.basename(path) for path in paths]
    counts = Counter(names)
    return {name: number if counts[name] == 1 else -1 for number, name in enumerate(names)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


@dataclass(frozen=True, kw_only=True)
class Classes:
    """How the classes of an evaluation fit together.

    ``place`` says for an id of the predictions where its class is in the truth; ``unknown`` are classes of the
    predictions that the truth does not have, ``unpredicted`` such of the truth that the model does not know.
    """

    place: dict[int, int]
    unknown: list[str]
    unpredicted: list[str]


def pair_classes(truth: list[Category], named: bool, predicted: list[Category]) -> Classes:
    """Pair classes by name, or by id where one side has no names; raises WrongUse where none fits."""
    if named and predicted:
        names = {category.name: at for at, category in enumerate(truth)}
        spelt = {_plain(category.name): at for at, category in enumerate(truth)}
        found = [(c.id, names.get(c.name, spelt.get(_plain(c.name)))) for c in predicted]
        place = {id_: at for id_, at in found if at is not None}
    else:
        ids = {category.id: at for at, category in enumerate(truth)}
        place = {c.id: ids[c.id] for c in predicted if c.id in ids} if predicted else ids
    if truth and predicted and not place:
        raise WrongUse(
            f"No class of the predictions is in the truth: it has {_some([_title(c, named) for c in truth])}, "
            f"the predictions have {_some([_title(c) for c in predicted])}: give one class the same name in both."
        )
    met = set(place.values())
    return Classes(
        place=place,
        unknown=[_title(c) for c in predicted if c.id not in place],
        unpredicted=[_title(c, named) for at, c in enumerate(truth) if at not in met],
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _title(category: Category, named: bool = True) -> str:
    return category.name if named and category.name else str(category.id)


def named(names: Sequence[str], most: int = 6) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
