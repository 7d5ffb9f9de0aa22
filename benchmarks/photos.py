"""The photos that the benchmarks read: N generated JPEGs of about 500×375 pixels and 40 KB, made once and kept.

python benchmarks/photos.py [--images N] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZES = ((500, 375), (375, 500), (500, 333), (500, 400))
QUALITY = 85
FILES_A_FOLDER = 500
# Long past, so that no run has to doubt a time stamp.
MODIFIED = 1_767_225_600


def default_cache() -> Path:
    """Return the folder that outlives a run: ``$XDG_CACHE_HOME/cvjobs-bench`` or ``~/.cache/cvjobs-bench``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvjobs-bench"


def add_options(parser: argparse.ArgumentParser, images: int) -> None:
    """Add ``--images`` with its default and ``--cache``."""
    parser.add_argument("--images", type=int, default=images, help=f"how many photos (default {images:,})")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where photos are kept between runs")


def tiny(count: int, cache: Path) -> Path:
    """Return a folder of ``count`` JPEGs of 64 pixels a side and about 1.5 kB, as a decoder likes them least."""
    made = cache / f"tiny-{count}"
    if not made.is_dir():
        unfinished = cache / f".tiny-{count}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        for number in range(count):
            path = unfinished / _name(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            corners = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(corners).resize((64, 64), Image.Resampling.BILINEAR).save(path)
            os.utime(path, (MODIFIED, MODIFIED))
        unfinished.rename(made)
    return made


def folder(count: int, cache: Path) -> Path:
    """Return a folder that holds exactly the first ``count`` photos; makes what is missing, reads all once."""
    made = cache / f"photos-{count}"
    if not made.is_dir():
        pool = cache / "photos"
        missing = [number for number in range(count) if not (pool / _name(number)).exists()]
        with get_context("spawn").Pool() as processes:
            for _ in processes.imap_unordered(_make, [(pool, number) for number in missing], chunksize=16):
                continue
        unfinished = cache / f".photos-{count}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        for number in range(count):
            link = unfinished / _name(number)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(pool / _name(number), link)
        unfinished.rename(made)
    for path in made.rglob("*.jpg"):  # into the page cache, so that no side pays for the disk
        path.read_bytes()
    return made


def _name(number: int) -> str:
    return f"{number // FILES_A_FOLDER:04d}/{number:07d}.jpg"


def _make(job: tuple[Path, int]) -> None:
    pool, number = job
    path = pool / _name(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(photo(number))
    os.utime(unfinished, (MODIFIED, MODIFIED))
    unfinished.rename(path)


def photo(number: int, quality: int = QUALITY) -> bytes:
    """Return the JPEG of that number: gradients, shapes, and noise that costs a decoder what foliage does."""
    rng = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    corners = Image.fromarray(rng.integers(40, 215, (2, 3, 3), dtype=np.uint8))
    picture = corners.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = int(rng.integers(5, width // 3)), int(rng.integers(5, height // 3))
        shape = (draw.ellipse, draw.rectangle)[int(rng.integers(2))]
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    grain = rng.normal(0, 4, (height, width, 1)).astype(np.float32)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(picture, np.float32) + grain + (np.asarray(coarse, np.float32)[..., None] - 128) / 10
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=quality)
    return content.getvalue()


def main(arguments: Sequence[str] | None = None) -> Path:
    """Make the photos, print where they are and how large, and return the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, 3000)
    options = parser.parse_args(arguments)
    made = folder(options.images, options.cache)
    sizes = [path.stat().st_size for path in made.rglob("*.jpg")]
    print(f"{len(sizes):,} photos of {np.mean(sizes) / 1000:.1f} KB on average in {made}")
    return made


if __name__ == "__main__":
    main()
