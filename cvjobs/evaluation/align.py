"""Which image of the predictions is which of the truth, and which class is which."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import comparable
from cvjobs.evaluation.metrics.objects import Bools, Ints
from cvjobs.networks.class_names import WORDNET, wordnet
from cvjobs.sources.folder import EXTENSIONS
from cvjobs.sources.left_out import NamedCount
from cvjobs.sources.reasons import counted

SHOWN = 3
FIRST = 10  # names of images without a partner that are kept
WORDS = {
    "predictions": {
        "unknown": "left out, images that the truth does not know",
        "ambiguous": "left out, images whose name fits several images",
        "repeated": "left out, images that are there before by the same name",
    },
    "truth": {
        "failed": "images of the truth whose prediction failed",
        "missing": "images of the truth without a prediction",
        "ambiguous": "images of the truth whose name fits several images",
        "repeated": "images of the truth that are there before by the same name",
    },
}


@dataclass(frozen=True, kw_only=True)
class Images:
    """How the images of an evaluation fit together.

    ``place`` (rows,) is where each row of the predictions is in the truth, -1 where the truth does not know it.
    ``unpaired`` are the images without a partner, by side and reason, those of ``WORDS``.
    """

    place: Ints
    truth: int
    failed: int
    unpaired: Mapping[str, Mapping[str, NamedCount]]

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

    @property
    def notes(self) -> list[str]:
        """Return a sentence on each reason for which images have no partner."""
        sides = self.unpaired.items()
        return [f"{WORDS[side][why]}: {counted(found)}" for side, reasons in sides for why, found in reasons.items()]


def pair_images(truth: Sequence[str], endings: bool, rows: Sequence[str], failed: Sequence[str]) -> Images:
    """Pair images by path, or else by as many of its last parts as only one image on each side has.

    Paths are taken as ``comparable``, and at last without the ending. ``endings`` false: the names of the truth come
    without ``.jpg`` and the like. Raises WrongUse where none fits.
    """
    paths = [*rows, *failed]
    given = paths if endings else [posixpath.splitext(path)[0] for path in paths]
    place, taken = np.full(len(given), -1), np.zeros(len(truth), np.bool_)
    known: dict[str, int] = {}
    for number, name in enumerate(truth):
        known.setdefault(name, number)
    for number, path in enumerate(given):
        at = known.get(path, -1)
        if at >= 0 and not taken[at]:
            place[number], taken[at] = at, True
    ways: tuple[Callable[[str], str], ...] = (comparable, _stem)
    for way in ways:
        if len(truth) and not taken.all() and (place < 0).any():
            _pair(truth, given, way, place, taken)
    if given and len(truth) and (place < 0).all():
        raise WrongUse(
            f"No image of the predictions is in the truth: it knows {_some(truth)}, "
            f"the predictions are of {_some(given)}: name the truth of these images."
        )
    return Images(
        place=place[: len(rows)],
        truth=len(truth),
        failed=int((place[len(rows) :] >= 0).sum()),
        unpaired=_unpaired(truth, paths, place, len(rows)),
    )


def by_place(place: Ints, truth: Sequence[str], given: Sequence[str]) -> Images:
    """Return the images of predictions of which it is known where each is in the truth, -1 for none."""
    return Images(place=place, truth=len(truth), failed=0, unpaired=_unpaired(truth, given, place, len(place)))


def _pair(truth: Sequence[str], given: Sequence[str], way: Callable[[str], str], place: Ints, taken: Bools) -> None:
    """Pair what is left: by the whole name, then by its last parts, as many as both have, at last by one."""
    free = (
        [truth[at] for at in np.flatnonzero(~taken).tolist()],
        [given[at] for at in np.flatnonzero(place < 0).tolist()],
    )
    bases = [{way(name).rpartition("/")[2] for name in names} for names in free]
    if bases[0].isdisjoint(bases[1]):
        return
    sides = [way(name).split("/") for name in truth], [way(name).split("/") for name in given]
    for length in (0, *range(min(max(map(len, side)) for side in sides), 0, -1)):
        ours, theirs = (_alone("/".join(parts[-length:]) if len(parts) >= length else "" for parts in s) for s in sides)
        for name, number in theirs.items():
            at = ours.get(name, -1)
            if number >= 0 <= at and place[number] < 0 and not taken[at]:
                place[number], taken[at] = at, True


def _alone(names: Iterable[str]) -> dict[str, int]:
    """Return where each name is, -1 where it is several times; the empty one is none."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        found[name] = -1 if name in found else number
    found.pop("", None)
    return found


