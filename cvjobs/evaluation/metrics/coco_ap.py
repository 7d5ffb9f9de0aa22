"""COCO's average precision and recall of detections, boxes or masks, and PASCAL VOC's AP at IoU 0.5.

The protocol, with its treatment of ties, is that of COCO's API (https://github.com/cocodataset/cocoapi): the numbers
are the same. VOC's is the definition of 2010 and later: the whole area under the precision envelope.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cvjobs.evaluation.metrics.matching import Matches, match
from cvjobs.evaluation.metrics.objects import Bools, Detections, Floats, Ints, Truths
from cvjobs.evaluation.metrics.overlaps import Pairs, overlapping

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MOST = (1, 10, 100)  # detections of an image and category
UNDEFINED = -1.0  # COCO's word for the precision of what is not there


@dataclass(frozen=True, kw_only=True)
class CountedDetections:
    """The detections that count, by category and best score first, each with what became of it at IoU 0.5.

    ``row`` (n,) are positions among the given detections; ``truth`` (n,) is -1 and ``iou`` (n,) 0 where one has none;
    ``right`` (n,) and ``wrong`` (n,) leave out those that may be there or not. ``ends`` (K + 1,) bound the categories.
    """

    row: Ints
    score: Floats
    truth: Ints
    iou: Floats
    right: Bools
    wrong: Bools
    ends: Ints


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """The numbers of an evaluation with K categories; ``UNDEFINED`` where a category has no truth that counts.

    ``precision`` (10, 101, K, 4) is at THRESHOLDS, RECALLS and RANGES, of the best 100 detections of an image and
    category; ``recall`` (10, K, 4, 3) at THRESHOLDS, RANGES and MOST; ``voc`` (K,) is the AP of VOC; ``counted`` (K,)
    are truths that must be found.
    """

    precision: Floats
    recall: Floats
    voc: Floats
    counted: Ints
    found: CountedDetections

    def average(self, metric: str, category: int | slice = slice(None)) -> float:
        """Return AP, AP50, AP75, AP_small ..., AR_1, AR_10, AR_100, AR_small ... or VOC_AP50 of some categories."""
        kind, _, rest = metric.partition("_")
        area = list(RANGES).index(rest) if rest in RANGES else 0
        if metric == "VOC_AP50":
            return _mean(self.voc[category])
        if kind == "AR":
            most = MOST.index(int(rest)) if rest.isdigit() else -1
            return _mean(self.recall[:, category, area, most])
        threshold = slice(None) if kind == "AP" else round((int(kind[2:]) - 50) / 5)
        return _mean(self.precision[threshold, :, category, area])


METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


def evaluate(truths: Truths, detections: Detections, categories: int) -> DetectionScores:
    """Return the numbers; ties of scores are decided by the number of the image, then by the given order."""
    order, rank = _ranked(detections, detections.image * categories + detections.category)
    order, rank = order[rank < MOST[-1]], rank[rank < MOST[-1]]
    kept = detections.take(order)
    groups = kept.image * categories + kept.category
    pairs = overlapping(truths, kept, (truths.image * categories + truths.category, groups), float(THRESHOLDS[0]))
    ignored = truths.ignored[:, None] | ~_within(truths.area)
    matches = match(pairs, groups, truths, ignored, THRESHOLDS)
    owner = np.full(len(kept), -1)
    owner[matches.detection] = np.arange(len(matches.detection))
    best = _best(pairs, len(kept))
    counted = np.stack([np.bincount(truths.category[~out], minlength=categories) for out in ignored.T], axis=1)
    precision = np.full((len(THRESHOLDS), len(RECALLS), categories, len(RANGES)), UNDEFINED)
    recall = np.full((len(THRESHOLDS), categories, len(RANGES), len(MOST)), UNDEFINED)
    voc = np.full(categories, UNDEFINED)
    outside = ~_within(kept.area)
    for category, rows in _by_category(kept, categories):
        curve = _Curve(matches, owner[rows], outside[rows], rank[rows])
        for area in np.flatnonzero(counted[category]).tolist():
            precision[:, :, category, area] = curve.precision(area, counted[category, area])
            for m, most in enumerate(MOST):
                recall[:, category, area, m] = curve.recall(area, counted[category, area], most)
        if counted[category, 0]:
            voc[category] = _voc(best[rows], truths.ignored, counted[category, 0])
    found = _found(matches, owner, kept, order, categories)
    return DetectionScores(precision=precision, recall=recall, voc=voc, counted=counted[:, 0], found=found)


def _ranked(detections: Detections, groups: Ints) -> tuple[Ints, Ints]:
    """Return the rows by group and best score first, and the rank of each in its group."""
    order = np.lexsort((-detections.score, groups))
    begin = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return order, np.arange(len(order)) - np.repeat(begin, np.diff(begin, append=len(order)))


def _within(area: Floats) -> Bools:
    """Return (n, ranges): which areas are in which range; a bound belongs to both ranges."""
    low, high = np.array(list(RANGES.values())).T
    return np.asarray((area[:, None] >= low) & (area[:, None] <= high))


def _by_category(detections: Detections, categories: int) -> Iterator[tuple[int, Ints]]:
    """Yield each category with the rows of its detections, best score first."""
    order = np.lexsort((-detections.score, detections.category))
    ends = np.searchsorted(detections.category[order], np.arange(categories + 1))
    for category in range(categories):
        yield category, order[ends[category] : ends[category + 1]]


def _best(pairs: Pairs, count: int) -> Ints:
    """Return for each of ``count`` detections the truth that it overlaps most, -1 where it overlaps none enough."""
    last = np.flatnonzero(np.diff(pairs.detection, append=-1))
    best = np.full(count, -1)
    best[pairs.detection[last]] = pairs.truth[last]
    return best


class _Curve:
    """The detections of one category, best score first."""

    def __init__(self, matches: Matches, owner: Ints, outside: Bools, rank: Ints) -> None:
        self._matches, self._outside, self._rank = matches, outside, rank
        self._rows = np.flatnonzero(owner >= 0)
        self._owner = owner[self._rows]

    def precision(self, area: int, counted: int) -> Floats:
        """Return the precision (thresholds, recalls): the best at this recall or a higher one."""
        right, wrong = self._outcomes(area)
        rights, wrongs = np.cumsum(right, axis=0, dtype=np.float64), np.cumsum(wrong, axis=0, dtype=np.float64)
        found = np.zeros((len(THRESHOLDS), len(RECALLS)))
        if not len(rights):
            return found
        precision = rights / (rights + wrongs + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recalls = rights / counted
        for t in range(len(THRESHOLDS)):
            at = np.searchsorted(recalls[:, t], RECALLS, "left")
            reached = at < len(recalls)
            found[t, reached] = precision[at[reached], t]
        return found

    def recall(self, area: int, counted: int, most: int) -> Floats:
        """Return the recall (thresholds,) of the best ``most`` detections of each image."""
        few = self._rank[self._rows] < most
        right = self._matches.matched[self._owner, :, area] & ~self._matches.ignored[self._owner, :, area]
        return np.asarray(right[few].sum(axis=0) / counted)

    def _outcomes(self, area: int) -> tuple[Bools, Bools]:
        """Return which detections (n, thresholds) are right and which are wrong; some are neither."""
        right = np.zeros((len(self._rank), len(THRESHOLDS)), np.bool_)
        wrong = np.repeat(~self._outside[:, area, None], len(THRESHOLDS), axis=1)
        matched = self._matches.matched[self._owner, :, area]
        ignored = self._matches.ignored[self._owner, :, area]
        right[self._rows] = matched & ~ignored
        wrong[self._rows] &= ~matched
        wrong[self._rows] &= ~ignored
        return right, wrong


def _voc(best: Ints, ignored: Bools, counted: int) -> float:
    """Return VOC's AP of one category from the truths that its detections, best score first, overlap most."""
    claims = np.flatnonzero(best >= 0)
    claims = claims[~ignored[best[claims]]]
    first = claims[np.unique(best[claims], return_index=True)[1]]
    right = np.zeros(len(best), np.bool_)
    right[first] = True
    wrong = ~right
    wrong[np.flatnonzero(best >= 0)[ignored[best[best >= 0]]]] = False
    rights, wrongs = np.cumsum(right), np.cumsum(wrong)
    precision = rights / np.maximum(rights + wrongs, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / counted)


def _found(matches: Matches, owner: Ints, kept: Detections, order: Ints, categories: int) -> CountedDetections:
    rows = np.lexsort((-kept.score, kept.category))
    owned = owner[rows]
    known = owned >= 0
    matched, ignored = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    truth, iou = np.full(len(rows), -1), np.zeros(len(rows))
    matched[known], ignored[known] = matches.matched[owned[known], 0, 0], matches.ignored[owned[known], 0, 0]
    truth[known], iou[known] = matches.truth[owned[known]], matches.iou[owned[known]]
    return CountedDetections(
        row=order[rows],
        score=kept.score[rows],
        truth=truth,
        iou=iou,
        right=matched & ~ignored,
        wrong=~matched & ~ignored,
        ends=np.searchsorted(kept.category[rows], np.arange(categories + 1)),
    )


def _mean(values: Floats) -> float:
    defined = values[values > UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED
