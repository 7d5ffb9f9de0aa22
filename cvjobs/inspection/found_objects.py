"""The objects of all truths together, in pixels of the images as they were decoded, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.objects import Bools, Floats, Ints, Rle
from cvjobs.inspection.decoded_facts import DecodedFacts
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth

SLACK = 1.0  # pixels that a box may reach beyond its image: tools round, and VOC counts from 1


@dataclass(frozen=True, kw_only=True)
class FoundObjects:
    """n objects of listed images that could be decoded.

    ``image`` (n,) is the place of the image, ``category`` (n,) that of the class in ``classes``; ``boxes`` (n, 4) are
    x, y, width and height in pixels, ``sizes`` (n, 2) height and width of the image. ``known`` are the images of a
    truth, also those without an object.
    """

    classes: list[str]
    image: Ints
    category: Ints
    boxes: Floats
    sizes: Ints
    masks: list[Rle] | None
    known: Ints

    def __len__(self) -> int:
        return len(self.image)


def title(category: Category) -> str:
    """Return what a class is called: its name, or its number."""
    return category.name or str(category.id)


def gather(
    truths: Sequence[SplitTruth], places: Sequence[Ints], facts: DecodedFacts, problems: Problems
) -> FoundObjects:
    """Return the objects of truths, of which ``places`` says where their images are; notes what is wrong with them."""
    classes = class_names([(one.split, _objects(one).categories) for one in truths], problems)
    numbers = {name: at for at, name in enumerate(classes)}
    parts = [_part(one, place, facts, numbers, problems) for one, place in zip(truths, places, strict=True)]
    masks = [mask for part in parts for mask in part.masks or ()]
    return FoundObjects(
        classes=classes,
        image=np.concatenate([part.image for part in parts]),
        category=np.concatenate([part.category for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        masks=masks if all(part.masks is not None for part in parts) else None,
        known=np.unique(np.concatenate([part.known for part in parts])),
    )


def _objects(one: SplitTruth) -> ObjectTruth:
    assert isinstance(one.truth, ObjectTruth)
    return one.truth


def class_names(categories: Iterable[tuple[str, Sequence[Category]]], problems: Problems) -> list[str]:
    """Return the names of the classes of truths, in the order of their numbers; notes those that do not agree."""
    by_id: dict[int, str] = {}
    by_name: dict[str, int] = {}
    for split, own in categories:
        for category in own:
            name = title(category)
            other, number = by_id.setdefault(category.id, name), by_name.setdefault(name, category.id)
            if other != name:
                problems.add(
                    "classes_differ", split=split, detail=f"{category.id} is {name!r}, and {other!r} elsewhere"
                )
            elif number != category.id:
                problems.add("classes_differ", split=split, detail=f"{name!r} is {category.id}, and {number} elsewhere")
    return list(dict.fromkeys(sorted(by_name, key=lambda name: by_name[name])))


def _part(
    one: SplitTruth, place: Ints, facts: DecodedFacts, numbers: dict[str, int], problems: Problems
) -> FoundObjects:
    truth = _objects(one)
    there = place >= 0
    good = there.copy()
    good[there] = facts.good[place[there]]
    _compare_sizes(one, truth, place, good, facts, problems)
    objects = truth.objects
    category = np.array([numbers[title(own)] for own in truth.categories], np.int64)[objects.category]
    sizes = np.zeros((len(truth), 2), np.int64)
    if len(truth.sizes):
        sizes[:] = truth.sizes
    sizes[good] = facts.sizes[place[good]]
    each = sizes[objects.image]
    boxes = objects.boxes * each[:, [1, 0, 1, 0]] if truth.relative else objects.boxes
    if truth.format == "panoptic":
        boxes = np.array([rles.toBbox(mask) for mask in objects.masks or ()], np.float64).reshape(-1, 4)
    paths = [facts.paths[at] if at >= 0 else name for at, name in zip(place.tolist(), truth.names, strict=True)]
    flaws = Flaws(one=one, truth=truth, paths=paths, boxes=boxes, sizes=each, category=category, names=list(numbers))
    flaws.note(problems)
    kept = good[objects.image]
    rows = np.flatnonzero(kept)
    return FoundObjects(
        classes=list(numbers),
        image=place[objects.image[rows]],
        category=category[rows],
        boxes=boxes[rows],
        sizes=each[rows],
        masks=None if objects.masks is None else [objects.masks[row] for row in rows.tolist()],
        known=place[good],
    )


def _compare_sizes(
    one: SplitTruth, truth: ObjectTruth, place: Ints, good: Bools, facts: DecodedFacts, problems: Problems
) -> None:
    """Note the images that have another size than the truth says."""
    if not len(truth.sizes):
        return
    said = np.array(truth.sizes, np.int64).reshape(-1, 2)
    at = np.flatnonzero(good & (said > 0).all(axis=1))
    differs = at[(said[at] != facts.sizes[place[at]]).any(axis=1)]
    for number in differs.tolist():
        (height, width), (tall, wide) = said[number].tolist(), facts.sizes[place[number]].tolist()
        turned = ": it lies on its side" if (height, width) == (wide, tall) else ""
        detail = f"{wide} x {tall} pixels, and the truth says {width} x {height}{turned}"
        problems.add("size_differs", facts.paths[place[number]], split=one.split, where=one.place, detail=detail)


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What may be wrong with the n objects of a truth: ``boxes`` (n, 4) in pixels, ``sizes`` (n, 2) of their images."""

    one: SplitTruth
    truth: ObjectTruth
    paths: list[str]
    boxes: Floats
    sizes: Ints
    category: Ints
    names: list[str]

    def note(self, problems: Problems) -> None:
        """Note boxes that reach beyond their image, that have no area, or that are there before."""
        x, y, width, height = self.boxes.T
        masks = self.truth.objects.masks
        known = (self.sizes > 0).all(axis=1) | (not self.truth.relative)
        empty = (known & ((width <= 0) | (height <= 0))) | (
            np.array([False]) if masks is None else self.truth.objects.area <= 0
        )
        seen = (self.sizes > 0).all(axis=1)
        down, across = self.sizes.T
        outside = seen & ((x < -SLACK) | (y < -SLACK) | (x + width > across + SLACK) | (y + height > down + SLACK))
        for number in np.flatnonzero(empty).tolist():
            self._add("box_empty", number, problems)
        for number in np.flatnonzero(outside).tolist():
            self._add("box_outside", number, problems, f", image {across[number]} x {down[number]}")
        for number, before in self._doubles(known & ~empty):
            same = self.category[number] == self.category[before]
            other = "" if same else f", there already as {self.names[self.category[before]]}"
            self._add("box_double", number, problems, other)

    def _doubles(self, which: Bools) -> Iterable[tuple[int, int]]:
        """Yield the objects of which the image has the same box before, and that one."""
        at = np.flatnonzero(which)
        keys = np.concatenate([self.truth.objects.image[at, None], np.round(self.boxes[at] * 100)], axis=1)
        first: dict[bytes, int] = {}
        for number, key in zip(at.tolist(), keys, strict=True):
            before = first.setdefault(key.tobytes(), number)
            if before != number:
                yield number, before

    def _add(self, kind: str, number: int, problems: Problems, more: str = "") -> None:
        box = ", ".join(f"{side:.6g}" for side in self.boxes[number].tolist())
        detail = f"{self.names[self.category[number]]} at {box}{more}"
        image = self.paths[int(self.truth.objects.image[number])]
        drawn = self.boxes[number].tolist()
        problems.add_box(kind, image, drawn, split=self.one.split, where=self.one.place, detail=detail)
