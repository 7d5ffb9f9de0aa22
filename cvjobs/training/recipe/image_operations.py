"""The operations of augmentation policies on batches: each image by its own strength, in a few calls for all of them.

Each equals torchvision's operation of the same name on one image, but that strengths are (N,) float32 tensors on the
device of the images, which are (N, 3, H, W) uint8 as what is returned. None waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from torchvision.transforms.v2 import functional

Mode = Literal["nearest", "bilinear"]
Operation = Callable[[Tensor, Tensor], Tensor]

_GREY = (0.2989, 0.587, 0.114)  # torchvision's rounding of ITU-R BT.601


def warped(images: Tensor, maps: Tensor, mode: Mode) -> Tensor:
    """Return images of which each pixel comes from where an affine map leads; zeros come from outside.

    ``maps`` (N, 2, 3) float32 take pixels relative to the image's centre to the same, divided by half of its sides.
    """
    count, _, height, width = images.shape
    columns = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=images.device)
    rows = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=images.device)
    shape = (height, width)
    places = torch.stack([columns.expand(shape), rows[:, None].expand(shape), columns.new_ones(shape)], 2).view(
        1, -1, 3
    )
    grid = places.expand(count, -1, -1).bmm(maps.transpose(1, 2)).view(count, height, width, 2)
    return F.grid_sample(images.float(), grid, mode, "zeros", align_corners=False).round_().byte()


def brightness(images: Tensor, strengths: Tensor) -> Tensor:
    """Multiply by one and the strength."""
    return (images * _each(1 + strengths)).clamp_(0, 255).byte()


def colour(images: Tensor, strengths: Tensor) -> Tensor:
    """Take one and the strength of the image, and what is left of one from the grey one."""
    return _blended(images, _grey(images), strengths)


def contrast(images: Tensor, strengths: Tensor) -> Tensor:
    """As ``colour``, with the mean of the grey one."""
    return _blended(images, _grey(images).mean((1, 2, 3), keepdim=True), strengths)


def sharpness(images: Tensor, strengths: Tensor) -> Tensor:
    """As ``colour``, with the smoothed image; the outermost pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    out = images.float()
    inside = out[..., 1:-1, 1:-1]
    # A window of nine ones, and four more in its middle.
    smooth = (F.avg_pool2d(out, 3, stride=1) * 9 + inside * 4).div_(13).round_()
    inside.add_((smooth - inside) * _each(-strengths))
    return out.clamp_(0, 255).byte()


def posterize(images: Tensor, strengths: Tensor) -> Tensor:
    """Keep the highest bits, as many as the strength says."""
    return images & (256 - torch.exp2(8 - strengths)).byte().view(-1, 1, 1, 1)


def solarize(images: Tensor, strengths: Tensor) -> Tensor:
    """Invert what is at least the strength times 255."""
    return torch.where(images >= _each(255 * strengths), ~images, images)


def autocontrast(images: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG001
    """Spread each channel over the whole range; one of a single level stays."""
    low, high = images.amin((2, 3), keepdim=True).float(), images.amax((2, 3), keepdim=True).float()
    flat = high == low
    scale = ((high - low) * (1 / 255)).masked_fill_(flat, 1.0)
    return ((images - low.masked_fill(flat, 0.0)) / scale).clamp_(0, 255).byte()


def equalize(images: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG001
    """Make the levels of each channel about as frequent."""
    equal: Tensor = functional.equalize(images)
    return equal


def invert(images: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG001
    """Return the negatives."""
    return ~images


BY_NAME: dict[str, Operation] = {
    "Brightness": brightness,
    "Color": colour,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": invert,
}


def _each(strengths: Tensor) -> Tensor:
    return strengths.view(-1, 1, 1, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).floor_().unsqueeze(1)


def _blended(images: Tensor, others: Tensor, strengths: Tensor) -> Tensor:
    share = _each(1 + strengths)
    return (images * share).add_(others * (1 - share)).clamp_(0, 255).byte()
