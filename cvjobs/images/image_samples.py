"""The numbers of an image as its file has them, and what they show: every mode and depth (pixel rules 2).

TIFFs that Pillow does not read right are in ``tiff.py``.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImagePalette, TiffImagePlugin

from cvjobs.images import colour_space, tiff
from cvjobs.images.bit_depth import used
from cvjobs.images.colour import of_cmyk, of_lab, shown
from cvjobs.images.orientation import upright
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

Samples = npt.NDArray[Any]

_SIXTEEN = re.compile(r"^(RGB|RGBA|LA);16B$")


def native(content: bytes, image: Image.Image, values: Samples, transform: Transform) -> tuple[Pixels, int]:
    """Return what the samples show that TorchCodec decoded, (height, width, 3 or 4); ``image`` was but opened.

    The number is as that of ``bit_depth.used``.
    """
    alpha, unsaid = values.shape[2] == 4, 0
    if content[25] in (0, 4) if image.format == "PNG" else image.mode in ("L", "LA"):
        values = values[..., [0, 3]] if alpha else values[..., :1]
    if values.dtype == np.uint16:
        values, unsaid = used(values, alpha, _png_bits(content, values), transform)
    return shown(values, alpha, colour_space.of_image(image, content), transform), unsaid


def pillow(content: bytes, image: Image.Image, transform: Transform) -> tuple[Pixels, int]:
    """Return what an image shows that Pillow opened: orientation, depth, profile, alpha on white; and as ``native``."""
    if image.format == "TIFF":
        image = _checked(content, image)
    profile = colour_space.of_image(image, content)
    unsaid = 0
    if image.format == "PNG" and _SIXTEEN.match(_rawmode(image)):
        values, alpha, unsaid = _sixteen(content, image, transform)
    else:
        _load(image)
        turned = upright(image)
        if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
            values, alpha, unsaid = _gray(content, image, turned, transform)
        else:
            values, alpha = _eight(content, image, turned, profile)
            if turned.mode in ("CMYK", "LAB"):
                profile = None  # which was that of the inks
    return shown(values, alpha, profile, transform), unsaid


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except OSError as error:
        tags = getattr(image, "tag_v2", {})
        if tags.get(tiff.COMPRESSION, 1) not in tiff.READ:
            raise Undecodable("unsupported_mode", "the compression of this TIFF is not supported") from error
        raise


def _rawmode(image: Image.Image) -> str:
    """Return how Pillow is about to unpack the samples of a PNG."""
    tiles = getattr(image, "tile", None) or []
    found = tiles[0][3] if tiles else ""
    return found if isinstance(found, str) else ""


def _png_bits(content: bytes, values: Samples) -> int | None:
    """Return the bits that the samples of a PNG use, where it says so and they are the lower ones.

    The format wants them to be scaled to all 16, and then what is behind the significant bits repeats the first ones,
    or is 0.
    """
    bits = colour_space.significant_bits(content)
    if bits is None or not 8 <= bits < 16:
        return None
    behind = values & (2 ** (16 - bits) - 1)
    if ((behind == 0) | (behind == values >> bits)).all():
        return 16
    return bits


def _sixteen(content: bytes, image: Image.Image, transform: Transform) -> tuple[Samples, bool, int]:
    """Return the samples of a PNG of 16 bits, of which Pillow unpacks but the first byte: it is asked for each."""
    mode = _rawmode(image).split(";")[0]
    key = image.info.get("transparency")
    if mode == "LA":  # two numbers of two bytes, which are read as four of one
        four = _read(content, image, "RGBA")
        values = four[..., ::2].astype(np.uint16) << 8 | four[..., 1::2]
    else:
        values = _read(content, image, f"{mode};16B").astype(np.uint16) << 8 | _read(content, image, f"{mode};16L")
    alpha = mode != "RGB"
    if isinstance(key, tuple) and not alpha:
        alpha = True
        values = np.dstack([values, np.where((values == np.array(key)).all(axis=2), 0, 65535).astype(np.uint16)])
    values, unsaid = used(values, alpha, _png_bits(content, values), transform)
    return values, alpha, unsaid


def _read(content: bytes, image: Image.Image, rawmode: str) -> Samples:
    """Return a PNG as Pillow unpacks it by a raw mode."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as again:
        again.tile = [tile._replace(args=rawmode) for tile in image.tile]  # type: ignore[attr-defined]
        again.load()
        return np.asarray(upright(again))


def _gray(content: bytes, image: Image.Image, turned: Image.Image, transform: Transform) -> tuple[Samples, bool, int]:
    """Return gray of more than 8 bits, whose range must be known."""
    if turned.mode == "F" or image.format not in ("PPM", "PNG"):
        raise Undecodable("unsupported_mode", f"{turned.mode}-mode pixels (32 bits a channel) have no known range")
    values = np.asarray(turned)[:, :, None].astype(np.uint16)
    if image.format == "PPM":  # scaled by the largest value that its header names
        return values, False, 0
    key = image.info.get("transparency")
    said = _png_bits(content, values)
    alpha = isinstance(key, int)
    if alpha:
        values = np.dstack([values, np.where(values == key, 0, 65535).astype(np.uint16)])
    values, unsaid = used(values, alpha, said, transform)
    return values, alpha, unsaid


def _eight(content: bytes, image: Image.Image, turned: Image.Image, profile: bytes | None) -> tuple[Samples, bool]:
    """Return samples of up to 8 bits, gray or RGB, and whether alpha is behind."""
    if turned.mode == "CMYK":
        turned = (of_cmyk(turned, profile) if profile else turned).convert("RGB")
    elif turned.mode == "LAB":
        turned = of_lab(turned)
    mode = turned.mode
    if mode in ("LA", "La"):
        return np.asarray(turned.convert("LA")), True
    key = image.info.get("transparency")
    if mode in ("1", "L") and image.format == "PNG" and isinstance(key, int):
        gray = np.asarray(turned.convert("L"))
        hidden = gray == (key if mode == "1" else key * 255 // (2 ** content[24] - 1))
        return np.dstack([gray, np.where(hidden, 0, 255).astype(np.uint8)]), True
    if mode in ("RGBA", "PA", "RGBa") or key is not None:
        return np.asarray(turned.convert("RGBA")), True
    if mode in ("1", "L"):
        return np.asarray(turned.convert("L"))[:, :, None], False
    return np.asarray(turned if mode == "RGB" else turned.convert("RGB")), False


def _checked(content: bytes, image: Image.Image) -> Image.Image:
    """Return a TIFF that Pillow opened as one that it reads right."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    image.info.pop("xmp", None)  # by which Pillow would turn it
    if tags.get(tiff.PHOTOMETRIC) == tiff.YCBCR and not image.use_load_libtiff:  # type: ignore[attr-defined]
        image = _by_libtiff(content)
    colours = tags.get(tiff.PALETTE, ()) if image.mode in ("P", "PA") else ()
    if colours and max(colours) < 256:  # written as 8 bits, by programs that did not read on
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    return image


def _by_libtiff(content: bytes) -> Image.Image:
    """Open a TIFF whose pixels libtiff reads, which it else does for compressed ones only: it knows subsampling."""
    before = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        return Image.open(io.BytesIO(content), formats=["TIFF"])
    finally:
        TiffImagePlugin.READ_LIBTIFF = before
