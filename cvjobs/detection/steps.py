"""The step of ``detect``: boxes, scores and classes as a column, and what identifies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs import models, resolving
from cvjobs.detection.detector import Detector
from cvjobs.detection.network import DetectorNetwork, Found
from cvjobs.detection.rules import Settings
from cvjobs.records import Failure, Transform
from cvjobs.results import DETECTION, DETECTIONS, SCHEMAS, Category
from cvjobs.stage.steps import Columns, Picture

SCHEMA = SCHEMAS["detect"]
NONFINITE = Failure("infer", "infer_nonfinite", "the scores or boxes hold NaN or infinity")
NOTHING = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class DetectOpener:
    """Which detector looks for what, on which device; loads it in a worker."""

    model: str
    weights: str
    labels: tuple[str, ...]
    settings: Settings
    sha256: str
    transform: Transform
    device: str
    precision: str

    @property
    def results(self) -> pa.Schema:
        """The column of detections."""
        return SCHEMA

    def open(self) -> Detect:
        """Load the model; raises JobFailed where its weights are not those that the run began with."""
        detector = _detector(self.model, self.weights, self.labels).ruled(self.settings)
        resolving.check_weights(detector, self.sha256)
        return Detect(detector.load(self.device, self.precision), detector.categories)


class Detect:
    """A loaded detector as a step of the Stage."""

    def __init__(self, network: DetectorNetwork, categories: Sequence[Category]) -> None:
        self._network = network
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

    def column(self, found: list[Found]) -> pa.ListArray:
        """Return the detections of each picture as a column."""
        boxes = np.concatenate([one.boxes for one in found])
        scores = np.concatenate([one.scores for one in found])
        classes = np.concatenate([one.classes for one in found])
        labels = self._names.take(pa.array([self._place[id_] for id_ in classes.tolist()], pa.int64()))
        columns = [*(pa.array(np.ascontiguousarray(side)) for side in boxes.T), pa.array(scores)]
        items = pa.StructArray.from_arrays([*columns, pa.array(classes, pa.int32()), labels], fields=list(DETECTION))
        ends = np.cumsum([0, *(len(one.scores) for one in found)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), items, type=SCHEMA.field(DETECTIONS).type)


@lru_cache(maxsize=1)
def _detector(model: str, weights: str, labels: tuple[str, ...]) -> Detector:
    # The driver needs the model's facts before a worker in the same process loads it.
    return models.detector(model, weights=weights, labels=labels)


def resolve(
    model: str, weights: str, labels: Sequence[str], settings: Settings, precision: str, earlier: dict[str, Any]
) -> dict[str, Any]:
    """Return the note on a choice, as ``resolving.resolve``."""
    return resolving.resolve(
        {"model": model, "weights": weights, "labels": list(labels), "settings": asdict(settings)},
        precision,
        earlier,
        lambda: _detector(model, weights, tuple(labels)).ruled(settings),
    )


def opener(note: dict[str, Any]) -> DetectOpener:
    """Return the step that a resolved choice stands for."""
    asked = note["asked"]
    return DetectOpener(
        model=asked["model"],
        weights=asked["weights"],
        labels=tuple(asked["labels"]),
        settings=Settings(**asked["settings"]),
        sha256=note["facts"]["weights_sha256"],
        transform=Transform.load(note["transform"]),
        device=asked["device"],
        precision=note["precision"],
    )
