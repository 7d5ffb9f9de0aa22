"""Which model segments and how, as ``segment`` was asked, and the step that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cvjobs.common import categories
from cvjobs.networks import registry
from cvjobs.networks.segmentation import result_kind
from cvjobs.prediction.model_choice import ModelRecord, RuledRequest, once

if TYPE_CHECKING:  # a run with nothing to do loads no torch
    from cvjobs.networks.registry import PictureModel
    from cvjobs.prediction.tasks.class_map_step import ClassMaps
    from cvjobs.prediction.tasks.instance_step import Instances


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(RuledRequest["PictureModel"]):
    """Which model segments: every pixel, or the objects that the settings ask for.

    ``kind`` is which of the two, of a model that can do both; empty for what it is for.
    """

    kind: Literal["", "semantic", "instance"] = ""

    task = "segment"

    def find(self) -> PictureModel:
        """See ``ModelRequest``."""
        model = once(registry.segmenter, self.model, weights=self.weights, labels=self.labels)
        return (result_kind.chosen(model, self.kind) if self.kind else model).ruled(self.settings)

    def recorded(self) -> dict[str, Any]:
        """See ``ModelRequest``; no kind, as in outputs of before there was one, where none is chosen."""
        record = super().recorded()
        if not self.kind:
            del record["kind"]
        return record

    def step(self, model: PictureModel, network: Any, record: ModelRecord) -> ClassMaps | Instances:
        """See ``ModelRequest``."""
        from cvjobs.prediction.tasks.class_map_step import ClassMaps
        from cvjobs.prediction.tasks.instance_step import Instances

        if categories.task(record.facts) == "semantic":
            return ClassMaps(network, model.categories)
        return Instances(network, model.categories)
