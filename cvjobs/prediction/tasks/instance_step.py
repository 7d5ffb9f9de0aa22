"""The step of ``segment`` for models that find objects: their boxes, scores, classes and masks as a column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cvjobs.common.categories import Category
from cvjobs.dataset.schema import DETECTIONS, INSTANCE, SCHEMAS
from cvjobs.images.masks import rle
from cvjobs.images.picture import Picture
from cvjobs.networks.detection.detector_network import DetectorNetwork
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.tasks.detect import NONFINITE, NOTHING, DetectStep

SCHEMA = SCHEMAS["instance"]
LEAST = 0.5  # the probability from which on a pixel belongs to the object
BORDER = 1  # cells of probability 0 around a mask, so that it fades out at the edge of its box


class Instances:
    """A loaded detector with masks as a step of the engine."""

    def __init__(self, network: DetectorNetwork, categories: Sequence[Category]) -> None:
        self._network = network
        self._boxes = DetectStep(network, categories)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model sees an image of that size."""
        return self._network.shape(height, width)

    def __call__(self, pictures: Sequence[Picture]) -> Columns:
        """Return the objects of each picture; one whose scores, boxes or masks are not finite is a failure."""
        found = self._network([picture.pixels for picture in pictures])
        masks = [
            text
            for one, picture in zip(found, pictures, strict=True)
            if one is not None and one.masks is not None
            for text in outlined(one.masks, one.boxes, (picture.height, picture.width))
        ]
        boxes = self._boxes.column([one or NOTHING for one in found])
        items = pa.StructArray.from_arrays(
            [*boxes.values.flatten(), pa.array(masks, pa.string())], fields=list(INSTANCE)
        )
        column = pa.ListArray.from_arrays(boxes.offsets, items, type=SCHEMA.field(DETECTIONS).type)
        return Columns([column], {i: NONFINITE for i, one in enumerate(found) if one is None})


def outlined(masks: NDArray[np.float32], boxes: NDArray[np.float32], size: tuple[int, int]) -> list[str]:
    """Return the run-length strings of masks of objects, for an image of that (height, width).

    The masks are pasted as torchvision's ``paste_masks_in_image`` does it and cut off at a probability of 0.5, but no
    pixels are made: down a column of the image the probability is a straight line from cell to cell, so it passes 0.5
    once at most between two. Time and memory are those of the box's width alone.

    Args:
        masks: (N, M, M) the probabilities in the cells of each box.
        boxes: (N, 4) float32, in pixels of the image.
        size: the image's (height, width).
    """
    cells = np.pad(masks.astype(np.float64), ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
    corners = _grown(torch.from_numpy(boxes), cells.shape[-1] / (cells.shape[-1] - 2 * BORDER)).tolist()
    return [
        rle.written(_turns(mask, corner, size), size[0] * size[1]) for mask, corner in zip(cells, corners, strict=True)
    ]


def _turns(cells: NDArray[np.float64], box: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return where the mask begins and ends in turn, as column * height + row; its border cells are 0."""
    x0, y0, x1, y1 = box
    height, width, count = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1), len(cells)
    columns = np.arange(max(x0, 0), min(x0 + width, size[1]))
    place = np.clip((columns - x0 + 0.5) * count / width - 0.5, 0, count - 1)
    left = np.minimum(place.astype(np.int64), count - 2)
    share = place - left
    down = (cells[:, left] * (1 - share) + cells[:, left + 1] * share).T
    inside = down >= LEAST
    column, cell = np.nonzero(inside[:, 1:] != inside[:, :-1])
    before, after = down[column, cell], down[column, cell + 1]
    row = (cell + (LEAST - before) / (after - before) + 0.5) * height / count - 0.5
    # The pixel that lies on the line belongs to the object.
    first = np.where(after > before, np.ceil(row), np.floor(row) + 1).astype(np.int64)
    turns = columns[column] * size[0] + np.clip(y0 + first, max(y0, 0), max(min(y0 + height, size[0]), 0))
    places, times = np.unique(turns, return_counts=True)
    kept: NDArray[np.int64] = places[times % 2 == 1]  # a run of no pixels begins and ends at one place
    return kept


def _grown(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    """Return boxes grown about their centres, cut to whole pixels; in torchvision's order of operations."""
    x0, y0, x1, y1 = boxes.unbind(1)
    half_width, half_height = (x1 - x0) * 0.5, (y1 - y0) * 0.5
    x, y = (x1 + x0) * 0.5, (y1 + y0) * 0.5
    half_width, half_height = half_width * factor, half_height * factor
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1).to(torch.int64)
