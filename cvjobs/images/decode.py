"""From the bytes of one image to upright RGB pixels at a model's size; runs in the decode children.

Every way an image can be bad ends in ``Undecodable`` with a code of ``failures.CODES``.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import warnings
from dataclasses import dataclass
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
from cvjobs.images import colour_space, image_samples, tiff
from cvjobs.images.colour import Pixels as Pixels  # noqa: PLC0414 - what decoders return
from cvjobs.images.colour import eight_bits, of_cmyk, on_white, shown
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable as Undecodable  # noqa: PLC0414 - and raise

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
_NO_MEMORY = re.compile(r"bad_alloc|(out of|not enough|insufficient) memory|(cannot|can't|failed to) allocate", re.I)
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind the first
_NATIVE = {"JPEG": "decode_jpeg", "MPO": "decode_jpeg", "PNG": "decode_png", "WEBP": "decode_webp"}
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    **{f"P{n}".encode(): "PPM" for n in "123456fF"},
}
_OTHER = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"\0\0\x01\0": "Windows icon",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"DDS ": "DirectDraw surface",
    b"icns": "Apple icon",
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"P7": "PAM",
}


@dataclass(frozen=True)
class Decoded:
    """Pixels as a model takes them, uint8 (height, width, 3), and facts of the source.

    ``width`` and ``height`` are of the upright source image in pixels; ``frames`` counts frames or pages;
    ``unsaid_bits`` suffice for its 16-bit samples, where nothing says how many are used, else 0.
    """

    pixels: Pixels
    width: int
    height: int
    frames: int
    unsaid_bits: int = 0


def decode(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Decode the first frame, upright, RGB on white, and bring it to ``transform.size``.

    Nothing is decoded before the header's pixel count is checked against ``max_pixels``. A JPEG is decoded at a
    DCT scale of 1/2, 1/4 or 1/8 while its shorter side stays at least twice the resize target. 16-bit values are
    scaled, not clipped. Raises Undecodable.
    """
    try:
        return _decode(content, transform, max_pixels)
    except MemoryError as error:
        raise Undecodable("decode_memory", "decoding needs more memory than one image may take") from error
    except Undecodable:
        raise
    except Exception as error:  # decoders raise whatever comes to their mind
        raise Undecodable(*_reason(error)) from error


def _decode(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    format_ = sniff(content)
    if format_ == "HEIF":
        _check_size(*_heif_size(content), max_pixels)
        values = _native("decode_heic", content, "RGB_ALPHA", "uint8")
        pixels = (
            on_white(values) if _first(transform) else shown(values, True, colour_space.of_boxes(content), transform)
        )
        _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
        return Decoded(fit(pixels, transform), pixels.shape[1], pixels.shape[0], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # checked below, against the limit the user chose
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        if format_ == "TIFF" and not _first(transform) and (page := tiff.opened(content)):
            _check_size(page.width, page.height, max_pixels)
            pixels, unsaid = page.pixels(transform)
            return Decoded(fit(pixels, transform), pixels.shape[1], pixels.shape[0], page.frames, unsaid)
        with _open(content, format_) as image:
            _check_size(image.width, image.height, max_pixels)
            frames = int(getattr(image, "n_frames", 1))
            full = _draft(image, transform.target)
            found = None if full else _native_pixels(content, image, frames, transform)
            pixels, unsaid = _pillow_pixels(content, image, transform) if found is None else found
            turned = full is not None and image.getexif().get(0x0112) in (5, 6, 7, 8)
    height, width = pixels.shape[:2]
    if full:
        width, height = full[::-1] if turned else full
    return Decoded(fit(pixels, transform), width, height, frames, unsaid)


def sniff(content: bytes) -> str:
    """Return the format by its first bytes; raises Undecodable for what is no image or not supported."""
    for magic, name in _OTHER.items():
        if content.startswith(magic):
            raise Undecodable("unsupported_format", f"{name} images are not supported")
    for magic, name in _MAGIC.items():
        if content.startswith(magic):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        brands = content[8 : int.from_bytes(content[:4], "big")]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")):
            return "HEIF"
    raise Undecodable("not_an_image", "the content begins like no kind of image that is known here")


def _heif_size(content: bytes) -> tuple[int, int]:
    """Return the largest size (pixels) among the `ispe` boxes, which size the image and the tiles of its grid."""
    boxes = re.findall(rb"ispe\0{4}(.{8})", content[:HEIF_HEADER], re.DOTALL)
    sizes = (struct.unpack(">II", box) for box in boxes)
    return max(sizes, key=lambda size: size[0] * size[1], default=(1, 1))


def _open(content: bytes, format_: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        if format_ == "TIFF":
            raise Undecodable(
                "unsupported_mode", "this kind of TIFF is not supported, or its header is damaged"
            ) from error
        raise Undecodable("corrupt", f"the header of this {format_} is damaged or cut short") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise Undecodable("too_many_pixels", f"{width} x {height} pixels are more than {max_pixels:,} (--max-pixels)")
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
        if _NO_MEMORY.search(str(error)):
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
    if turned.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return on_white(np.asarray(turned.convert("RGBA")))
    return np.asarray(turned.convert("RGB"))


def fit(pixels: Pixels, transform: Transform) -> Pixels:
    """Resize with antialiasing and crop the centre; uint8 (height, width, 3) to ``transform.size``.

    The arithmetic of the sizes is torchvision's: the longer side is truncated, the crop's offset rounded; where
    the image is smaller than the crop it is padded with black. Without ``transform.size`` nothing is cropped.
    """
    if transform.fit == "native":
        return pixels
    height, width = pixels.shape[:2]
    if transform.fit == "exact" and transform.size:
        size = transform.size
    elif width <= height:
        size = (int(transform.resize * height / width), transform.resize)
    else:
        size = (transform.resize, int(transform.resize * width / height))
    pixels = _resize(pixels, (max(size[0], 1), max(size[1], 1)), transform.interpolation)
    return _crop(pixels, transform.size) if transform.size else pixels


def _resize(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == "lanczos":
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    import torch

    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    smooth = {} if interpolation == "nearest" else {"antialias": True, "align_corners": False}
    resized = torch.nn.functional.interpolate(tensor, size=size, mode=interpolation, **smooth)
    return resized[0].permute(1, 2, 0).numpy()


def _crop(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = size
    missing = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if any(missing):
        before = missing[0] // 2, missing[1] // 2
        after = missing[0] - before[0], missing[1] - before[1]
        pixels = np.pad(pixels, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
    top = round((pixels.shape[0] - height) / 2.0)
    left = round((pixels.shape[1] - width) / 2.0)
    return pixels[top : top + height, left : left + width]


def _reason(error: BaseException) -> tuple[str, str]:
    """Return the code and detail of a decoder's exception.

    What a decoder says is looked at and never passed on: it may repeat bytes of the file, which may be any file.
    """
    text = str(error)
    lower = text.lower()
    if _NO_MEMORY.search(text):
        return "decode_memory", "decoding needs more memory than there is for one image"
    if "no native decoder" in lower or "libheif" in lower:
        return "unsupported_format", "this system cannot read HEIC"
    if any(
        word in lower for word in ("truncated", "premature", "incomplete", "not enough image data", "unexpected end")
    ):
        return "truncated", "the file ends before its picture does"
    if "unknown pixel mode" in lower or "unsupported" in lower or ("decoder" in lower and "not available" in lower):
        return "unsupported_mode", "its kind of pixels or of compression is not supported"
    return "corrupt", f"the decoder cannot read it ({type(error).__name__})"
