"""From which score on two images count as near-duplicates, where nobody says: measured on the collection itself.

How near unrelated images are depends on the model and on the collection: photos of anything score less with each other
than blood cells. The mean number of neighbours within a distance grows like a power of it (the correlation dimension
of Grassberger and Procaccia, 1983). That line, fitted where an image has some neighbours, is drawn down to where it has
less than one. Copies bend it at its lower end, so it is fitted in several places, and the steepest counts. A collection
may hold blood cells and photos, so images whose neighbours are about as far away have a line of their own.

The lines add up to the pairs of unrelated images within a distance. The longest counts within which these are less than
half a pair, or few among the pairs that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from cvjobs.common.formatting import counted
from cvjobs.indexing.search.distinct_images import BLOCK, DistinctImages

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

Distances = npt.NDArray[np.float64]

FIXED = 0.98  # where nothing can be measured, and in folders that were begun before it was
LOWEST = 0.8  # that is chosen
LEAST = 16  # different images
BY_CHANCE = 0.5  # pairs
SHARE_BY_CHANCE = 0.03  # of all pairs
PLACES = ((1, 8), (2, 16), (4, 32))  # neighbours of an image on average, between which a line is fitted
_STRATA = 8
_STRATUM = 64  # images, at least
_RANK = 8  # of the neighbour by whose distance images are told apart
_SAMPLE = 2000  # images
_NEAR = 65  # neighbours of each, itself among them
_SHORTEST = 1e-6  # distance that single precision can tell
_TRIED = 2000  # distances
_RUNGS = (2.0, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25)  # times the distance of the score
_FEW_RUNGS = (0.9, 0.95, 0.98, 0.99, 0.999)  # below a score of 1

ScoreFrom = Literal["option", "measured", "too few images", "earlier folder"]


@dataclass(frozen=True, kw_only=True)
class ScoreChoice:
    """The score from which on images count as near-duplicates, where it comes from, and why in a sentence."""

    min_score: float
    score_from: ScoreFrom
    reason: str


def given(min_score: float) -> ScoreChoice:
    """Return what a person chose."""
    return ScoreChoice(min_score=min_score, score_from="option", reason=f"{min_score:g}, as --min-score says")


def earlier() -> ScoreChoice:
    """Return the score of folders that were begun before it was measured."""
    reason = f"{FIXED:g}, with which the folder was begun: a new folder measures a score, and --min-score chooses one"
    return ScoreChoice(min_score=FIXED, score_from="earlier folder", reason=reason)


def measured(index: Index, images: DistinctImages) -> ScoreChoice:
    """Return the score that hardly a pair of unrelated images reaches, as far as a sample tells."""
    count = int(images.asked.sum())
    distance = by_chance(_neighbours(index, images), count) if count >= LEAST else None
    if distance is None:
        reason = f"{FIXED:g}: too few images that differ ({count:,}) to measure a score on; --min-score chooses one"
        return ScoreChoice(min_score=FIXED, score_from="too few images", reason=reason)
    score = round(1 - _rounded(min(max(distance, _SHORTEST), 1 - LOWEST)), 8)
    by = f"measured on the collection ({counted(count, 'images')} that differ)"
    few = f"less than one pair, or {SHARE_BY_CHANCE:.0%} of the pairs, should be of unrelated images"
    reason = f"{score:.7g}, {by}: {few}"
    if score <= LOWEST:
        reason = f"{LOWEST:g}, the lowest that is chosen, {by}: unrelated images score less"
    return ScoreChoice(min_score=score, score_from="measured", reason=reason)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """Of ``share`` of the images: within ``distance`` each has ``neighbours``, which grow by this ``power`` of it."""

    share: float
    neighbours: int
    distance: float
    power: float

    def within(self, distances: Distances) -> Distances:
        """Return the neighbours of an image of the whole collection, on average, that are of this line."""
        return self.share * self.neighbours * (distances / self.distance) ** self.power


def by_chance(distances: list[Distances], count: int) -> float | None:
    """Return the distance within which few of the pairs of ``count`` images are there by chance.

    That is less than ``BY_CHANCE`` pairs, or ``SHARE_BY_CHANCE`` of the pairs within it. ``distances`` are those of
    some images to their neighbours, as far as they were looked for, nearest first. None where they do not tell: of
    images that are all alike.
    """
    places = [(fewer, more) for fewer, more in PLACES if more * 2 <= count]
    distances = sorted(distances, key=lambda own: own[_RANK - 1] if len(own) >= _RANK else math.inf)
    strata = min(max(len(distances) // _STRATUM, 1), _STRATA)
    cuts = [len(distances) * cut // strata for cut in range(strata + 1)]
    parts = [distances[start:end] for start, end in pairwise(cuts)]
    lines = [line for part in parts if (line := _line(part, len(distances), places))]
    if not lines:
        return None
    tried = np.geomspace(_SHORTEST, 1, _TRIED)
    every = np.sort(np.concatenate(distances))
    chance = sum(line.within(tried) for line in lines) * count / 2
    found = np.searchsorted(every, tried, side="right") / len(distances) * count / 2
    too_many = chance > np.maximum(BY_CHANCE, SHARE_BY_CHANCE * found)
    return float(tried[max(int(too_many.argmax()) - 1, 0)] if too_many.any() else tried[-1])


def _line(distances: list[Distances], sampled: int, places: list[tuple[int, int]]) -> _Line | None:
    """Return the line by which a few of all ``sampled`` images have neighbours: of several, the steepest."""
    every = np.sort(np.concatenate([np.zeros(0), *distances]))
    found = []
    for fewer, more in places:
        if more * len(distances) > len(every):
            continue
        near, far = float(every[fewer * len(distances) - 1]), float(every[more * len(distances) - 1])
        if _SHORTEST < near < far:
            power = math.log(more / fewer) / math.log(far / near)
            share = len(distances) / sampled
            found.append(_Line(share=share, neighbours=fewer, distance=near, power=power))
    return max(found, key=lambda line: line.power, default=None)


def rungs(min_score: float) -> list[float]:
    """Return scores around one, ascending, from which a person can choose."""
    distance = 1 - min_score
    if distance < _SHORTEST:
        return [*_FEW_RUNGS, min_score]
    around = (round(1 - _rounded(distance * rung), 8) for rung in _RUNGS if rung != 1)
    return sorted({min_score, *(score for score in around if -1 <= score < 1)})


def _rounded(distance: float) -> float:
    """Return a distance with two digits, rounded down: what is chosen is on the safe side."""
    step = 10.0 ** (math.floor(math.log10(distance)) - 1)
    return math.floor(distance / step + 1e-9) * step


def _neighbours(index: Index, images: DistinctImages) -> list[Distances]:
    """Return the distances of a sample of images to the different ones among their nearest."""
    chosen = np.flatnonzero(images.asked)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(_SAMPLE, len(chosen))).round().astype(np.int64))]
    return [found for _, found in sorted(_each(index, images, np.isin(np.arange(len(images)), chosen)))]


def _each(index: Index, images: DistinctImages, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Distances]]:
    """Yield the number of each wanted image, and distances to its neighbours, one of each group of equal ones."""
    for position, vectors in index.blocks(BLOCK):
        mine = images.number[position]
        some = wanted[mine]
        if not some.any():
            continue
        scores, rows = index.search(vectors[some], _NEAR)
        for number, own, near in zip(mine[some].tolist(), scores, rows, strict=True):
            firsts, place = np.unique(images.equal.firsts(images.number[near[near >= 0]]), return_index=True)
            others = place[firsts != number]
            yield number, np.maximum(1 - own[near >= 0][others].astype(np.float64), _SHORTEST)
