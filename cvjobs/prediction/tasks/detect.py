"""The step of ``detect``: boxes, scores and classes as a column, and what identifies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.failures import Failure
from cvjobs.dataset.schema import DETECTION, LANDMARKS, MARKED_DETECTION
from cvjobs.images.picture import Picture, Pixels
from cvjobs.networks import registry
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.registry import PictureModel
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.model_choice import ModelRecord, RuledRequest, once

NONFINITE = Failure("infer", "infer_nonfinite", "the scores or boxes hold NaN or infinity")
NOTHING = PictureDetections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class DetectRequest(RuledRequest[PictureModel]):
    """Which detector looks for what."""

    task = "detect"

    def find(self) -> PictureModel:
        """See ``ModelRequest``."""
        return once(registry.detector, self.model, weights=self.weights, labels=self.labels).ruled(self.settings)

    def step(self, model: PictureModel, network: Any, record: ModelRecord) -> DetectStep:
        """See ``ModelRequest``."""
        return DetectStep(network, model.categories, len(common_categories.landmarks(record.facts)))


class ObjectNetwork(Protocol):
    """A loaded network that finds objects in pictures of equal shape; None for no finite numbers."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """See ``PictureStep``."""

    def __call__(self, pictures: Sequence[Pixels]) -> list[PictureDetections | None]:
        """Return what is found in each picture, uint8 (height, width, 3)."""


class DetectStep:
    """A loaded detector as a step of the engine; ``landmarks`` are how many points it finds of an object."""

    def __init__(self, network: ObjectNetwork, categories: Sequence[Category], landmarks: int = 0) -> None:
        self._network, self._landmarks = network, landmarks
        self._names = pa.array([category.name for category in categories], pa.string())
        self._place = {category.id: i for i, category in enumerate(categories)}

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model sees an image of that size, or a tile of it."""
        return self._network.shape(height, width)

    def __call__(self, pictures: Sequence[Picture]) -> Columns:
        """Return the detections of each picture; one whose scores or boxes are not finite is a failure."""
        found = self._network([picture.pixels for picture in pictures])
        failures = {i: NONFINITE for i, one in enumerate(found) if one is None}
        return Columns([self.column([one or NOTHING for one in found])], failures)

    def column(self, found: list[PictureDetections]) -> pa.ListArray:
        """Return the detections of each picture as a column."""
        boxes = np.concatenate([one.boxes for one in found])
        scores = np.concatenate([one.scores for one in found])
        classes = np.concatenate([one.classes for one in found])
        labels = self._names.take(pa.array([self._place[id_] for id_ in classes.tolist()], pa.int64()))
        columns = [*(pa.array(np.ascontiguousarray(side)) for side in boxes.T), pa.array(scores)]
        columns += [pa.array(classes, pa.int32()), labels]
        kind = DETECTION
        if self._landmarks:
            kind = MARKED_DETECTION
            columns.append(self._points(found, len(scores)))
        items = pa.StructArray.from_arrays(columns, fields=list(kind))
        ends = np.cumsum([0, *(len(one.scores) for one in found)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), items, type=pa.list_(pa.field("item", kind)))

    def _points(self, found: list[PictureDetections], count: int) -> pa.ListArray:
        """Return the landmarks of all detections, one list for each."""
        some = [one.landmarks for one in found if one.landmarks is not None]
        points = np.concatenate([np.empty((0, self._landmarks, 2), np.float32), *some]).reshape(-1, 2)
        kind = MARKED_DETECTION.field(LANDMARKS).type
        sides = [pa.array(np.ascontiguousarray(side)) for side in points.T]
        items = pa.StructArray.from_arrays(sides, fields=list(kind.value_type))
        ends = np.arange(count + 1, dtype=np.int32) * self._landmarks
        return pa.ListArray.from_arrays(pa.array(ends), items, type=kind)
