"""The images of the GPU's benchmark: few that differ, made once, and hard links to them by the thousand."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import photos
from PIL import Image

CLASSES = 10
QUALITY = 98  # JPEGs of about 100 kB
SMALL = 32
VALIDATED = 20  # of so many images one is for validation


def large(different: int, cache: Path) -> list[Path]:
    """Return so many JPEGs of about 500x375 pixels and 100 kB."""
    return _made("large", different, cache, lambda number: photos.photo(number, QUALITY))


def small(different: int, cache: Path) -> list[Path]:
    """Return so many JPEGs of 32x32 pixels."""
    return _made("small", different, cache, _small)


def _small(number: int) -> bytes:
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((SMALL, SMALL), Image.Resampling.BICUBIC).save(content, "JPEG", quality=95)
    return content.getvalue()


def _made(kind: str, different: int, cache: Path, content: Callable[[int], bytes]) -> list[Path]:
    pool = cache / f"gpu-{kind}"
    pool.mkdir(parents=True, exist_ok=True)
    found = [pool / f"{number:06d}.jpg" for number in range(different)]
    for number, path in enumerate(found):
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(content(number))
            os.utime(unfinished, (photos.MODIFIED, photos.MODIFIED))
            unfinished.rename(path)
    return found


def folder(images: Sequence[Path], count: int, to: Path) -> Path:
    """Return a folder of ``count`` links to some images, a hundred in each folder."""
    for number in range(count):
        _link(images[number % len(images)], to / f"{number // 100:04d}" / f"{number:06d}.jpg")
    return to


def classes(images: Sequence[Path], count: int, to: Path) -> Path:
    """Return a folder with ``count`` links in classes below train, and other images below val."""
    held = max(len(images) // VALIDATED, 2)
    train, val = images[held:], images[:held]
    for split, chosen, wanted in (("train", train, count), ("val", val, max(count // VALIDATED, 2))):
        for number in range(wanted):
            one = number % len(chosen)
            _link(chosen[one], to / split / f"class{one % CLASSES}" / f"{number:06d}.jpg")
    return to


def _link(image: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.link(image, to)
