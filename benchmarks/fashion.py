"""Fashion-MNIST as an image folder, made once of Debian's package `dataset-fashion-mnist` (70,000 images, MIT).

python benchmarks/fashion.py [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import photos
from PIL import Image

PACKAGE = Path("/usr/share/datasets/fashion-mnist")
SPLITS = {"train": "train", "test": "t10k"}
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
HEADER = {3: 16, 1: 8}  # bytes before the values, by the number of dimensions
A_JOB = 1000

Bytes = npt.NDArray[np.uint8]


def folder(cache: Path, images: int | None = None) -> Path | None:
    """Return ``{train,test}/CLASS/NUMBER.png``, the first ``images`` of each split.

    Without the package it is None, and a line says so.
    """
    if not PACKAGE.is_dir():
        print("Fashion-MNIST is left out: install Debian's package dataset-fashion-mnist.", file=sys.stderr)
        return None
    made = cache / f"fashion-{images or 'all'}"
    if not made.is_dir():
        unfinished = cache / f".{made.name}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        with get_context("spawn").Pool() as processes:
            for split in SPLITS:
                pixels, labels = arrays(split)
                jobs = [
                    (unfinished / split, start, pixels[start:end], labels[start:end])
                    for start in range(0, images or len(labels), A_JOB)
                    for end in [min(start + A_JOB, images or len(labels))]
                ]
                for _ in processes.imap_unordered(_write, jobs):
                    continue
        unfinished.rename(made)
    return made


def arrays(split: str) -> tuple[Bytes, Bytes]:
    """Return the pixels, (n, 28, 28), and labels of a split as the package has them."""
    name = SPLITS[split]
    return _values(PACKAGE / f"{name}-images-idx3-ubyte.gz"), _values(PACKAGE / f"{name}-labels-idx1-ubyte.gz")


def _values(file: Path) -> Bytes:
    """Read a file of the IDX format: two zeros, the type, the number of dimensions, each of them, the values."""
    content = gzip.decompress(file.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=HEADER[dimensions]).reshape(shape)


def _write(job: tuple[Path, int, Bytes, Bytes]) -> None:
    place, start, pixels, labels = job
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True), start):
        file = place / CLASSES[label] / f"{number:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        os.utime(file, (photos.MODIFIED, photos.MODIFIED))


def main(arguments: Sequence[str] | None = None) -> Path | None:
    """Make the folder, and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=photos.default_cache(), help="where it is kept between runs")
    made = folder(parser.parse_args(arguments).cache)
    if made is not None:
        print(made)
    return made


if __name__ == "__main__":
    main()
