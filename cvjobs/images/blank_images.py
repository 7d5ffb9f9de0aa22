"""Images in which nothing is to be seen, or that are all the same, as wrong exports and dead cameras leave them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from cvjobs.common.formatting import percent
from cvjobs.images.picture import Pixels

T = TypeVar("T")

BLACK, WHITE, EVEN, EQUAL = "black", "white", "one colour", "equal"
LOOKS = ("", BLACK, WHITE, EVEN)  # by the number that a decoder answers
NAMES = 5  # of each kind
MANY, SHARE = 3, 0.05  # images, and of all that were looked at
_ACROSS = 32  # pixels that are looked at, each way
_NEARLY = 16  # of 255 from black or white
_NOISE = 4  # of 255 between the darkest and the lightest pixel of one colour
_ALMOST = 0.99  # of the pixels
_REMEMBERED = 4096  # contents
_KEPT = 8

_WORDS = {
    BLACK: "are nearly black",
    WHITE: "are nearly white",
    EVEN: "are of one colour",
    EQUAL: "are the same file, byte by byte",
}


def look(images: Sequence[Pixels]) -> Pixels:
    """Return what images of one shape (height, width, 3) are, uint8 places in ``LOOKS``, by some of their pixels."""
    down, across = (-(-side // _ACROSS) for side in images[0].shape[:2])
    some = np.stack([pixels[::down, ::across] for pixels in images]).reshape(len(images), -1, 3)
    least = some[0].size * _ALMOST
    black = np.count_nonzero(some <= _NEARLY, axis=(1, 2)) >= least
    white = np.count_nonzero(some >= 255 - _NEARLY, axis=(1, 2)) >= least
    even = (some.max(axis=1) - some.min(axis=1)).max(axis=1) <= _NOISE
    return np.select([black, white, even], [1, 2, 3], 0).astype(np.uint8)


@dataclass
class Seen:
    """How many images of one kind there were, and the first of their names."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, count: int, *names: str) -> None:
        """Count images, of which these are names."""
        self.count += count
        for name in names:
            if len(self.first) < NAMES or name < self.first[-1]:
                insort(self.first, name)
        del self.first[NAMES:]


@dataclass
class BlankImages:
    """How many ``images`` were looked at, how many are of each look, and the most frequent contents, by their hash."""

    images: int = 0
    looks: dict[str, Seen] = field(default_factory=dict)
    contents: dict[bytes, Seen] = field(default_factory=dict)

    def merge(self, other: BlankImages) -> None:
        """Take what another one counted."""
        self.images += other.images
        for kind, seen in other.looks.items():
            self.looks.setdefault(kind, Seen()).add(seen.count, *seen.first)
        for content_hash, seen in other.contents.items():
            self.contents.setdefault(content_hash, Seen()).add(seen.count, *seen.first)

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON types: ``images``, and of each kind ``count`` and ``first`` names."""
        found = {kind: seen for kind in LOOKS if (seen := self.looks.get(kind))}
        most = max(self.contents.values(), key=lambda seen: (seen.count, seen.first), default=Seen())
        if most.count > 1:
            found[EQUAL] = most
        return {
            "images": self.images,
            "kinds": {kind: {"count": seen.count, "first": list(seen.first)} for kind, seen in found.items()},
        }


class ContentCounter(Generic[T]):
    """Finds the contents that many images have, in bounded memory; of a rare one it may forget some."""

    def __init__(self, name: Callable[[T], str]) -> None:
        self._name = name
        self._seen: dict[bytes, Seen] = {}
        self._once: dict[bytes, T] = {}

    def add(self, content_hashes: Sequence[bytes], images: Sequence[T]) -> None:
        """Count images by their contents; the name of one is asked for where it has the content of another."""
        seen, once = self._seen, self._once
        for content_hash, image in zip(content_hashes, images, strict=True):
            if content_hash in seen:
                seen[content_hash].add(1, self._name(image))
            elif content_hash in once:
                seen[content_hash] = Seen()
                seen[content_hash].add(2, self._name(once.pop(content_hash)), self._name(image))
            else:
                once[content_hash] = image
        if len(once) > _REMEMBERED:
            for forgotten in list(islice(once, len(once) - _REMEMBERED // 2)):
                del once[forgotten]
        if len(seen) > _REMEMBERED:
            kept = nlargest(_REMEMBERED // 2, self._seen.items(), key=lambda item: item[1].count)
            self._seen = dict(kept)

    def most(self) -> dict[bytes, Seen]:
        """Return the most frequent contents that more than one image has."""
        return dict(nlargest(_KEPT, self._seen.items(), key=lambda item: item[1].count))


def many(record: Mapping[str, Any]) -> Iterator[tuple[str, int, list[str]]]:
    """Yield of each kind that many images are of a sentence, the count and the first names; see ``record``."""
    images, kinds = record.get("images", 0), record.get("kinds", {})
    for kind in (kind for kind in _WORDS if kind in kinds):
        count, first = kinds[kind]["count"], list(kinds[kind]["first"])
        if count >= max(MANY, SHARE * images):
            least = "at least " if kind == EQUAL and images > _REMEMBERED else ""
            yield f"{least}{count:,} of {images:,} images ({percent(count / images)}) {_WORDS[kind]}", count, first
