"""Masks of classes looked at one by one: how many pixels each class has, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvjobs.common import devices
from cvjobs.evaluation.ground_truth.types import BadTruth, PixelTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.inspection.decoded_facts import DecodedFacts
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth

VOID = 255
SHOWN = 6  # values that a problem names
AHEAD = 64  # masks that are read at once, at most


@dataclass
class MaskClasses:
    """Pixels and images by split and class id; ``names`` are those that a truth has for ids, none where it has none."""

    names: dict[int, str] = field(default_factory=dict)
    pixels: dict[str, dict[int, int]] = field(default_factory=dict)
    images: dict[str, dict[int, int]] = field(default_factory=dict)
    masks: int = 0

    def add(self, split: str, counts: dict[int, int]) -> None:
        """Count the pixels of one mask."""
        pixels, images = self.pixels.setdefault(split, {}), self.images.setdefault(split, {})
        for id_, count in counts.items():
            pixels[id_] = pixels.get(id_, 0) + count
            images[id_] = images.get(id_, 0) + 1
        self.masks += 1

    def title(self, id_: int) -> str:
        """Return what a class is called."""
        return self.names.get(id_) or str(id_)

    @property
    def ids(self) -> list[int]:
        """The ids of the classes: those that have a name or pixels."""
        found = {*self.names, *(id_ for counts in self.pixels.values() for id_ in counts)}
        return sorted(id_ for id_ in found if id_ != VOID or VOID in self.names)

    @property
    def void(self) -> dict[str, float]:
        """The share of the pixels that do not count, by split."""
        return {} if VOID in self.names else self._shares(VOID)

    @property
    def classes(self) -> list[dict[str, Any]]:
        """A record of each class: its name, id, and by split its images and its share of the pixels."""
        return [
            {
                "name": self.title(id_),
                "id": id_,
                "images": {split: counts.get(id_, 0) for split, counts in self.images.items()},
                "pixels": self._shares(id_),
            }
            for id_ in self.ids
        ]

    def _shares(self, id_: int) -> dict[str, float]:
        return {split: round(own.get(id_, 0) / max(sum(own.values()), 1), 6) for split, own in self.pixels.items()}


def count(
    truths: Sequence[SplitTruth],
    places: Sequence[Ints],
    facts: DecodedFacts,
    splits: Sequence[str],
    problems: Problems,
    *,
    tell: Callable[[int], None],
) -> MaskClasses:
    """Read all masks, by threads, and count their classes; ``tell`` hears how many are read."""
    found = MaskClasses()
    for one, place in zip(truths, places, strict=True):
        truth = one.truth
        assert isinstance(truth, PixelTruth)
        known = {category.id: category.name for category in truth.categories or truth.beside}
        found.names.update(known)
        with ThreadPoolExecutor(devices.cpus()) as threads:
            numbers = iter(range(len(truth)))
            while some := list(islice(numbers, AHEAD)):
                for number, answer in zip(some, threads.map(partial(_counts, truth), some), strict=True):
                    at = int(place[number])
                    split = splits[at] if at >= 0 else one.split
                    _note(_Mask(one=one, number=number, at=at, split=split), answer, facts, known, problems)
                    if not isinstance(answer, BadTruth):
                        found.add(split, answer[1])
                tell(found.masks)
    return found


Counts = tuple[tuple[int, int], dict[int, int]]  # height and width, and pixels by id


def _counts(truth: PixelTruth, at: int) -> Counts | BadTruth:
    try:
        ids: NDArray[Any] = truth.load(at)
    except BadTruth as error:
        return error
    counts = np.bincount(ids.ravel())
    there = np.flatnonzero(counts)
    return (ids.shape[0], ids.shape[1]), dict(zip(there.tolist(), counts[there].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """The mask of this number of a truth, and the place of its image, -1 where there is none."""

    one: SplitTruth
    number: int
    at: int
    split: str


def _note(
    mask: _Mask, answer: Counts | BadTruth, facts: DecodedFacts, known: dict[int, str], problems: Problems
) -> None:
    """Note what is wrong with a mask."""
    truth, at = mask.one.truth, mask.at
    assert isinstance(truth, PixelTruth)
    path = facts.paths[at] if at >= 0 else truth.names[mask.number]
    where = str(truth.files[mask.number])
    if isinstance(answer, BadTruth):
        problems.add(answer.kind, path, split=mask.split, where=where, detail=answer.what)
        return
    size, counts = answer
    image = (int(facts.sizes[at, 0]), int(facts.sizes[at, 1])) if at >= 0 else (0, 0)
    if image[0] and image != size:
        detail = f"mask {size[1]} x {size[0]}, image {image[1]} x {image[0]}"
        problems.add("mask_size", path, split=mask.split, where=where, detail=detail)
    beyond = [id_ for id_ in counts if known and id_ not in known and id_ != VOID]
    if beyond:
        more = f" and {len(beyond) - SHOWN} more" if len(beyond) > SHOWN else ""
        detail = f"{', '.join(map(str, beyond[:SHOWN]))}{more}, and there are names for {len(known):,}"
        problems.add("mask_beyond", path, split=mask.split, where=where, detail=detail)
