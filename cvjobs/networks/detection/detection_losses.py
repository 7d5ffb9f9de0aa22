"""What a detector is told to lower in place of its own losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GAMMA = 2.0  # of a focal loss, as published


@dataclass(frozen=True, kw_only=True)
class DetectionLosses:
    """Losses by name: of ``classes`` ``auto``, ``ce`` or ``focal``, of ``boxes`` ``auto``, ``smooth-l1`` or an overlap.

    ``gamma`` is the focal loss's, 0 where it is not asked for; ``weights`` are those of the classes, empty for none.
    """

    classes: str = "auto"
    boxes: str = "auto"
    focal_gamma: float = GAMMA
    weights: tuple[float, ...] = ()

    @property
    def gamma(self) -> float:
        """The gamma of a focal loss, 0 of cross-entropy."""
        return self.focal_gamma if self.classes == "focal" else 0.0

    @property
    def own(self) -> bool:
        """Whether they are those of a Faster R-CNN anyway."""
        return not self.gamma and not self.weights and self.boxes in ("auto", "smooth-l1")

    @property
    def weights_tensor(self) -> Tensor | None:
        """The weights of the background, 1, and of the classes, float32 (C + 1,), or None."""
        return torch.tensor([1.0, *self.weights]) if self.weights else None
