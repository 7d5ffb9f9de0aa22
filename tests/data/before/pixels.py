"""What ``tests/images/test_odd_pixels.py`` decodes again: odd images, and what they became, in ``pixels.zip``.

The archive was made by commit 98c811b, before there were other rules for pixels than the first. In a checkout of it
``.venv/bin/python tests/data/before/pixels.py`` makes it anew, with ``odd_pixels.py`` of the commit after.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from odd_pixels import odd_image, odd_photo, odd_png, odd_tiff, rgb_profile  # type: ignore[attr-defined]

from cvjobs.images.decode import Undecodable, decode  # type: ignore[attr-defined]  # both there in that commit
from cvjobs.images.transform import Transform

TRANSFORMS = [Transform(fit="native", pixel_rules=1), Transform(size=(8, 8), resize=10, pixel_rules=1)]


def images() -> list[bytes]:
    """Return what is decoded: images of every kind, and large ones with a profile that are decoded smaller."""
    made = [(odd_tiff, 60), (odd_png, 30), (odd_photo, 40), (odd_image, 10)]
    found = [kind(np.random.default_rng(seed)).content for kind, count in made for seed in range(count)]
    for seed in range(4):
        generator = np.random.default_rng(seed)
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        file = io.BytesIO()
        profile = rgb_profile("Display P3")
        small.resize((160, 120), Image.Resampling.BICUBIC).save(file, "JPEG", icc_profile=profile)
        found.append(file.getvalue())
    return found


def fate(content: bytes, transform: Transform) -> dict[str, Any]:
    """Return what became of an image: the shape and the hash of its pixels, or its error."""
    try:
        pixels = decode(content, transform, 1_000_000).pixels
    except Undecodable as error:
        return {"code": error.code}
    return {"shape": list(pixels.shape), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


if __name__ == "__main__":
    contents = images()
    fates = [[fate(content, transform) for transform in TRANSFORMS] for content in contents]
    libraries = {name: version(name) for name in ("pillow", "torch", "torchcodec")}
    with zipfile.ZipFile(Path(__file__).with_name("pixels.zip"), "w", zipfile.ZIP_LZMA) as file:
        file.writestr("fates.json", json.dumps({"libraries": libraries, "fates": fates}))
        for number, content in enumerate(contents):
            file.writestr(f"{number:03}", content)
