"""The step of ``segment`` for models that find objects: their boxes, scores, classes and masks as a column."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cvjobs.common.categories import Category
from cvjobs.dataset.schema import DETECTIONS, INSTANCE, SCHEMAS
from cvjobs.images.picture import Picture
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.segmentation import outlines
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.tasks.detect import NONFINITE, NOTHING, DetectStep, ObjectNetwork

SCHEMA = SCHEMAS["instance"]


class Instances:
    """A loaded detector with masks as a step of the engine."""

    def __init__(self, network: ObjectNetwork, categories: Sequence[Category]) -> None:
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
            if one is not None
            for text in _outlined(one, picture)
        ]
        boxes = self._boxes.column([one or NOTHING for one in found])
        items = pa.StructArray.from_arrays(
            [*boxes.values.flatten(), pa.array(masks, pa.string())], fields=list(INSTANCE)
        )
        column = pa.ListArray.from_arrays(boxes.offsets, items, type=SCHEMA.field(DETECTIONS).type)
        return Columns([column], {i: NONFINITE for i, one in enumerate(found) if one is None})


def _outlined(found: PictureDetections, picture: Picture) -> list[str]:
    if found.rles is not None:
        return list(found.rles)
    assert found.masks is not None, "a model for ``segment``"
    return outlines.of_boxes(found.masks, found.boxes, (picture.height, picture.width))
