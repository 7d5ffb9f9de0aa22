"""The numbers of an image as its file has them: every mode, depth and photometric interpretation (pixel rules 2)."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, ImagePalette, TiffImagePlugin

from cvjobs.images import colour_space
from cvjobs.images.colour import Pixels, eight_bits, of_cmyk, of_lab, shown
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

Samples = npt.NDArray[Any]

WHITE_IS_ZERO, YCBCR, CIELAB = 0, 6, 8
MOST_UNSAID = 14  # 16-bit samples that need no more are taken for what a camera of fewer bits left
_PHOTOMETRIC, _BITS, _FORMAT, _PLANAR, _FILL, _COLOURS = 262, 258, 339, 284, 266, 320
_MOST, _LEAST_S, _MOST_S, _DESCRIPTION, _WHITE_LEVEL = 281, 340, 341, 270, 50717
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_SIXTEEN = re.compile(r"^(RGB|RGBA|RGBX|RGBa|CMYK);16([LBN])$")
_OME_BITS = re.compile(r'\bSignificantBits="(\d{1,2})"')


def native(content: bytes, image: Image.Image, values: Samples, transform: Transform) -> tuple[Pixels, int]:
    """Return what the samples show that TorchCodec decoded, (height, width, 3 or 4); ``image`` was but opened.

    The number is that of the bits that suffice for 16-bit samples, where nothing says how many are used, else 0.
    """
    alpha, unsaid = values.shape[2] == 4, 0
    if content[25] in (0, 4) if image.format == "PNG" else image.mode in ("L", "LA"):
        values = values[..., [0, 3]] if alpha else values[..., :1]
    if values.dtype == np.uint16:
        values, unsaid = _by_bits(values, alpha, _png_bits(content, values), transform)
    return shown(values, alpha, colour_space.of_image(image, content), transform), unsaid


def pillow(content: bytes, image: Image.Image, transform: Transform) -> tuple[Pixels, int]:
    """Return what an image shows that Pillow opened: orientation, depth, profile, alpha on white; and as ``native``."""
    if image.format == "TIFF":
        image = _checked(content, image)
    profile = colour_space.of_image(image, content)
    unsaid = 0
    if _SIXTEEN.match(_rawmode(image)):
        values, alpha, unsaid = _sixteen(content, image, transform)
        if values.shape[2] - alpha == 4:
            values = np.asarray(_of_inks(Image.fromarray(eight_bits(values), "CMYK"), profile))
    else:
        image.load()
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
            values, alpha, unsaid = _gray(content, image, turned, transform)
        else:
            values, alpha = _eight(content, image, turned, profile)
    return shown(values, alpha, profile, transform), unsaid


def _rawmode(image: Image.Image) -> str:
    """Return how Pillow is about to unpack the samples, and empty where that is not one way."""
    tiles = getattr(image, "tile", None) or []
    args = tiles[0][3] if tiles else ""
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def _by_bits(values: Samples, alpha: bool, said: int | None, transform: Transform) -> tuple[Samples, int]:
    """Scale unsigned samples of 16 bits, of which fewer may be used, to 0..65535.

    How many is what the file says, else what the user said, unless a sample shows that it is more. Returns also the
    bits that suffice, where nothing says how many are used and the image would be dark, else 0.
    """
    colours = values[..., :-1] if alpha else values
    peak = int(colours.max(initial=0))
    bits = said or transform.bits or 16
    if bits < 16 and peak < 2**bits:
        if alpha and values[..., -1].max() >= 2**bits:
            return np.dstack([_scaled(colours, bits), values[..., -1:]]), 0
        return _scaled(values, bits), 0
    return values, peak.bit_length() if not said and not transform.bits and 0 < peak < 2**MOST_UNSAID else 0


def _scaled(values: Samples, bits: int) -> Samples:
    most = 2**bits - 1
    return np.asarray(np.minimum((values.astype(np.uint32) * 65535 + most // 2) // most, 65535), np.uint16)


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
    """Return colours of 16 bits, of which Pillow unpacks but one byte: it is asked for each."""
    mode = _rawmode(image).split(";")[0]
    key = image.info.get("transparency")
    tiles = [tile._replace(args=_with_mode(tile.args, mode.replace("a", "A"))) for tile in image.tile]  # type: ignore[attr-defined]
    other = _again(content, image)
    other.tile = [tile._replace(args=_with_mode(tile.args, "", other=True)) for tile in tiles]  # type: ignore[attr-defined]
    image.tile = tiles  # type: ignore[attr-defined]
    bytes_ = []
    for one in (image, other):
        one.load()
        one.info.pop("transparency", None)
        bytes_.append(np.asarray(ImageOps.exif_transpose(one)))
    values = bytes_[0].astype(np.uint16) << 8 | bytes_[1]
    alpha = image.mode == "RGBA"
    keyed = isinstance(key, tuple) and not alpha
    if keyed:
        values = np.dstack([values, np.where((values == np.array(key)).all(axis=2), 0, 65535).astype(np.uint16)])
    said = _tiff_bits(image) if image.format == "TIFF" else _png_bits(content, values[..., :3])
    values, unsaid = _by_bits(values, alpha or keyed, said, transform)
    if mode == "RGBa":
        share = np.maximum(values[..., 3:].astype(np.uint32), 1)
        colours = np.minimum((values[..., :3].astype(np.uint32) * 65535 + share // 2) // share, 65535)
        values = np.dstack([colours.astype(np.uint16), values[..., 3:]])
    return values, alpha or keyed, unsaid


def _with_mode(args: Any, mode: str, other: bool = False) -> Any:
    """Return the arguments of a decoder with another raw mode, or with the other byte of each sample."""
    rawmode = args[0] if isinstance(args, tuple) else args
    name, _, order = rawmode.partition(";16")
    made = f"{mode or name};16{_OTHER_BYTE[order] if other else order}"
    return (made, *args[1:]) if isinstance(args, tuple) else made


def _again(content: bytes, image: Image.Image) -> Image.Image:
    assert image.format is not None
    return _by_libtiff(content) if getattr(image, "use_load_libtiff", False) else _opened(content, image.format)


def _opened(content: bytes, format_: str) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=[format_])


def _gray(content: bytes, image: Image.Image, turned: Image.Image, transform: Transform) -> tuple[Samples, bool, int]:
    """Return gray of more than 8 bits, whose range must be known."""
    values = np.asarray(turned)[:, :, None]
    if image.format == "TIFF":
        tags = _tags(image)
        if turned.mode in ("I", "F"):
            return _between(values, tags, turned.mode), False, 0
        values, unsaid = _by_bits(values.astype(np.uint16), False, _tiff_bits(image), transform)
        return (65535 - values if tags.get(_PHOTOMETRIC) == WHITE_IS_ZERO else values), False, unsaid
    if turned.mode == "F" or image.format not in ("PPM", "PNG"):
        raise _unknown_range(turned.mode)
    values = values.astype(np.uint16)
    if image.format == "PPM":  # scaled by the largest value that its header names
        return values, False, 0
    key = image.info.get("transparency")
    said = _png_bits(content, values)
    alpha = isinstance(key, int)
    if alpha:
        values = np.dstack([values, np.where(values == key, 0, 65535).astype(np.uint16)])
    values, unsaid = _by_bits(values, alpha, said, transform)
    return values, alpha, unsaid


def _between(values: Samples, tags: Any, mode: str) -> Samples:
    """Scale signed and float samples from the least to the most that the file says they may be."""
    least, most = (_number(tags.get(tag)) for tag in (_LEAST_S, _MOST_S))
    if most is None or (least or 0.0) >= most:
        raise _unknown_range(mode)
    share = (np.nan_to_num(values.astype(np.float64)) - (least or 0.0)) / (most - (least or 0.0))
    scaled = (share.clip(0, 1) * 65535).round().astype(np.uint16)
    return 65535 - scaled if tags.get(_PHOTOMETRIC) == WHITE_IS_ZERO else scaled


def _unknown_range(mode: str) -> Undecodable:
    return Undecodable("unsupported_mode", f"{mode}-mode pixels (32 bits a channel) have no known range")


def _number(value: Any) -> float | None:
    try:
        found = float(max(value) if isinstance(value, tuple) else value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _eight(content: bytes, image: Image.Image, turned: Image.Image, profile: bytes | None) -> tuple[Samples, bool]:
    """Return samples of up to 8 bits, gray or RGB, and whether alpha is behind."""
    if turned.mode in ("CMYK", "LAB"):
        turned = of_lab(turned) if turned.mode == "LAB" else _of_inks(turned, profile)
    mode = turned.mode
    if mode in ("LA", "La"):
        return np.asarray(turned.convert("LA")), True
    key = image.info.get("transparency")
    if mode in ("1", "L") and image.format == "PNG" and isinstance(key, int):
        gray = np.asarray(turned.convert("L"))
        most = 2 ** content[24] - 1
        hidden = gray == (key if mode == "1" else key * 255 // most)
        return np.dstack([gray, np.where(hidden, 0, 255).astype(np.uint8)]), True
    if mode in ("RGBA", "PA", "RGBa") or key is not None:
        return np.asarray(turned.convert("RGBA")), True
    if mode in ("1", "L"):
        return np.asarray(turned.convert("L"))[:, :, None], False
    return np.asarray(turned.convert("RGB")), False


def _of_inks(image: Image.Image, profile: bytes | None) -> Image.Image:
    return (of_cmyk(image, profile) if profile else image).convert("RGB")


# TIFF


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _checked(content: bytes, image: Image.Image) -> Image.Image:
    """Return a TIFF that Pillow opened as one whose pixels it reads right; raises Undecodable where it cannot."""
    tags = _tags(image)
    kinds = tags.get(_FORMAT, (1,))
    if max(kinds) == 2 and image.mode not in ("I", "F") and _number(tags.get(_MOST_S)) is None:
        raise Undecodable("unsupported_mode", "signed samples have no known range")
    if tags.get(_PLANAR) == 2 and tags.get(_PHOTOMETRIC) in (YCBCR, CIELAB):
        raise Undecodable("unsupported_mode", "planes of YCbCr and CIELab are not supported")
    odd = tags.get(_PLANAR) == 2 or tags.get(_FILL) == 2 or tags.get(_PHOTOMETRIC) == YCBCR
    if odd and not image.use_load_libtiff:  # type: ignore[attr-defined]
        image = _by_libtiff(content)
    if image.mode in ("P", "PA"):
        colours = _tags(image).get(_COLOURS, ())
        if colours and max(colours) < 256:  # written as 8 bits, by programs that did not read on
            image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    return image


def _by_libtiff(content: bytes) -> Image.Image:
    """Open a TIFF whose pixels libtiff reads, which it else does for compressed ones only."""
    before = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        return _opened(content, "TIFF")
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


def _tiff_bits(image: Image.Image) -> int | None:
    """Return how many bits of 16 are used, where a tag says so; other largest values are those of the picture."""
    tags = _tags(image)
    if (bits := max(tags.get(_BITS, (1,)))) < 16:
        return int(bits)
    for tag in (_MOST, _MOST_S, _WHITE_LEVEL):
        most = _number(tags.get(tag))
        if most is not None and most in (2**bits - 1 for bits in range(8, 17)):
            return int(most).bit_length()
    found = _OME_BITS.search(str(tags.get(_DESCRIPTION, "")))
    return int(found[1]) if found and 8 <= int(found[1]) <= 16 else None
