"""Which model segments and how, as ``segment`` was asked, and the step that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvjobs.common import categories
from cvjobs.networks import registry
from cvjobs.prediction.model_choice import ModelRecord, RuledRequest, once

if TYPE_CHECKING:  # a run with nothing to do loads no torch
    from cvjobs.networks.registry import PictureModel
    from cvjobs.prediction.tasks.class_map_step import ClassMaps
    from cvjobs.prediction.tasks.instance_step import Instances


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(RuledRequest["PictureModel"]):
    """Which model segments: every pixel, or the objects that the settings ask for."""

    task = "segment"

    def find(self) -> PictureModel:
        """See ``ModelRequest``."""
        return once(registry.segmenter, self.model, weights=self.weights, labels=self.labels).ruled(self.settings)

    def step(self, model: PictureModel, network: Any, record: ModelRecord) -> ClassMaps | Instances:
        """See ``ModelRequest``."""
        from cvjobs.prediction.tasks.class_map_step import ClassMaps
        from cvjobs.prediction.tasks.instance_step import Instances

        if categories.task(record.facts) == "semantic":
            return ClassMaps(network, model.categories)
        return Instances(network, model.categories)
