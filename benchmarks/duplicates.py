"""How well the score that `query --duplicates` measures tells altered copies from other images, beside a fixed 0.98.

python benchmarks/duplicates.py [--source FOLDER] [--model NAME] [--images N] [--copies N] [--cache FOLDER]

Of N images of a folder (default: generated photos) some get a copy that is smaller, compressed again, cropped by 5% on
each side or mirrored. Two images are a true pair where one is a copy of the other; precision and recall count pairs of
one group. A folder that has near-duplicates of its own has a lower precision by as many.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import photos
import pyarrow as pa
from PIL import Image, ImageOps
from table import Row, show

import cvjobs

FIXED = 0.98
MARK = "_copy"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
ALTERED: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: image.resize((max(2 * image.width // 3, 1), max(2 * image.height // 3, 1))),
    lambda image: image,
    lambda image: image.crop((image.width // 20, image.height // 20, image.width * 19 // 20, image.height * 19 // 20)),
    ImageOps.mirror,
)
QUALITIES = (90, 40, 90, 90)


def rows(source: Path, model: str, images: int, copies: int) -> list[Row]:
    """Measure with altered copies, and without any."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain = index(source, folder / "plain", model, images, 0)
        alone = cvjobs.query(plain, duplicates=True)
        mixed = index(source, folder / "mixed", model, images, copies)
        measured, fixed = cvjobs.query(mixed, duplicates=True), cvjobs.query(mixed, duplicates=True, min_score=FIXED)
    precision, recall = quality(measured.to_arrow(), copies)
    before = quality(fixed.to_arrow(), copies)
    what = f"{images:,} images, {copies:,} altered copies, {model}"
    raw = {
        "min_score": measured.min_score,
        "reason": measured.reason,
        "thresholds": measured.thresholds,
        f"precision and recall at {FIXED}": before,
    }
    print(measured)
    return [
        Row(what=f"{what}: precision", value=precision, unit="of 1", bound="≥", target=0.95, raw=raw),
        Row(what=f"{what}: recall", value=recall, unit="of 1", bound="≥", target=0.6),
        Row(
            what=f"{images:,} images without copies: share in groups",
            value=alone.members / images,
            unit="of 1",
            bound="≤",
            target=0.02,
        ),
    ]


def index(source: Path, folder: Path, model: str, images: int, copies: int) -> str:
    """Make the images and their copies, embed and index them."""
    chosen = sorted(path for path in source.rglob("*") if path.suffix.lower() in ENDINGS)
    chooser = random.Random(0)
    chooser.shuffle(chosen)
    (folder / "images").mkdir(parents=True)
    for number, path in enumerate(chosen[:images]):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.save(folder / f"images/{number:06}.jpg", quality=92)
        if number < copies:
            at = number % len(ALTERED)
            ALTERED[at](image).save(folder / f"images/{number:06}{MARK}.jpg", quality=QUALITIES[at])
    cvjobs.embed(folder / "images", folder / "vectors", model=model)
    cvjobs.index(folder / "vectors", out=folder / "index")
    return str(folder / "index")


def quality(found: pa.Table, copies: int) -> tuple[float, float]:
    """Return precision and recall of the pairs in the groups; the precision of none is 1."""
    groups: dict[int, list[str]] = {}
    for row in found.to_pylist():
        groups.setdefault(row["group"], []).append(Path(row["path"]).stem.removesuffix(MARK))
    pairs = [one == other for names in groups.values() for one, other in combinations(names, 2)]
    return sum(pairs) / max(len(pairs), 1) if pairs else 1.0, sum(pairs) / max(copies, 1)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 500)
    parser.add_argument("--source", type=Path, help="a folder of images (default: generated photos)")
    parser.add_argument("--model", default="thumbnail/8")
    parser.add_argument("--copies", type=int, default=50)
    options = parser.parse_args(arguments)
    source = options.source or photos.folder(options.images, options.cache)
    measured = rows(source, options.model, options.images, options.copies)
    show(measured)
    return measured


if __name__ == "__main__":
    main()
