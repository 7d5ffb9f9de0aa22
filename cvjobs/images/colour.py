"""From the numbers of a file to sRGB: ICC profiles, alpha on white, 16 bits to 8.

What says which colours the numbers are is in ``colour_space.py``; which numbers a file has, in ``image_samples.py``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]

# Photos are made to be looked at: where a profile has tables of several intents, this one; a matrix has but one.
INTENT = ImageCms.Intent.PERCEPTUAL
SAME = 2  # of 255: a profile that changes no colour by more is sRGB by another maker
_CACHED = 16
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_MODES = {b"RGB ": "RGB", b"GRAY": "L"}


@dataclass(frozen=True)
class Conversion:
    """How the colours of a profile become sRGB; ``mode`` is that of the pixels it takes: ``RGB`` or ``L``."""

    mode: str
    transform: ImageCms.ImageCmsTransform

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return uint8 (height, width, 1 or 3) as sRGB (height, width, 3)."""
        image = Image.fromarray(pixels if self.mode == "RGB" else np.ascontiguousarray(pixels[..., 0]))
        if self.mode == "RGB":
            self.transform.apply_in_place(image)  # ``fromarray`` made a copy
            return np.asarray(image)
        return np.asarray(self.transform.apply(image))


@lru_cache(maxsize=_CACHED)
def conversion(profile: bytes) -> Conversion | None:
    """Return how the colours of an ICC profile become sRGB; None for those that are, and for a damaged one."""
    mode = _MODES.get(profile[16:20])
    if mode is None or profile[12:16] not in _CLASSES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = Conversion(mode, ImageCms.buildTransform(source, _srgb(), mode, "RGB", INTENT))
        ramp = _probe(mode)
        shown = made(ramp)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    difference = np.abs(shown.astype(np.int16) - ramp)
    return None if difference.max() <= SAME else made


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _probe(mode: str) -> Pixels:
    """Return colours of all kinds: a lattice of them, or every gray."""
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None, :, None]
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)


def shown(samples: npt.NDArray[Any], alpha: bool, profile: bytes | None) -> Pixels:
    """Return what samples show: sRGB on white, uint8 (height, width, 3).

    Args:
        samples: uint8 or uint16 (height, width, channels): gray or colour, with alpha behind.
        alpha: Whether the last channel is straight alpha.
        profile: The ICC profile of the colours; one of other colours than the samples have counts as none.
    """
    colours = samples[..., :-1] if alpha else samples
    how = conversion(profile) if profile else None
    if how is not None and len(how.mode) == colours.shape[2]:
        colours = how(eight_bits(colours))
        if alpha:
            return on_white(np.dstack([colours, eight_bits(samples[..., -1:])]))
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return on_white(np.dstack([colours, samples[..., -1:]])) if alpha else eight_bits(colours)


def of_cmyk(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert CMYK to sRGB by the embedded profile; a damaged profile counts as none."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image


def of_lab(image: Image.Image) -> Image.Image:
    """Convert CIELab to sRGB."""
    lab = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB", INTENT).apply(image)


def eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Scale 0..65535 to 0..255, rounded; 8-bit values pass."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def on_white(values: npt.NDArray[Any]) -> Pixels:
    """Composite (height, width, 4) colour with straight alpha on white; uint8 (height, width, 3)."""
    top = np.uint32(np.iinfo(values.dtype).max)
    alpha = values[..., 3:].astype(np.uint32)
    colour = values[..., :3].astype(np.uint32)
    return eight_bits(((colour * alpha + top * (top - alpha) + top // 2) // top).astype(values.dtype))
