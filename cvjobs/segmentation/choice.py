"""Which model segments and how, as ``segment`` was asked: what identifies its results, and the step it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cvjobs import models, resolving, results
from cvjobs.detection.rules import Settings
from cvjobs.records import Transform
from cvjobs.results import SCHEMAS

if TYPE_CHECKING:  # a run with nothing to do loads no torch
    from cvjobs.detection.detector import Detector
    from cvjobs.segmentation.instances import Instances
    from cvjobs.segmentation.labelling import ClassMaps
    from cvjobs.segmentation.semantic import Segmenter


@dataclass(frozen=True, kw_only=True)
class SegmentOpener:
    """Which model segments, on which device; loads it in a worker."""

    model: str
    weights: str
    labels: tuple[str, ...]
    settings: Settings
    task: str
    sha256: str
    transform: Transform
    device: str
    precision: str

    @property
    def results(self) -> pa.Schema:
        """The columns of the model's task."""
        return SCHEMAS[self.task]

    def open(self) -> ClassMaps | Instances:
        """Load the model; raises JobFailed where its weights are not those that the run began with."""
        from cvjobs.segmentation.instances import Instances
        from cvjobs.segmentation.labelling import ClassMaps
        from cvjobs.segmentation.semantic import Segmenter

        model = _model(self.model, self.weights, self.labels).ruled(self.settings)
        resolving.check_weights(model, self.sha256)
        if isinstance(model, Segmenter):
            return ClassMaps(model.load(self.device, self.precision), model.categories)
        return Instances(model.load(self.device, self.precision), model.categories)


@lru_cache(maxsize=1)
def _model(model: str, weights: str, labels: tuple[str, ...]) -> Segmenter | Detector:
    # The driver needs the model's facts before a worker in the same process loads it.
    return models.segmenter(model, weights=weights, labels=labels)


def resolve(
    model: str, weights: str, labels: Sequence[str], settings: Settings, precision: str, earlier: dict[str, Any]
) -> dict[str, Any]:
    """Return the note on a choice, as ``resolving.resolve``."""
    return resolving.resolve(
        {"model": model, "weights": weights, "labels": list(labels), "settings": asdict(settings)},
        precision,
        earlier,
        lambda: _model(model, weights, tuple(labels)).ruled(settings),
    )


def opener(note: dict[str, Any]) -> SegmentOpener:
    """Return the step that a resolved choice stands for."""
    asked = note["asked"]
    return SegmentOpener(
        model=asked["model"],
        weights=asked["weights"],
        labels=tuple(asked["labels"]),
        settings=Settings(**asked["settings"]),
        task=results.task(note["facts"]),
        sha256=note["facts"]["weights_sha256"],
        transform=Transform.load(note["transform"]),
        device=asked["device"],
        precision=note["precision"],
    )
