"""Outputs to export: boxes and masks, in images of any names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.images.masks import rle

CLASSES = [Category(1, "cat"), Category(18, "=dog"), Category(90, "b,\n\"c'")]
NAMES = {c.id: c.name for c in CLASSES}
STRANGE = [
    "z.jpg",
    "<script>alert(1)</script>.png",
    'a "quoted", one.jpg',
    "new\nline.jpg",
    "=1+1.jpg",
    "@SUM(A1).jpg",
    "-2+3.jpg",
    "é/日本 語.jpg",
    "bad\\xff\\x5cbytes.jpg",
    "../../../up.jpg",
    "/absolute/./twice//one.jpg",
    "s3://bucket/key.jpg",
    "a/.hidden.jpg",
    "'quoted.jpg",
    " \t=2.jpg",
]


def found(number: int, count: int) -> list[dict[str, Any]]:
    """Boxes within 640x480 that float32 cannot hold as they are written here."""
    random = np.random.default_rng(number)
    boxes = []
    for _ in range(count):
        (x0, x1), (y0, y1) = np.sort(random.random(2)) * 640, np.sort(random.random(2)) * 480
        id_ = CLASSES[random.integers(3)].id
        boxes.append({"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": random.random()})
        boxes[-1] |= {"category_id": id_, "label": NAMES[id_]}
    return boxes


def masked(number: int) -> list[dict[str, Any]]:
    """The same with masks, none of which fills its box."""
    objects = found(number, 3)
    for at, one in enumerate(objects):
        mask = np.random.default_rng((number, at)).random((20, 30)) > 0.5
        one["rle"] = rle.encode(mask, (5 * at, 7), (480, 640))
    return objects


def read(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of an output by path."""
    return {row["path"]: row for row in cvjobs.open(str(out)).to_arrow().to_pylist()}


def boxes(place: Path) -> Path:
    """An output of images with strange names, every third without a box, and one that failed."""
    rows: list[dict[str, Any]] = [
        {"path": path, "width": 640, "height": 480, "detections": found(n, n % 3), "id": n, "=note": f"+{n}"}
        for n, path in enumerate(STRANGE)
    ]
    carried = pa.schema([("id", pa.int64()), ("=note", pa.string())])
    rows.append({"path": "broken.jpg", "error": "corrupt"})
    return output(place, "detect", CLASSES, rows, carried=carried)


def masks(place: Path) -> Path:
    """An output of four images with three masks each."""
    rows = [{"path": f"{n}.jpg", "width": 640, "height": 480, "detections": masked(n)} for n in range(4)]
    return output(place, "instance", CLASSES, rows)
