"""What was found in the tiles of a picture as what is in the picture: an object on a seam counts once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvjobs.networks.detection.tiling import Tile

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

NEAR = 0.01  # of a tile's side: boxes that end so close to its edge may be cut off by it


@dataclass(frozen=True)
class TileDetections:
    """Detections of all tiles: boxes (N, 4) in pixels of the picture, scores, classes and the number of the tile."""

    boxes: Floats
    scores: Floats
    classes: Rows
    tile: Rows


def joined(tiles: list[Tile], seen: TileDetections, iou: float) -> tuple[Rows, Floats]:
    """Return which detections remain, best first, and their boxes.

    Three rules, none of which does anything where tiles do not overlap:

    1. A box that ends at an inner edge of its tile and lies clear of the inner edges of another one is dropped: that
       other tile saw all of the object, so what it found there counts.
    2. Two boxes of one class from two tiles are the same object where they agree on what both tiles saw: the parts of
       the boxes inside both tiles have an IoU above ``iou``.
    3. The same object's box is that of its best detection which no inner edge cuts; where all are cut, since the
       object is larger than the overlap, the smallest box around them. Its score is the best of them.
    """
    places = np.array([(t.left, t.top, t.left + t.width, t.top + t.height) for t in tiles], np.float32)
    inner = np.concatenate([places[:, :2] > 0, places[:, 2:] < places[:, 2:].max(0)], 1)
    cut = np.any(_ends_at(seen.boxes, places[seen.tile], inner[seen.tile]), axis=1)
    remaining = np.flatnonzero(~_seen_whole_elsewhere(seen, cut, places, inner))
    order = remaining[np.argsort(-seen.scores[remaining], kind="stable")]
    partners = _partners(order, seen, places, iou)
    taken = np.zeros(len(seen.boxes), bool)
    best, boxes = [], seen.boxes.copy()
    for seed in order.tolist():
        if taken[seed]:
            continue
        taken[seed] = True
        same = [seed]
        for member in same:  # which grows: a long object goes through many tiles
            if member == seed or cut[member]:
                new = [other for other in partners.get(member, ()) if not taken[other]]
                taken[new] = True
                same += new
        best.append(seed)
        boxes[seed] = _agreed(same, seen, cut)
    rows = np.array(best, np.int64)
    return rows, boxes[rows]


def _agreed(same: list[int], seen: TileDetections, cut: Bools) -> Floats:
    """Return the box of an object by all its detections."""
    whole = [row for row in same if not cut[row]]
    if whole:
        best: Floats = seen.boxes[max(whole, key=lambda row: float(seen.scores[row]))]
        return best
    around = seen.boxes[same]
    return np.concatenate([around[:, :2].min(0), around[:, 2:].max(0)])


def _ends_at(boxes: Floats, places: Floats, inner: Bools) -> Bools:
    """Return (N, 4) which inner edges (left, top, right, bottom) of its tile each box ends at, or close to."""
    near = NEAR * (places[:, 2:] - places[:, :2]).min(1, keepdims=True)
    gaps = np.concatenate([boxes[:, :2] - places[:, :2], places[:, 2:] - boxes[:, 2:]], 1)
    ends: Bools = (gaps <= near) & inner
    return ends


def _seen_whole_elsewhere(seen: TileDetections, cut: Bools, places: Floats, inner: Bools) -> Bools:
    """Return which cut boxes lie in another tile, clear of its inner edges."""
    found = np.zeros(len(cut), bool)
    rows = np.flatnonzero(cut)
    for number, place in enumerate(places):
        boxes = seen.boxes[rows]
        inside = (boxes[:, :2] >= place[:2]).all(1) & (boxes[:, 2:] <= place[2:]).all(1)
        inside &= seen.tile[rows] != number
        found[rows] |= inside & ~_ends_at(boxes, place[None], inner[number][None]).any(axis=1)
    return found


def _partners(order: Rows, seen: TileDetections, places: Floats, iou: float) -> dict[int, list[int]]:
    """Return for each detection those of other tiles that are the same object."""
    rows = {int(number): order[seen.tile[order] == number] for number in np.unique(seen.tile[order])}
    numbers = np.array(list(rows), np.int64)
    found: dict[int, list[int]] = {}
    for one, ours in rows.items():
        low = np.maximum(places[numbers, :2], places[one, :2])
        high = np.minimum(places[numbers, 2:], places[one, 2:])
        for at in np.flatnonzero((low < high).all(1) & (numbers > one)):
            theirs = rows[int(numbers[at])]
            shared = np.concatenate([low[at], high[at]])
            same = _ious(_inside(seen.boxes[ours], shared), _inside(seen.boxes[theirs], shared)) > iou
            same &= seen.classes[ours][:, None] == seen.classes[theirs][None]
            for i, j in np.argwhere(same):
                found.setdefault(int(ours[i]), []).append(int(theirs[j]))
                found.setdefault(int(theirs[j]), []).append(int(ours[i]))
    return found


def _inside(boxes: Floats, place: Floats) -> Floats:
    """Return the parts of boxes inside a rectangle, without any area where there is none."""
    low = np.maximum(boxes[:, :2], place[:2])
    return np.concatenate([low, np.maximum(np.minimum(boxes[:, 2:], place[2:]), low)], 1)


def _ious(ours: Floats, theirs: Floats) -> Floats:
    """Return the (N, M) IoUs of two sets of boxes; 0 where both have no area."""
    sides = np.minimum(ours[:, None, 2:], theirs[None, :, 2:]) - np.maximum(ours[:, None, :2], theirs[None, :, :2])
    common = sides.clip(0).prod(-1)
    one, other = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (ours, theirs))
    union = one[:, None] + other[None] - common
    result: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result
