"""From the bytes of one image to upright RGB pixels at a model's size; runs in the decode children.

Every way an image can be bad ends in ``Undecodable`` with a code of ``failures.CODES``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import struct
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (  # the plugins register their formats when imported; only these are ever opened
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from cvjobs.common import rules
from cvjobs.images import (
    colour_space,
    heif_items,
    image_samples,
    jpeg_processes,
    orientation,
    resizing,
    tiff,
    truncated_images,
)
from cvjobs.images.colour import eight_bits, of_cmyk, on_white, shown
from cvjobs.images.first_frame.by_format import find, lighter
from cvjobs.images.first_frame.layout import PROFILE, Layout
from cvjobs.images.magic_bytes import sniff
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

Found = tuple[Pixels, int]  # and ``Decoded.unsaid_bits``

HEIF_HEADER = 4 << 20
MAX_SIDE = 65_535
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    AvifImagePlugin.AvifImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind the first
_NATIVE = {"JPEG": "decode_jpeg", "MPO": "decode_jpeg", "PNG": "decode_png", "WEBP": "decode_webp"}
_ENDINGS = 3  # that a picture without its end is tried with


@dataclass(frozen=True)
class Decoded:
    """Pixels as a model takes them, uint8 (height, width, 3), and facts of the source.

    ``width`` and ``height`` are of the upright source image in pixels; ``frames`` counts the frames or pages that the
    file has, or, where it is damaged, those that are found. Of one that is ``truncated`` only a part could be read.
    ``unsaid_bits`` suffice for its 16-bit samples, where nothing says how many are used, else 0.
    """

    pixels: Pixels
    width: int
    height: int
    frames: int
    truncated: bool = False
    unsaid_bits: int = 0


def decode(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Decode the first frame, upright, RGB on white, and bring it to ``transform.size``.

    Nothing is decoded before the header's pixel count is checked against ``max_pixels``. A JPEG is decoded at a
    DCT scale of 1/2, 1/4 or 1/8 while its shorter side stays at least twice the resize target. 16-bit values are
    scaled, not clipped. Damage behind the first frame, or in metadata, costs nothing. Raises Undecodable.
    """
    format_ = sniff(content)
    content = lighter(content, format_)
    try:
        return _named(content, format_, transform, max_pixels)
    except Undecodable as error:
        if format_ == "JPEG" and error.code in ("corrupt", "truncated") and (kind := jpeg_processes.unread(content)):
            raise Undecodable(*kind) from error
        layout = find(content, format_) if error.code in ("corrupt", "truncated", "unsupported_mode") else None
        if layout is None:
            raise
        if not layout.cut and layout.content != content:
            with contextlib.suppress(Undecodable):
                found = _named(layout.content, format_, transform, max_pixels)
                return replace(found, frames=layout.frames or found.frames)
        if not layout.cut and error.code != "truncated":
            raise
        cause = error.__cause__
    if (decoded := _unfinished(layout, format_, transform, max_pixels)) is None:
        raise Undecodable("truncated", truncated_images.CUT) from cause
    return decoded


def _unfinished(layout: Layout, format_: str, transform: Transform, max_pixels: int) -> Decoded | None:
    """Return a first picture that is cut: all of it where no pixel needs what is missing, a part where asked for."""
    if not layout.endings:
        return _readable(layout, format_, transform, max_pixels) if transform.truncated == "use" else None
    native = replace(transform, size=None, fit="native")
    tries: list[Decoded] = []
    for end in layout.endings:
        with contextlib.suppress(Undecodable):
            tries.append(_named(layout.content + end, format_, native, max_pixels))
        if len(tries) == _ENDINGS:
            break
    if len(tries) < 2:
        return None
    first, others = tries[0], [other.pixels for other in tries[1:]]
    whole = not layout.refined and all(np.array_equal(first.pixels, other) for other in others)
    if not whole:
        used = first.pixels if format_ in _JPEG else truncated_images.grayed(first.pixels, others)
        if transform.truncated != "use" or truncated_images.is_gray(used):
            return None
    if whole or format_ in _JPEG:  # libjpeg itself leaves gray what it has not
        found = _named(layout.content + layout.endings[0], format_, transform, max_pixels)
    else:
        found = replace(first, pixels=_fitted(used, transform, max_pixels))
    return replace(found, frames=layout.frames or found.frames, truncated=not whole)


