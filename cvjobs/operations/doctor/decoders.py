"""Whether each format that cvjobs reads is decoded, the same way as a job decodes it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from cvjobs.images import decode
from cvjobs.images.transform import Transform
from cvjobs.operations.doctor.finding import Finding

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
COLOUR = (200, 40, 90)
CLOSE = 12  # of 255: what lossy formats may change in a flat colour


def check() -> Iterator[Finding]:
    """Make a tiny image of each format and decode it."""
    good = []
    for name in FORMATS:
        why = _wrong(name)
        if why:
            fix = "Install Pillow and torchcodec anew: python -m pip install --force-reinstall pillow torchcodec."
            yield Finding.broken("decoders", f"{name} is not decoded ({why})", fix)
        else:
            good.append(name)
    if good:
        yield Finding.ok("decoders", f"{', '.join(good)} are decoded")
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception as error:  # noqa: BLE001 - one for another torch fails in many ways
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        fix = (
            "Install the torchcodec that belongs to this torch: https://github.com/meta-pytorch/torchcodec lists them."
        )
        yield Finding.warning("decoders", f"torchcodec does not load ({why}): decoding is slower", fix)


def _wrong(name: str) -> str:
    """Return what is wrong with decoding a format, empty for nothing."""
    try:
        file = io.BytesIO()
        Image.new("RGB", (32, 32), COLOUR).save(file, name)
        decoded = decode.decode(file.getvalue(), Transform(size=(32, 32), fit="exact"), 1 << 20)
    except Exception as error:  # noqa: BLE001 - after any error the format is not decoded
        return f"{type(error).__name__}: {error}".split("\n", 1)[0]
    difference = np.abs(np.asarray(decoded.pixels, np.int16) - np.array(COLOUR, np.int16)).max()
    return "" if difference <= CLOSE else f"its colours are off by {difference}"
