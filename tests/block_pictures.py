"""Pictures of noise with coloured blocks, which a detector learns at once, as COCO's files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("disc", "square")
COLOURS = ((220, 60, 60), (60, 90, 220))


def picture(random: np.random.Generator, wide: int = 96, high: int = 72) -> tuple[Image.Image, list[tuple[int, Any]]]:
    """Return a picture of noise with one to three coloured blocks, and these: classes and corners."""
    pixels = random.integers(90, 140, (high, wide, 3)).astype(np.uint8)
    found: list[tuple[int, Any]] = []
    for _ in range(int(random.integers(1, 4))):
        label, side = int(random.integers(2)), int(random.integers(16, 30))
        left, top = int(random.integers(0, wide - side)), int(random.integers(0, high - side))
        if any(left < x1 and x0 < left + side and top < y1 and y0 < top + side for _, (x0, y0, x1, y1) in found):
            continue
        pixels[top : top + side, left : left + side] = COLOURS[label]
        found.append((label, (left, top, left + side, top + side)))
    return Image.fromarray(pixels), found


def large(random: np.random.Generator, side: int, label: int) -> tuple[Image.Image, tuple[int, int, int]]:
    """Return a square picture of noise with one block of about half its side, and where that is: x, y and side."""
    pixels = random.integers(90, 140, (side, side, 3)).astype(np.uint8)
    block = int(random.integers(side * 2 // 5, side * 3 // 5))
    left, top = (int(random.integers(0, side - block)) for _ in range(2))
    pixels[top : top + block, left : left + block] = COLOURS[label]
    return Image.fromarray(pixels), (left, top, block)


def by_heart(root: Path, side: int, times: int, seed: int = 0) -> Path:
    """Return a folder as of ``coco`` of eight ``large`` pictures, in val once and in train so many times.

    Each epoch ends with a validation, so epochs of several steps take less time.
    """
    random = np.random.default_rng(seed)
    made = [large(random, side, number % len(CLASSES)) for number in range(8)]
    for split, copies in (("train", times), ("val", 1)):
        (root / split).mkdir(parents=True)
        images: list[Any] = []
        annotations: list[Any] = []
        for number in range(8 * copies):
            image, (x, y, block) = made[number % 8]
            name = f"{number:03}.png"
            image.save(root / split / name)
            images.append({"id": number, "file_name": name, "width": side, "height": side})
            annotations.append(
                {"id": number + 1, "image_id": number, "category_id": number % len(CLASSES) + 1,
                 "bbox": [x, y, block, block], "area": block * block, "iscrowd": 0}
            )  # fmt: skip
        categories = [{"id": at + 1, "name": name} for at, name in enumerate(CLASSES)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(whole))
    return root


def coco(root: Path, counts: dict[str, int], seed: int = 0, **more: Any) -> Path:
    """Return a folder with a COCO file and a folder of images for each split; ``more`` are lists of its JSON."""
    random = np.random.default_rng(seed)
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        images: list[Any] = []
        annotations: list[Any] = []
        for number in range(count):
            image, objects = picture(random)
            name = f"{split}{number:03}.png"
            image.save(root / split / name)
            images.append({"id": number, "file_name": name, "width": image.width, "height": image.height})
            for label, (x0, y0, x1, y1) in objects:
                box = [x0, y0, x1 - x0, y1 - y0]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box,
                     "area": box[2] * box[3], "iscrowd": 0}
                )  # fmt: skip
        categories = [{"id": at + 1, "name": name} for at, name in enumerate(CLASSES)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        for key, rows in more.items():
            whole[key] = [*whole[key], *rows]
        (root / f"{split}.json").write_text(json.dumps(whole))
    return root
