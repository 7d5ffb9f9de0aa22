"""Which detections overlap which truths of their group, and how much: COCO's IoU of boxes and of masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.evaluation.metrics.objects import Detections, Floats, Ints, Truths

AT_ONCE = 1 << 20  # pairs of boxes


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Detections and truths that overlap: positions ``detection`` (m,) and ``truth`` (m,), and their ``iou`` (m,).

    They are in the order of the detections, and those of one detection from the smallest IoU to the largest.
    """

    detection: Ints
    truth: Ints
    iou: Floats


def overlapping(truths: Truths, detections: Detections, groups: tuple[Ints, Ints], least: float) -> Pairs:
    """Return the pairs of one group with an IoU of at least ``least``.

    ``groups`` are numbers for truths (g,) and for detections (d,), the detections in ascending order of theirs. A
    crowd's IoU is the share of the detection that lies in it. Where there are masks, theirs is the IoU.
    """
    order = np.argsort(groups[0], kind="stable")
    first = np.searchsorted(groups[0][order], groups[1], "left")
    count = np.searchsorted(groups[0][order], groups[1], "right") - first
    measure = _boxes if detections.masks is None else _masks
    found = []
    for rows in _blocks(count):
        detection = np.repeat(rows, count[rows])
        nth = np.arange(len(detection)) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
        truth = order[first[detection] + nth]
        iou = measure(truths, detections, detection, truth)
        enough = np.flatnonzero(iou >= least)
        found.append((detection[enough], truth[enough], iou[enough]))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.zeros(0)] * 3
    detection, truth, iou = columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2]
    ascending = np.lexsort((iou, detection))  # stable: among equal IoUs the last truth stays last
    return Pairs(detection=detection[ascending], truth=truth[ascending], iou=iou[ascending])


def _blocks(count: Ints) -> Iterator[Ints]:
    """Yield rows with something to be compared with, in blocks of about AT_ONCE pairs."""
    rows = np.flatnonzero(count)
    ends = np.cumsum(count[rows])
    start = 0
    while start < len(rows):
        done = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, done + AT_ONCE, "right")), start + 1)
        yield rows[start:end]
        start = end


def _boxes(truths: Truths, detections: Detections, detection: Ints, truth: Ints) -> Floats:
    """Return the IoU of pairs of boxes, in the order of operations of COCO's API."""
    x, y, w, h = detections.boxes[detection].T
    tx, ty, tw, th = truths.boxes[truth].T
    across = np.minimum(x + w, tx + tw) - np.maximum(x, tx)
    down = np.minimum(y + h, ty + th) - np.maximum(y, ty)
    shared = np.where((across > 0) & (down > 0), across * down, 0.0)
    whole = np.where(truths.crowd[truth], w * h, w * h + tw * th - shared)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0))


def _masks(truths: Truths, detections: Detections, detection: Ints, truth: Ints) -> Floats:
    """Return the IoU of pairs of masks; those whose boxes are apart are not compared."""
    assert truths.masks is not None
    assert detections.masks is not None
    iou = np.zeros(len(detection))
    starts = np.flatnonzero(np.diff(detection, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(detection)], strict=True):
        some = truth[start:end]
        crowds = truths.crowd[some].astype(int).tolist()
        iou[start:end] = rles.iou([detections.masks[detection[start]]], [truths.masks[t] for t in some], crowds)[0]
    return iou
