"""From the numbers of a file to sRGB: ICC profiles, alpha on white, 16 bits to 8.

What says which colours the numbers are is in ``colour_space.py``; which numbers a file has, in ``image_samples.py``.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from cvjobs.images.bit_depth import by_rows
from cvjobs.images.colour_matrix import AnyMatrix, SharedBlue, light_of
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform

# Photos are made to be looked at: where a profile has tables of several intents, this one; a matrix has but one.
INTENT = ImageCms.Intent.PERCEPTUAL
SAME = 2  # of 255: a profile that changes no colour by more is sRGB by another maker
_CACHED = 16
_STRIP = 1 << 16  # pixels
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_MODES = {b"RGB ": "RGB", b"GRAY": "L"}


@dataclass(frozen=True)
class Conversion:
    """How the colours of a profile become sRGB; ``mode`` is that of the pixels it takes: ``RGB`` or ``L``.

    A ``matrix``, and a ``table`` of what each gray becomes, uint8 (256, 3), do what the transform of littleCMS does,
    in less time.
    """

    mode: str
    transform: ImageCms.ImageCmsTransform
    matrix: AnyMatrix | SharedBlue | None = None
    table: Pixels | None = None

    def __call__(self, pixels: Pixels, out: Pixels) -> None:
        """Write uint8 (height, width, 1 or 3) as sRGB to ``out`` (height, width, 3), which may be the same."""
        if self.table is not None:
            out[...] = self.table[pixels[..., 0]]
            return
        if pixels.strides[0] < pixels.strides[1]:  # turned: the columns are its rows
            pixels, out = pixels.swapaxes(0, 1), out.swapaxes(0, 1)
        if self.matrix is not None:
            np.copyto(out, pixels)
            self.matrix(out)
            return
        height, width = pixels.shape[:2]
        rows = max(_STRIP // width, 1)
        for top in range(0, height, rows):  # so that what is between stays in the processor's cache
            strip = pixels[top : top + rows]
            image = Image.fromarray(strip if self.mode == "RGB" else np.ascontiguousarray(strip[..., 0]))
            out[top : top + rows] = np.asarray(self.transform.apply(image))

    def converted(self, pixels: Pixels) -> Pixels:
        """Return uint8 (height, width, 1 or 3) as sRGB (height, width, 3)."""
        out = np.empty((*pixels.shape[:2], 3), np.uint8)
        self(pixels, out)
        return out


@lru_cache(maxsize=_CACHED)
def conversion(profile: bytes) -> Conversion | None:
    """Return how the colours of an ICC profile become sRGB; None for those that are, and for a damaged one."""
    mode = _MODES.get(profile[16:20])
    if mode is None or profile[12:16] not in _CLASSES:
        return None
    probe = _probe(mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # By its own table of gray littleCMS makes dark grays too dark.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        made = Conversion(mode, ImageCms.buildTransform(source, _srgb(), mode, "RGB", INTENT, flags))
        shown = made.converted(probe)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if _farthest(shown, probe) <= SAME:
        return None
    if mode == "L":
        return replace(made, table=shown[0])
    if sys.byteorder == "little":
        for kind in (SharedBlue, AnyMatrix):
            with contextlib.suppress(ValueError):
                faster = replace(made, matrix=kind(light_of(profile)))
                if _farthest(faster.converted(probe), shown) <= 1:
                    return faster
    return made


def _farthest(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(np.int16) - other).max())


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _probe(mode: str) -> Pixels:
    """Return colours of all kinds: a lattice of them, or every gray."""
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None, :, None]
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)


def shown(samples: npt.NDArray[Any], alpha: bool, profile: bytes | None, transform: Transform) -> Pixels:
    """Return what samples show: sRGB on white, uint8 (height, width, 3).

    Args:
        samples: uint8 or uint16 (height, width, channels): gray or colour, with alpha behind; they may be written to.
        alpha: Whether the last channel is straight alpha.
        profile: The ICC profile of the colours; one of other colours than the samples have counts as none.
        transform: What of the image is seen in the end; nothing else needs its colours converted.
    """
    colours = samples[..., :-1] if alpha else samples
    how = conversion(profile) if profile else None
    if how is not None and len(how.mode) == colours.shape[2]:
        colours = _converted(eight_bits(colours), how, transform)
        if alpha:
            return on_white(np.dstack([colours, eight_bits(samples[..., -1:])]))
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return on_white(np.dstack([colours, samples[..., -1:]])) if alpha else eight_bits(colours)


def _converted(pixels: Pixels, how: Conversion, transform: Transform) -> Pixels:
    """Return what is seen of an image as sRGB, what is not as anything; written over ``pixels`` where they may be."""
    rows, columns = (_seen(length, min(pixels.shape[:2]), at, transform) for at, length in enumerate(pixels.shape[:2]))
    ours = pixels.flags.writeable and pixels.shape[2] == 3 and pixels.strides[2] == 1
    whole = pixels if ours else np.zeros((*pixels.shape[:2], 3), np.uint8)
    how(pixels[rows, columns], whole[rows, columns])
    return whole


def _seen(length: int, shorter: int, at: int, transform: Transform) -> slice:
    """Return what of an image's height (``at`` 0) or width is left after the crop, with what resizing mixes into it."""
    if transform.fit != "short" or transform.size is None:
        return slice(None)
    scale = shorter / transform.resize
    margin = 4 * max(scale, 1) + 2
    half = transform.size[at] * scale / 2 + margin
    return slice(max(math.floor(length / 2 - half), 0), math.ceil(length / 2 + half))


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
    return by_rows(values, np.uint8, lambda some: (some.astype(np.uint32) + 128) // 257)


def on_white(values: npt.NDArray[Any]) -> Pixels:
    """Composite (height, width, 4) colour with straight alpha on white; uint8 (height, width, 3)."""
    top = np.uint32(np.iinfo(values.dtype).max)

    def composed(some: npt.NDArray[Any]) -> npt.NDArray[Any]:
        alpha, colour = some[..., 3:].astype(np.uint32), some[..., :3].astype(np.uint32)
        return eight_bits(((colour * alpha + top * (top - alpha) + top // 2) // top).astype(values.dtype))

    return by_rows(values, np.uint8, composed)