def _stem(name: str) -> str:
    """Return a name as ``comparable``, without the ending of an image."""
    plain = comparable(name)
    stem, ending = posixpath.splitext(plain)
    return stem if ending[1:].lower() in EXTENSIONS else plain


def _unpaired(truth: Sequence[str], paths: Sequence[str], place: Ints, rows: int) -> dict[str, dict[str, NamedCount]]:
    """Return the images without a partner; what comes after ``rows`` rows of the predictions failed."""
    failed = sorted(place[rows:][place[rows:] >= 0].tolist())
    free = np.ones(len(truth), np.bool_)
    free[place[place >= 0]] = False
    ours = [truth[at] for at in np.flatnonzero(free).tolist()]
    theirs = [paths[at] for at in np.flatnonzero(place[:rows] < 0).tolist()]
    found = {
        "predictions": _reasons(theirs, paths, truth, "unknown"),
        "truth": {"failed": [truth[at] for at in failed], **_reasons(ours, truth, paths, "missing")},
    }
    sides = {
        side: {why: NamedCount(count=len(names), first=names[:FIRST]) for why, names in reasons.items() if names}
        for side, reasons in found.items()
    }
    return {side: reasons for side, reasons in sides.items() if reasons}


def _reasons(left: Sequence[str], own: Sequence[str], others: Sequence[str], plain: str) -> dict[str, list[str]]:
    """Return the names that are left of one side by reason; ``plain`` is that of what the other side has not."""
    reasons: dict[str, list[str]] = {plain: [], "ambiguous": [], "repeated": []}
    if not left:
        return reasons
    bases = {_stem(name).rpartition("/")[2] for name in left}
    near = {stem for stem in map(_stem, others) if stem.rpartition("/")[2] in bases}
    ends = {end for stem in near for end in _ends(stem)}
    counts = Counter(map(comparable, own))
    for name in left:
        if counts[comparable(name)] > 1:
            reasons["repeated"].append(name)
        elif _stem(name) in ends or not near.isdisjoint(_ends(_stem(name))):
            reasons["ambiguous"].append(name)
        else:
            reasons[plain].append(name)
    return reasons


def _ends(name: str) -> list[str]:
    """Return the ends of a path that begin with a folder or with the base name."""
    parts = name.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


@dataclass(frozen=True, kw_only=True)
class Classes:
    """How the classes of an evaluation fit together.

    ``place`` says for an id of the predictions where its class is in the truth; ``unknown`` are classes of the
    predictions that the truth does not have, ``unpredicted`` such of the truth that the predictions do not have.
    """

    place: dict[int, int]
    unknown: list[str]
    unpredicted: list[str]

    def unpredicted_note(self, what: str, whole: bool) -> list[str]:
        """Return a sentence on those of the truth alone; the model may know more where its list is not ``whole``."""
        why = "the model does not know" if whole else "no prediction has"
        return [f"{what} that {why}: {named(self.unpredicted)}"] if self.unpredicted else []


def pair_classes(truth: list[Category], named: bool, predicted: list[Category]) -> Classes:
    """Pair classes by name, or by id where one side has no names; raises WrongUse where none fits."""
    if named and predicted:
        place = _by_name([category.name for category in truth], predicted)
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


def _by_name(truth: Sequence[str], predicted: Sequence[Category]) -> dict[int, int]:
    """Return where the classes of the predictions are in the truth: by name, or WordNet's ids by what they are of."""
    ids = [bool(names) and all(map(WORDNET.fullmatch, names)) for names in (truth, [c.name for c in predicted])]
    other = {}
    if ids[0] != ids[1]:
        other = wordnet([c.name for c in predicted] if ids[0] else truth)
    names = {name: at for at, name in enumerate(truth)}
    spelt = {class_labels.spelling(name): at for at, name in enumerate(truth)}
    numbers = {other[name]: at for at, name in enumerate(truth) if name in other} if ids[1] else names
    place = {}
    for category in predicted:
        name = category.name
        ways = (names.get(name), spelt.get(class_labels.spelling(name)), numbers.get(other.get(name, name)))
        if (at := next((at for at in ways if at is not None), None)) is not None:
            place[category.id] = at
    return place


def _title(category: Category, named: bool = True) -> str:
    return category.name if named and category.name else str(category.id)


def named(names: Sequence[str], most: int = 6) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
