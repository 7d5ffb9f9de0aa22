"""Which model segments and how, as ``segment`` was asked, and the step that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvjobs import models
from cvjobs.resolving import ModelRecord, RuledRequest, once

if TYPE_CHECKING:  # a run with nothing to do loads no torch
    from cvjobs.detection.detector import Detector
    from cvjobs.segmentation.instances import Instances
    from cvjobs.segmentation.labelling import ClassMaps
    from cvjobs.segmentation.semantic import Segmenter


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(RuledRequest["Segmenter | Detector"]):
    """Which model segments: every pixel, or the objects that the settings ask for."""

    def find(self) -> Segmenter | Detector:
        """See ``ModelRequest``."""
        return once(models.segmenter, self.model, weights=self.weights, labels=self.labels).ruled(self.settings)

    def step(self, model: Segmenter | Detector, record: ModelRecord) -> ClassMaps | Instances:
        """See ``ModelRequest``."""
        from cvjobs.segmentation.instances import Instances
        from cvjobs.segmentation.labelling import ClassMaps
        from cvjobs.segmentation.semantic import Segmenter

        if isinstance(model, Segmenter):
            return ClassMaps(model.load(record.device, record.precision), model.categories)
        return Instances(model.load(record.device, record.precision), model.categories)
