"""How a picture gets into the input of an ONNX detector, as its card says: squashed, letterboxed, or as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cvjobs.images.picture import Pixels
from cvjobs.networks.detection.framing import Size
from cvjobs.networks.detection.settings import Rules


@dataclass(frozen=True, kw_only=True)
class CardFraming:
    """See ``Framing``; its facts are those of the card.

    ``resize``: ``squash`` to the size of the rules, ``letterbox`` to as much of it as the proportions allow, ``keep``
    its own size. ``inside``: the file itself makes canvases of pictures. ``down``: sides of a letterbox are rounded
    down, as torchvision does it, else to the nearest pixel.
    ``centred``: what is around a tile is on all sides, else to the right and below. Canvases of files
    that take any size have sides of a ``multiple`` in pixels. ``bgr``: channels are in the order blue, green, red.
    """

    resize: str
    centred: bool
    fill: float | None
    interpolation: str
    antialias: bool
    bgr: bool
    multiple: int
    down: bool = False
    inside: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Framing``."""
        return {}

    @property
    def grey(self) -> float | None:
        """See ``Framing``."""
        return self.fill

    def size(self, height: int, width: int, rules: Rules, scale: float = 1.0) -> Size:
        """See ``Framing``."""
        if self.resize == "keep":
            return max(round(height * scale), 1), max(round(width * scale), 1)
        high, wide = rules.short * scale, rules.long * scale
        if self.resize == "squash":
            return max(round(high), 1), max(round(wide), 1)
        ratio = min(high / height, wide / width)
        whole = math.floor if self.down else round
        return max(whole(height * ratio), 1), max(whole(width * ratio), 1)

    def canvas(self, size: Size, rules: Rules) -> Size:
        """See ``Framing``."""
        if self.inside:
            return size
        if rules.fixed:
            return rules.short, rules.long
        return math.ceil(size[0] / self.multiple) * self.multiple, math.ceil(size[1] / self.multiple) * self.multiple

    def origin(self, size: Size, canvas: Size) -> Size:
        """See ``Framing``; of an odd pixel the larger half is after the tile."""
        if not self.centred:
            return 0, 0
        return (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2

    def draw(self, pixels: Pixels, place: Tensor) -> None:
        """See ``Framing``."""
        source = torch.from_numpy(pixels)
        size = (place.shape[1], place.shape[2])
        smooth = {} if self.interpolation == "nearest" else {"align_corners": False, "antialias": self.antialias}
        for channel in range(3):
            plane = source[None, None, :, :, 2 - channel if self.bgr else channel].float()
            if plane.shape[2:] != size:
                plane = interpolate(plane, size, mode=self.interpolation, **smooth).clamp_(0, 255)
            place[channel] = plane[0, 0]
