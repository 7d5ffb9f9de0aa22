"""How a tile of a picture becomes the input of a detector: its size there, what is around it, how it is resized."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cvjobs.images.picture import Pixels
from cvjobs.networks.detection.settings import Rules

STRIDE = 32  # what torchvision pads sides to a multiple of

Size = tuple[int, int]  # (height, width) in pixels


class Framing(Protocol):
    """What a model makes of a tile before it looks at it; several threads call it at once."""

    @property
    def facts(self) -> dict[str, Any]:
        """What of it changes results, as JSON types."""

    @property
    def grey(self) -> float | None:
        """The value, 0 to 255, of what is around a tile; None for 0 after normalising."""

    def size(self, height: int, width: int, rules: Rules, scale: float = 1.0) -> Size:
        """Return the size to which a tile of that size in pixels is resized, times ``scale``; at least 1."""

    def canvas(self, size: Size, rules: Rules) -> Size:
        """Return the size of the tensor that holds a tile which was resized to ``size``."""

    def origin(self, size: Size, canvas: Size) -> Size:
        """Return where (top, left) in its tensor a tile of that size is."""

    def draw(self, pixels: Pixels, place: Tensor) -> None:
        """Resize a tile, uint8 (height, width, 3), into float32 (3, h, w) on the model's device, 0..255."""


@dataclass(frozen=True)
class TorchvisionFraming:
    """As torchvision's ``GeneralizedRCNNTransform`` does it: bilinear, not antialiased, 0 to the right and below."""

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Framing``; nothing, as in outputs of before there were others."""
        return {}

    @property
    def grey(self) -> None:
        """See ``Framing``."""

    def size(self, height: int, width: int, rules: Rules, scale: float = 1.0) -> Size:
        """See ``Framing``."""
        if rules.fixed:
            return rules.short, rules.long
        factor = min(rules.short * scale / min(height, width), rules.long * scale / max(height, width))
        return max(math.floor(height * factor), 1), max(math.floor(width * factor), 1)

    def canvas(self, size: Size, rules: Rules) -> Size:
        """See ``Framing``."""
        if rules.fixed:
            return size
        return math.ceil(size[0] / STRIDE) * STRIDE, math.ceil(size[1] / STRIDE) * STRIDE

    def origin(self, size: Size, canvas: Size) -> Size:
        """See ``Framing``."""
        del size, canvas
        return 0, 0

    def draw(self, pixels: Pixels, place: Tensor) -> None:
        """See ``Framing``; channel by channel, for a picture of floats has four times the bytes of its pixels."""
        source = torch.from_numpy(pixels).to(place.device)
        for channel in range(3):
            plane = source[None, None, :, :, channel].float()
            size = (place.shape[1], place.shape[2])
            place[channel] = torch.nn.functional.interpolate(plane, size, mode="bilinear", align_corners=False)[0, 0]


@dataclass(frozen=True)
class CanvasFraming(TorchvisionFraming):
    """A square that has a picture's longer side: what an SSD was trained on, whose anchors are shares of it."""

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Framing``."""
        return {"canvas": "square"}

    def canvas(self, size: Size, rules: Rules) -> Size:
        """See ``Framing``."""
        side = max(rules.short, *size)
        return side, side
