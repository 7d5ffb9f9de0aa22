"""The objects in the images of a split, as arrays: boxes in shares of their image, whatever size that is decoded to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvjobs.evaluation.metrics.objects import Bools, Floats, Ints, Truths

SMALLEST = 1e-9  # a side of a box, as a share of its image's


@dataclass(frozen=True, kw_only=True)
class ImageObjects:
    """The objects of n images, those of one behind those of the other.

    ``ends`` (n + 1,) bound the images; ``boxes`` (k, 4) are x, y, width and height in shares of the image, as the truth
    has them, ``area`` (k,) is such a share, too; ``labels`` (k,) are numbers of classes. Crowds are ``ignored``, as is
    what is difficult: none of it is trained on.
    """

    ends: Ints
    boxes: Floats
    area: Floats
    labels: Ints
    crowd: Bools
    ignored: Bools

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def image(self) -> Ints:
        """The number of the image of each object, (k,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.ends))

    @property
    def inside(self) -> Floats:
        """The boxes cut off at the edges of their images: left, top, right and bottom, (k, 4)."""
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], 1)
        return np.asarray(corners.clip(0, 1))

    @property
    def usable(self) -> Bools:
        """Which of them are trained on, (k,)."""
        inside = self.inside
        return np.asarray(~self.ignored & ((inside[:, 2:] - inside[:, :2]) > SMALLEST).all(1))

    @property
    def digest(self) -> str:
        """What tells whether they are the same objects."""
        parts = (self.ends, self.boxes, self.area, self.labels, self.crowd, self.ignored)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

    def take(self, which: NDArray[np.int64]) -> ImageObjects:
        """Return those of some images, in their order."""
        counts = np.diff(self.ends)[which]
        ends = np.concatenate([[0], counts.cumsum()])
        rows = np.repeat(self.ends[which] - ends[:-1], counts) + np.arange(ends[-1])
        return ImageObjects(
            ends=ends,
            boxes=self.boxes[rows],
            area=self.area[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            ignored=self.ignored[rows],
        )

    def only(self, which: Bools) -> ImageObjects:
        """Return some of the objects (k,) of the same images."""
        counts = np.bincount(self.image[which], minlength=len(self))
        return ImageObjects(
            ends=np.concatenate([[0], counts.cumsum()]),
            boxes=self.boxes[which],
            area=self.area[which],
            labels=self.labels[which],
            crowd=self.crowd[which],
            ignored=self.ignored[which],
        )

    def shown(self, classes: int) -> NDArray[np.uint8]:
        """Return which classes each image shows, of what is trained on, (n, classes) of 0 and 1."""
        found = np.zeros((len(self), classes), np.uint8)
        some = self.usable
        found[self.image[some], self.labels[some]] = 1
        return found

    def counts(self, classes: int) -> list[int]:
        """Return how many objects of each class are trained on."""
        counted: list[int] = np.bincount(self.labels[self.usable], minlength=classes).tolist()
        return counted

    def padded(self, which: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what is trained on of some images.

        Returns:
            Left, top, right and bottom in shares of the image, (N, M, 4), and the classes, (N, M), -1 for no object.
        """
        own = self.take(which)
        own = own.only(own.usable)
        counts = np.diff(own.ends)
        boxes = np.zeros((len(which), max(int(counts.max(initial=0)), 1), 4), np.float32)
        labels = np.full(boxes.shape[:2], -1, np.int64)
        place = np.arange(len(own.labels)) - np.repeat(own.ends[:-1], counts)
        boxes[own.image, place] = own.inside
        labels[own.image, place] = own.labels
        return boxes, labels

    def truths(self, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> Truths:
        """Return the objects in pixels of images of these sizes, (n,) each, as an evaluation takes them."""
        image = self.image
        across, down = widths[image].astype(np.float64), heights[image].astype(np.float64)
        return Truths(
            image=image,
            category=self.labels,
            boxes=self.boxes * np.stack([across, down, across, down], 1),
            area=self.area * across * down,
            crowd=self.crowd,
            ignored=self.ignored,
            unnumbered=np.zeros(len(image), np.bool_),
        )
