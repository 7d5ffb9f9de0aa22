"""Which model segments and how, as ``segment`` was asked, and the step that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvjobs.networks import registry
from cvjobs.prediction.model_choice import ModelRecord, RuledRequest, once

if TYPE_CHECKING:  # a run with nothing to do loads no torch
    from cvjobs.networks.detection.detector import Detector
    from cvjobs.networks.segmentation.segmenter import Segmenter
    from cvjobs.prediction.tasks.class_map_step import ClassMaps
    from cvjobs.prediction.tasks.instance_step import Instances


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(RuledRequest["Segmenter | Detector"]):
    """Which model segments: every pixel, or the objects that the settings ask for."""

    task = "segment"

    def find(self) -> Segmenter | Detector:
        """See ``ModelRequest``."""
        return once(registry.segmenter, self.model, weights=self.weights, labels=self.labels).ruled(self.settings)

    def step(self, model: Segmenter | Detector, network: Any, record: ModelRecord) -> ClassMaps | Instances:
        """See ``ModelRequest``."""
        del record
        from cvjobs.networks.segmentation.segmenter import Segmenter
        from cvjobs.prediction.tasks.class_map_step import ClassMaps
        from cvjobs.prediction.tasks.instance_step import Instances

        if isinstance(model, Segmenter):
            return ClassMaps(network, model.categories)
        return Instances(network, model.categories)
