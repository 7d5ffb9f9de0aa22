"""Resizing and cropping on a device, to what ``resizing`` gives but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cvjobs.images import resizing
from cvjobs.images.transform import Transform


def fit(pixels: Tensor, transform: Transform) -> Tensor:
    """Return images (N, 3, height, width) uint8 at the transform's size, uint8 (N, height, width, 3).

    The arithmetic of sizes and of the crop is that of ``resizing.fit``; values are within 2 of it.
    """
    assert transform.size is not None
    height, width = resizing.resized(pixels.shape[2], pixels.shape[3], transform)
    smooth = {} if transform.interpolation == "nearest" else {"antialias": True, "align_corners": False}
    # Across and then down, as the processor does it: between the two it has whole numbers from 0 to 255, too.
    for size in ((pixels.shape[2], width), (height, width)):
        if tuple(pixels.shape[2:]) != size:
            values = functional.interpolate(pixels.float(), size=size, mode=transform.interpolation, **smooth)
            pixels = values.round_().clamp_(0, 255).to(torch.uint8)
    return _crop(pixels, transform).permute(0, 2, 3, 1).contiguous()


def _crop(pixels: Tensor, transform: Transform) -> Tensor:
    assert transform.size is not None
    size = transform.size
    missing = [max(side - given, 0) for side, given in zip(size, pixels.shape[2:], strict=True)]
    if any(missing):
        before = [side // 2 for side in missing]
        pixels = functional.pad(pixels, (before[1], missing[1] - before[1], before[0], missing[0] - before[0]))
    top, left = (resizing.corner(given, side, transform) for side, given in zip(size, pixels.shape[2:], strict=True))
    return pixels[:, :, top : top + size[0], left : left + size[1]]
