"""What the anchors of a detector reach on some boxes: torchvision's own, and as many that are fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cvjobs.evaluation.metrics.objects import Floats
from cvjobs.training.recipe import anchors
from cvjobs.training.recipe.anchors import FASTER_RCNN, AnchorLevels

AT = (0.5, 0.7)  # IoU from which on torchvision's RetinaNet and Faster R-CNN match an anchor
FEW = 15  # boxes; of fewer each had an anchor of its own


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """The best recall of anchors at each IoU of ``AT``, by torchvision's Faster R-CNN and by k-means over the boxes."""

    default: tuple[float, ...]
    fitted: tuple[float, ...]
    levels: AnchorLevels

    @classmethod
    def of(cls, boxes: Floats) -> AnchorFit | None:
        """Return what is reached on boxes, float64 (n, 2), widths and heights at the model's input; None for few."""
        if len(boxes) < FEW:
            return None
        levels = anchors.fitted(boxes, len(FASTER_RCNN.sizes), ratios=len(FASTER_RCNN.aspect_ratios[0]))
        default, fitted = (anchors.best_overlaps(boxes, own.shapes) for own in (FASTER_RCNN, levels))
        return cls(
            default=tuple(float((default >= at).mean()) for at in AT),
            fitted=tuple(float((fitted >= at).mean()) for at in AT),
            levels=levels,
        )

    def record(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {
            "iou": list(AT),
            "recall": [round(value, 4) for value in self.default],
            "recall_fitted": [round(value, 4) for value in self.fitted],
            "sizes_fitted": [list(own) for own in self.levels.sizes],
            "aspect_ratios_fitted": [list(own) for own in self.levels.aspect_ratios],
        }

    def __str__(self) -> str:
        """Return a sentence for a person."""
        first, second = AT
        own, fitted = ([f"{share:.1%}" for share in shares] for shares in (self.default, self.fitted))
        return (
            f"There {own[0]} of the boxes can have an IoU of {first} with one of the default anchors of torchvision's "
            f"Faster R-CNN, and {own[1]} one of {second}; with as many anchors that k-means fits to the boxes "
            f"{fitted[0]} and {fitted[1]} (check.json has these)."
        )