def _readable(layout: Layout, format_: str, transform: Transform, max_pixels: int) -> Decoded | None:
    """Return what Pillow can read of a picture that is cut."""

    def opened() -> Image.Image:
        image = _open(layout.content, format_)
        _check_size(image.width, image.height, max_pixels)
        return image

    def pixels_of(image: Image.Image) -> Pixels:
        return _pillow_pixels(layout.content, image, transform)[0]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = truncated_images.readable(
                opened, pixels_of, lambda image: orientation.said(image, transform.pixel_rules)
            )
    except Exception:  # noqa: BLE001 - decoders raise whatever comes to their mind
        return None
    if truncated_images.is_gray(pixels):
        return None
    height, width = pixels.shape[:2]
    return Decoded(_fitted(pixels, transform, max_pixels), width, height, layout.frames or 1, truncated=True)


def _named(content: bytes, format_: str, transform: Transform, max_pixels: int) -> Decoded:
    try:
        return _decode(content, format_, transform, max_pixels)
    except MemoryError as error:
        raise Undecodable("decode_memory", "decoding needs more memory than one image may take") from error
    except Undecodable:
        raise
    except Exception as error:  # decoders raise whatever comes to their mind
        raise Undecodable(*truncated_images.reason(error)) from error


def _decode(content: bytes, format_: str, transform: Transform, max_pixels: int) -> Decoded:
    if format_ == "HEIF":
        _check_size(*_heif_size(content), max_pixels)
        seen = content if _first(transform) else heif_items.primary_alone(content)
        values = _native("decode_heic", seen, "RGB_ALPHA", "uint8")
        pixels = (
            on_white(values) if _first(transform) else shown(values, True, colour_space.of_boxes(content), transform)
        )
        _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
        return Decoded(_fitted(pixels, transform, max_pixels), pixels.shape[1], pixels.shape[0], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # checked below, against the limit the user chose
        PngImagePlugin.MAX_TEXT_CHUNK = PROFILE
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        if format_ == "TIFF" and not _first(transform) and (page := tiff.opened(content)):
            _check_size(page.width, page.height, max_pixels)
            pixels, unsaid = page.pixels(transform)
            size, fitted = pixels.shape[:2], _fitted(pixels, transform, max_pixels)
            return Decoded(fitted, size[1], size[0], page.frames, unsaid_bits=unsaid)
        with _open(content, format_) as image:
            _check_size(image.width, image.height, max_pixels)
            many = tiff.pages(content) if format_ == "TIFF" and not _first(transform) else None
            frames = many or int(getattr(image, "n_frames", 1))
            full = _draft(image, transform.target)
            hidden = not _first(transform) and orientation.is_late(image, content)
            found = None if full or hidden else _native_pixels(content, image, frames, transform)
            pixels, unsaid = _pillow_pixels(content, image, transform) if found is None else found
            turned = full is not None and orientation.said(image, transform.pixel_rules) in orientation.ON_ITS_SIDE
    height, width = pixels.shape[:2]
    if full:
        width, height = full[::-1] if turned else full
    return Decoded(_fitted(pixels, transform, max_pixels), width, height, frames, unsaid_bits=unsaid)


def _fitted(pixels: Pixels, transform: Transform, max_pixels: int) -> Pixels:
    height, width = resizing.resized(pixels.shape[0], pixels.shape[1], transform)
    if transform.size is None and height * width > max_pixels:
        raise Undecodable(
            "too_many_pixels",
            f"resized to {width} x {height} it has more than {max_pixels:,} pixels (--max-pixels)",
        )
    return resizing.fit(pixels, transform)


def _heif_size(content: bytes) -> tuple[int, int]:
    """Return the largest size (pixels) among the `ispe` boxes, which size the image and the tiles of its grid."""
    boxes = re.findall(rb"ispe\0{4}(.{8})", content[:HEIF_HEADER], re.DOTALL)
    sizes = (struct.unpack(">II", box) for box in boxes)
    return max(sizes, key=lambda size: size[0] * size[1], default=(1, 1))


def _open(content: bytes, format_: str) -> Image.Image:
    if format_ == "JPEG":  # without asking each plugin in turn
        with contextlib.suppress(Exception):  # which ``Image.open`` names
            return JpegImagePlugin.jpeg_factory(io.BytesIO(content))
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        if format_ == "TIFF":
            raise Undecodable(
                "unsupported_mode", "this kind of TIFF is not supported, or its header is damaged"
            ) from error
        raise Undecodable("corrupt", f"the header of this {format_} is damaged or cut short") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Undecodable("too_many_pixels", f"{width} x {height} pixels are more than {max_pixels:,} (--max-pixels)")
    if max(width, height) > MAX_SIDE:
        raise Undecodable("too_many_pixels", f"{width} x {height} pixels: a side may have at most {MAX_SIDE:,}")
    if width < 1 or height < 1:
        raise Undecodable("corrupt", f"the header claims {width} x {height} pixels")


def _draft(image: Image.Image, target: int) -> tuple[int, int] | None:
    """Set a JPEG to be decoded smaller where that keeps twice the target; return its full size, else None."""
    if image.format not in _JPEG or image.mode not in ("RGB", "L") or target <= 0:
        return None
    scale = next((s for s in (8, 4, 2) if min(image.size) >= 2 * target * s), 1)
    if scale == 1:
        return None
    full = image.size
    image.draft("RGB", (full[0] // scale, full[1] // scale))
    return full


def _first(transform: Transform) -> bool:
    return transform.pixel_rules == rules.FIRST


def _native_pixels(content: bytes, image: Image.Image, frames: int, transform: Transform) -> Found | None:
    """Decode with TorchCodec what it decodes well, None for the rest; it applies the EXIF orientation itself."""
    name = _NATIVE.get(image.format or "")
    if name is None or (frames > 1 and image.format not in _JPEG) or image.mode == "CMYK":
        return None
    alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    deep = image.format == "PNG" and content[24:25] == b"\x10"
    try:
        pixels = _native(name, content, "RGB_ALPHA" if alpha else "RGB", "auto" if deep else "uint8")
    except RuntimeError as error:
        if truncated_images.NO_MEMORY.search(str(error)):
            raise
        return None  # Pillow decides: it reads some that TorchCodec does not, and names the fault of the rest
    if _first(transform):
        return on_white(pixels) if alpha else eight_bits(pixels), 0
    return image_samples.native(content, image, pixels, transform)


def _native(name: str, content: bytes, mode: str, dtype: str) -> npt.NDArray[Any]:
    import torch

    decoder = getattr(_torchcodec(), name, None)
    if decoder is None:
        if name != "decode_jpeg":
            raise RuntimeError("no native decoder for this format is installed")
        from torchvision.io import ImageReadMode, decode_jpeg

        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        tensor = decode_jpeg(data, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    else:
        tensor = decoder(content, mode=mode, output_dtype="auto" if dtype == "auto" else torch.uint8)
    if tensor.ndim == 4:
        tensor = tensor[0]
    return tensor.permute(1, 2, 0).numpy()  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _torchcodec() -> ModuleType | None:
    """Return TorchCodec's decoders, None where it is too old to have image decoders or does not fit this torch."""
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError):
        return None
    return decoders if hasattr(decoders, "decode_jpeg") else None


def prepare() -> None:
    """Import and warm up what decoding needs, before children are forked; uses a single thread."""
    import torch

    torch.set_num_threads(1)
    sample = torch.zeros((1, 3, 8, 8), dtype=torch.uint8)
    torch.nn.functional.interpolate(sample, size=(4, 4), mode="bilinear", antialias=True)
    if _torchcodec() is None:
        importlib.import_module("torchvision.io")


def _pillow_pixels(content: bytes, image: Image.Image, transform: Transform) -> Found:
    """Decode with Pillow: orientation, 16 bits, CMYK by its profile, alpha on white."""
    return (_first_pixels(image), 0) if _first(transform) else image_samples.pillow(content, image, transform)


def _first_pixels(image: Image.Image) -> Pixels:
    """Decode with Pillow by the first rules."""
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16") or (turned.mode == "I" and image.format in ("PPM", "PNG")):
        gray = eight_bits(np.asarray(turned).astype(np.uint16))
        return np.repeat(gray[:, :, None], 3, axis=2)
    if turned.mode in ("I", "F"):
        raise Undecodable("unsupported_mode", f"{turned.mode}-mode pixels (32 bits a channel) have no known range")
    if turned.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        turned = of_cmyk(turned, profile)
    if turned.mode == "La":  # which converts to nothing else
        turned = turned.convert("LA")
    if turned.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return on_white(np.asarray(turned.convert("RGBA")))
    return np.asarray(turned.convert("RGB"))
