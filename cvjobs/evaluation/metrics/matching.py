"""COCO's greedy assignment of detections to truths, for all groups, IoU thresholds and area ranges at once.

Within a group the best score chooses first: of the truths that are free and overlap enough, one that counts before
one that is ignored, then the largest IoU, then the last. Groups do not depend on each other, so the first detections
of all groups choose together, then the second ones, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvjobs.evaluation.metrics.objects import Bools, Floats, Ints, Truths
from cvjobs.evaluation.metrics.overlaps import Pairs

AT_ONCE = 1 << 16  # pairs


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What those detections got that overlap any truth: positions ``detection`` (n,), ascending.

    ``matched`` and ``ignored`` are (n, thresholds, ranges): whether it has a truth there, and whether that one is
    ignored. ``truth`` (n,) and ``iou`` (n,) are those of the first threshold and range, -1 and 0 where it has none.
    """

    detection: Ints
    matched: Bools
    ignored: Bools
    truth: Ints
    iou: Floats


def match(pairs: Pairs, groups: Ints, truths: Truths, ignored: Bools, thresholds: Floats) -> Matches:
    """Assign detections (d,), given by their pairs and ``groups`` (d,), in ascending order and best score first.

    ``ignored`` (g, ranges) says which truths do not count in which range.
    """
    starts = np.flatnonzero(np.diff(pairs.detection, prepend=-1))
    detection = pairs.detection[starts]
    shape = (len(thresholds), ignored.shape[1])
    found = Matches(
        detection=detection,
        matched=np.zeros((len(detection), *shape), np.bool_),
        ignored=np.zeros((len(detection), *shape), np.bool_),
        truth=np.full(len(detection), -1),
        iou=np.zeros(len(detection)),
    )
    fresh = np.flatnonzero(np.diff(groups[detection], prepend=-1))  # where groups begin, among the detections
    turn = np.arange(len(detection)) - np.repeat(fresh, np.diff(fresh, append=len(detection)))
    sizes = np.diff(starts, append=len(pairs.detection))
    enough = np.minimum(thresholds, 1 - 1e-10)[:, None]
    taken = np.zeros((len(truths), *shape), np.bool_)
    for now in _together(turn, sizes):
        segments = np.cumsum(sizes[now]) - sizes[now]
        rows = np.repeat(starts[now] - segments, sizes[now]) + np.arange(sizes[now].sum())
        truth = pairs.truth[rows]
        may = ~taken[truth] | truths.crowd[truth][:, None, None]
        may &= pairs.iou[rows][:, None, None] >= enough
        # The pairs of a detection are in ascending order of their IoU: the last one is the best.
        place = np.arange(1, len(rows) + 1, dtype=np.int32)[:, None] + len(rows) * ~ignored[truth]
        best = np.maximum.reduceat(np.where(may, place[:, None, :], 0), segments, axis=0) - 1
        row, t, a = np.nonzero(best >= 0)
        at = best[row, t, a] % len(rows)
        chosen = truth[at]
        taken[chosen, t, a] = True
        found.matched[now[row], t, a] = ~truths.unnumbered[chosen]
        found.ignored[now[row], t, a] = ignored[chosen, a]
        plain = (t == 0) & (a == 0)
        found.truth[now[row[plain]]] = chosen[plain]
        found.iou[now[row[plain]]] = pairs.iou[rows[at[plain]]]
    return found


def _together(turn: Ints, sizes: Ints) -> list[Ints]:
    """Return the detections whose turn comes at once, in blocks of about AT_ONCE pairs."""
    order = np.argsort(turn, kind="stable")
    blocks: list[Ints] = []
    for now in np.split(order, np.flatnonzero(np.diff(turn[order])) + 1) if len(order) else []:
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes[now]) // AT_ONCE)) + 1
        blocks += np.split(now, cuts)
    return blocks
