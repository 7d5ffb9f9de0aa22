"""Figures of objects: how many in an image and of each class, how large there and at a model's input, which shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvjobs.evaluation.metrics.objects import Floats, Ints
from cvjobs.inspection.anchor_fit import AnchorFit
from cvjobs.inspection.found_objects import FoundObjects

IN_AN_IMAGE = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129)
SHARES = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1)  # of the side of an image
PIXELS = (0, 4, 8, 16, 32, 64, 96, 128, 256, 512)  # at the model's input
RATIOS = (0, 1 / 8, 1 / 5, 1 / 3, 1 / 2, 4 / 5, 5 / 4, 2, 3, 5, 8)
SMALL = 8  # pixels: what most detectors see as one cell of their finest map
FEW = 10  # objects of a class


@dataclass(frozen=True, kw_only=True)
class ValueBins:
    """How many values lie between edges, of which the last bin has none above it."""

    edges: Sequence[float]
    counts: list[int]

    @classmethod
    def of(cls, values: Floats | Ints, edges: Sequence[float]) -> ValueBins:
        """Count values."""
        places = np.searchsorted(np.asarray(edges, np.float64), values, side="right") - 1
        return cls(edges=edges, counts=np.bincount(places.clip(0), minlength=len(edges)).tolist())

    def record(self) -> dict[str, Any]:
        """Return the bins as JSON types: ``from`` and ``count`` of each."""
        return {"from": [round(edge, 4) for edge in self.edges], "count": self.counts}


@dataclass(frozen=True, kw_only=True)
class ObjectStatistics:
    """Figures of objects; ``side`` is the square root of an area, at the model's input in pixels.

    ``classes`` has a record of each: its name, objects and images by split, and the median of ``share``, the side as a
    share of the image's. ``small`` is the share of objects with a side below ``SMALL`` pixels at the input.
    ``anchors`` is what a detector's anchors reach there, None for few boxes.
    """

    objects: int
    images: int
    without: int
    in_an_image: ValueBins
    shares: ValueBins
    pixels: ValueBins
    ratios: ValueBins
    small: float
    input_side: int
    classes: list[dict[str, Any]]
    anchors: AnchorFit | None

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON types, without the classes."""
        return {
            "objects": self.objects,
            "images_without_objects": self.without,
            "input_side": self.input_side,
            f"below_{SMALL}_pixels": round(self.small, 4),
            "objects_in_an_image": self.in_an_image.record(),
            "side_as_share_of_the_image": self.shares.record(),
            "side_in_pixels_at_the_input": self.pixels.record(),
            "width_by_height": self.ratios.record(),
            **({"anchors": self.anchors.record()} if self.anchors else {}),
        }


def measure(found: FoundObjects, splits: Sequence[str], input_side: int) -> ObjectStatistics:
    """Return the figures of objects; ``splits`` are those of all images, the input's shorter side is in pixels."""
    sized = np.flatnonzero((found.boxes[:, 2:] > 0).all(axis=1) & (found.sizes > 0).all(axis=1))
    width, height = found.boxes[sized, 2], found.boxes[sized, 3]
    sides, image = np.sqrt(width * height), found.sizes[sized].astype(np.float64)
    share = (sides / np.sqrt(image.prod(axis=1))).clip(0, 1)
    scale = input_side / image.min(axis=1)
    at_input = sides * scale
    each = np.bincount(found.image, minlength=len(splits))[found.known] if len(splits) else np.zeros(0, np.int64)
    shares = np.full(len(found), np.nan)
    shares[sized] = share
    return ObjectStatistics(
        objects=len(found),
        images=len(found.known),
        without=int((each == 0).sum()),
        in_an_image=ValueBins.of(each, IN_AN_IMAGE),
        shares=ValueBins.of(share, SHARES[:-1]),
        pixels=ValueBins.of(at_input, PIXELS),
        ratios=ValueBins.of(width / height, RATIOS),
        small=float((at_input < SMALL).mean()) if len(sized) else 0.0,
        input_side=input_side,
        classes=_classes(found, splits, shares),
        anchors=AnchorFit.of(found.boxes[sized, 2:] * scale[:, None]),
    )


def _classes(found: FoundObjects, splits: Sequence[str], shares: Floats) -> list[dict[str, Any]]:
    names = sorted({splits[at] for at in found.known.tolist()}, key=split_order)
    own = np.array([names.index(splits[at]) for at in found.image.tolist()], np.int64)
    count = len(found.classes)
    objects = np.bincount(own * count + found.category, minlength=count * len(names)).reshape(len(names), count)
    pairs = np.unique(np.stack([found.image, found.category], axis=1), axis=0).reshape(-1, 2)
    of = np.array([names.index(splits[at]) for at in pairs[:, 0].tolist()], np.int64)
    images = np.bincount(of * count + pairs[:, 1], minlength=count * len(names)).reshape(len(names), count)
    rows = []
    for number, name in enumerate(found.classes):
        mine = shares[(found.category == number) & ~np.isnan(shares)]
        rows.append(
            {
                "name": name,
                "objects": {split: int(objects[at, number]) for at, split in enumerate(names)},
                "images": {split: int(images[at, number]) for at, split in enumerate(names)},
                "median_share": round(float(np.median(mine)), 4) if len(mine) else None,
            }
        )
    return rows


def split_order(split: str) -> tuple[int, str]:
    """Return by what splits are sorted: train, val, test, and what is in none."""
    order: Mapping[str, int] = {"train": 0, "val": 1, "test": 2}
    return order.get(split, 3), split
