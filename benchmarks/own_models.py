"""How fast `cvjobs train` teaches a detector and a segmenter beside plain torchvision loops, and how good they become.

Speed is measured on photos with made-up boxes and masks; accuracy on folders that are given, with equal epochs.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from pathlib import Path
from statistics import harmonic_mean, mean
from typing import Any

import numpy as np
import photos
import pyarrow.parquet as pq
from PIL import Image
from processes import BENCHMARKS, Finished, run, threads, train
from table import Row, noisy

SIDE = 320
BOXES, CLASSES = 12, 3  # of an image
# The rates are those for 64 images; the loops have theirs for 4 and 8.
ALIKE = ("--weight-decay", "0.01", "--clip-grad", "1")
DETECTOR = ("--lr", "0.008", "--task", "detect", "--model", "fasterrcnn_resnet50_fpn", "--backbone", "mobilenet_v2")
SEGMENTER = ("--lr", "0.004", "--task", "segment", "--model", "torchvision/lraspp+mobilenet_v2")
FLIPPED = ("--scale-jitter", "1:1", "--color-jitter", "0")


def detector(quick: bool, cache: Path) -> list[Row]:
    """Return the row of the images per second of a detector's training beside a plain loop's."""
    source = _boxes(48 if quick else 160, cache)
    size = ("--side", str(SIDE), "--epochs", "3")
    loop = (*threads(), sys.executable, BENCHMARKS / "plain_detection.py", source, *size)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        out = Path(scratch, "run")
        before = run(*loop)
        ours = train(source, out, *DETECTOR, *ALIKE, *FLIPPED, "--img-size", str(SIDE), "--epochs", "3")
        after = run(*loop)
        return [_speed("Faster R-CNN on MobileNetV2", out, before, ours, after)]


def segmenter(quick: bool, cache: Path) -> list[Row]:
    """Return the row of the images per second of a segmenter's training beside a plain loop's."""
    source = _masks(48 if quick else 160, cache)
    size = ("--side", "240", "--epochs", "3")
    loop = (*threads(), sys.executable, BENCHMARKS / "plain_segmentation.py", source, *size)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        out = Path(scratch, "run")
        before = run(*loop)
        ours = train(source, out, *SEGMENTER, *ALIKE, "--void", "11", "--img-size", "240", "--epochs", "3")
        after = run(*loop)
        return [_speed("LR-ASPP on MobileNetV2", out, before, ours, after)]


def _speed(name: str, out: Path, before: Finished, ours: Finished, after: Finished) -> Row:
    history = pq.read_table(out / "history.parquet").to_pydict()
    speeds = {
        "plain": before.answer["images_per_second"],
        "ours": history["images_per_second"],
        "plain_after": after.answer["images_per_second"],
    }
    # The first epoch warms up: allocators, the workers of the loop.
    steady = {side: harmonic_mean(each[1:]) for side, each in speeds.items()}
    return Row(
        what=f"train {name} at {ours.answer['images']['train']:,} images: img/s ÷ plain torchvision loop",
        value=steady["ours"] / mean((steady["plain"], steady["plain_after"])),
        unit="×",
        bound="≥",
        target=1.0,
        noisy=noisy(steady["plain"], steady["plain_after"]),
        raw={side: [round(value, 2) for value in each] for side, each in speeds.items()},
    )


def cells(source: Path, epochs: int, cache: Path) -> list[Row]:
    """Return the AP50 of a detector on the val images of a COCO folder beside the plain loop's."""
    size = ("--side", str(SIDE), "--epochs", str(epochs))
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        out = Path(scratch, "run")
        ours = train(source, out, *DETECTOR, *ALIKE, *FLIPPED, "--img-size", str(SIDE), "--epochs", str(epochs))
        history = pq.read_table(out / "history.parquet").to_pydict()
    plain = run(*threads(), sys.executable, BENCHMARKS / "plain_detection.py", source, *size, "--ap").answer["ap"][1]
    raw: dict[str, Any] = {"plain": plain, "ours": history["AP50"], "seconds": round(ours.seconds)}
    what = f"Faster R-CNN on MobileNetV2, {source.name} at {SIDE}, {epochs} epochs: AP50 of the best"
    return [
        Row(what=f"{what} (plain loop {plain:.3f})", value=_best(history), unit="of 1", target=plain - 0.03, raw=raw),
        Row(what="the same: whole command", value=ours.seconds, unit="s", bound="≤", target=2400),
    ]


def _best(history: dict[str, list[float]]) -> float:
    return history["AP50"][max(range(len(history["metric"])), key=history["metric"].__getitem__)]


def streets(source: Path, epochs: int, cache: Path) -> list[Row]:
    """Return the mIoU of a segmenter on the val images of a folder of masks beside the plain loop's."""
    size = ("--side", "240", "--epochs", str(epochs))
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        own = ("--void", "11", "--img-size", "240", "--epochs", str(epochs))
        ours = train(source, Path(scratch, "run"), *SEGMENTER, *ALIKE, *own)
    plain = run(*threads(), sys.executable, BENCHMARKS / "plain_segmentation.py", source, *size).answer["miou"]
    raw = {"plain": plain, "seconds": round(ours.seconds)}
    what = f"LR-ASPP on MobileNetV2, {source.name} at 240, {epochs} epochs: mIoU (plain loop {plain:.3f})"
    return [Row(what=what, value=ours.answer["metric"], unit="of 1", target=plain, raw=raw)]


def _split(count: int, cache: Path) -> dict[str, list[Path]]:
    every = sorted(photos.folder(count + 8, cache).rglob("*.jpg"))[: count + 8]
    return {"train": every[:count], "val": every[count:]}


def _boxes(count: int, cache: Path) -> Path:
    """Return a folder of photos with made-up boxes as COCO has them."""
    made = cache / f"boxes-{count}"
    if made.is_dir():
        return made
    unfinished = cache / f".boxes-{count}-{os.getpid()}"
    drawn = random.Random(0)
    for split, paths in _split(count, cache).items():
        (unfinished / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for number, path in enumerate(paths, 1):
            os.link(path, unfinished / split / path.name)
            with Image.open(path) as image:
                width, height = image.size
            images.append({"id": number, "file_name": path.name, "width": width, "height": height})
            for _ in range(BOXES):
                wide, high = (drawn.uniform(0.05, 0.3) * side for side in (width, height))
                box = [drawn.uniform(0, width - wide), drawn.uniform(0, height - high), wide, high]
                own = {"id": len(objects) + 1, "image_id": number, "category_id": drawn.randrange(CLASSES) + 1}
                objects.append({**own, "bbox": box, "area": wide * high, "iscrowd": 0})
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        content = {"images": images, "annotations": objects, "categories": categories}
        (unfinished / f"{split}.json").write_text(json.dumps(content))
    unfinished.rename(made)
    return made


def _masks(count: int, cache: Path) -> Path:
    """Return a folder of photos whose masks are their brightness in eleven steps."""
    made = cache / f"masks-{count}"
    if made.is_dir():
        return made
    unfinished = cache / f".masks-{count}-{os.getpid()}"
    for split, paths in _split(count, cache).items():
        images, masks = unfinished / split / "images", unfinished / split / "masks"
        images.mkdir(parents=True)
        masks.mkdir()
        for path in paths:
            os.link(path, images / path.name)
            with Image.open(path) as image:
                classes = np.asarray(image.convert("L"), np.uint16) * 11 // 256
            Image.fromarray(classes.astype(np.uint8)).save(masks / f"{path.stem}.png")
    unfinished.rename(made)
    return made
