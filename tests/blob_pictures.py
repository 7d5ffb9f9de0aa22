"""Pictures of noise with coloured discs and squares and their masks, as COCO's files and YOLO's polygons have them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rles
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("disc", "square")
COLOURS = ((220, 60, 60), (60, 90, 220))
WIDE, HIGH = 96, 72
Blob = tuple[int, list[float]]  # a class and the points of its polygon


def mask_of(polygon: list[float]) -> NDArray[np.uint8]:
    """Return the pixels of a polygon by COCO's code, uint8 (HIGH, WIDE)."""
    found: NDArray[np.uint8] = rles.decode(rles.merge(rles.frPyObjects([polygon], HIGH, WIDE)))
    return found


def picture(random: np.random.Generator) -> tuple[Image.Image, list[Blob]]:
    """Return a picture with one to three blobs that do not touch, and these."""
    pixels = random.integers(90, 140, (HIGH, WIDE, 3)).astype(np.uint8)
    taken = np.zeros((HIGH, WIDE), bool)
    found: list[Blob] = []
    for _ in range(int(random.integers(1, 4))):
        label, side = int(random.integers(2)), float(random.integers(18, 30))
        x, y = (float(random.integers(int(side) // 2, length - int(side) // 2)) for length in (WIDE, HIGH))
        corners = 24 if label == 0 else 4
        turn = [2 * math.pi * (at + 0.5 * label) / corners for at in range(corners)]
        radius = side / 2 if label == 0 else side / math.sqrt(2)
        polygon = [round(value, 3) for a in turn for value in (x + radius * math.cos(a), y + radius * math.sin(a))]
        inside = mask_of(polygon) > 0
        if not inside.any() or (taken & inside).any():
            continue
        taken |= inside
        pixels[inside] = COLOURS[label]
        found.append((label, polygon))
    return Image.fromarray(pixels), found


def coco(root: Path, counts: dict[str, int], seed: int = 0, *, lengths: bool = False, **more: Any) -> Path:
    """Return a folder with a COCO file and a folder of images for each split; with run ``lengths`` for polygons.

    ``more`` are lists of its JSON.
    """
    random = np.random.default_rng(seed)
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        images: list[Any] = []
        annotations: list[Any] = []
        for number in range(count):
            image, blobs = picture(random)
            name = f"{split}{number:03}.png"
            image.save(root / split / name)
            images.append({"id": number, "file_name": name, "width": WIDE, "height": HIGH})
            for label, polygon in blobs:
                mask = rles.encode(np.asfortranarray(mask_of(polygon)))
                counted = {"size": [HIGH, WIDE], "counts": mask["counts"].decode()}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                     "bbox": rles.toBbox(mask).tolist(), "area": float(rles.area(mask)),
                     "segmentation": counted if lengths else [polygon]}
                )  # fmt: skip
        categories = [{"id": at + 1, "name": name} for at, name in enumerate(CLASSES)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        for key, rows in more.items():
            whole[key] = [*whole[key], *rows]
        (root / f"{split}.json").write_text(json.dumps(whole))
    return root


def yolo(root: Path, data: Path) -> Path:
    """Return a folder of YOLO's polygons with the images of a folder of ``coco``."""
    for file in sorted(data.glob("*.json")):
        whole = json.loads(file.read_text())
        for place in ("images", "labels"):
            (root / file.stem / place).mkdir(parents=True)
        for image in whole["images"]:
            name = image["file_name"]
            (root / file.stem / "images" / name).write_bytes((data / file.stem / name).read_bytes())
            lines = []
            for one in (one for one in whole["annotations"] if one["image_id"] == image["id"]):
                points = np.array(one["segmentation"][0]).reshape(-1, 2) / (WIDE, HIGH)
                lines.append(" ".join(map(str, [one["category_id"] - 1, *points.ravel().tolist()])))
            (root / file.stem / "labels" / f"{name[:-4]}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"names: {list(CLASSES)}\n")
    return root
