"""Results of hardly any size, made by a random generator: vectors, rows, numbers that are equal, zero or extreme."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from page_parser import harmless

from cvjobs.common.categories import Category
from cvjobs.images.masks import png, rle

Floats = npt.NDArray[np.float32]
Random = np.random.Generator

EXTREMES = (0.0, -0.0, 1.0, 1 - 2**-24, 2.0**-149, 2.0**-126, 1e-7, 0.5)


def vectors(random: Random, count: int, dim: int) -> Floats:
    """Vectors of which some are zero, equal, opposite, tiny or huge."""
    found = random.normal(size=(count, dim)).astype(np.float32)
    kinds = random.integers(0, 8, count)
    found[kinds == 0] = 0
    found[kinds == 1] = -0.0
    found[kinds == 2] = found[0]
    found[kinds == 3] = -found[0]
    found[kinds == 4] *= np.float32(1e-30)
    found[kinds == 5] *= np.float32(1e30)
    found[kinds == 6] = np.eye(dim, dtype=np.float32)[random.integers(0, dim, int((kinds == 6).sum()))]
    return found


def numbers(random: Random, count: int) -> list[float]:
    """Shares from 0 to 1: all equal, all zero, extreme, or plain ones."""
    kind = random.integers(0, 4)
    if kind == 0:
        return [float(random.choice(EXTREMES))] * count
    if kind == 1:
        return [0.0] * count
    if kind == 2:
        return [float(value) for value in random.choice(EXTREMES, count)]
    return [float(value) for value in random.random(count)]


def points(random: Random, count: int) -> list[tuple[float, float]]:
    """Points of a line in the order of x, some of them at one place, some beyond what a float can hold."""
    wild = [*EXTREMES, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 1e-300, 123456.0, -3.0]
    across = sorted(float(x) for x in random.choice([0.0, 1.0, 1.0, 2.0, 1e-12, 5e5, 1e300], count))
    up = numbers(random, count) if random.integers(2) else [float(y) for y in random.choice(wild, count)]
    return list(zip(across, up, strict=True))


def rows(random: Random, task: str, categories: Sequence[Category], count: int) -> list[dict[str, Any]]:
    """Results of a task for ``0.png``, ``1.png`` and so on, of 10x8 pixels; some failed."""
    found = []
    for number in range(count):
        row: dict[str, Any] = {"path": f"{number}.png", "width": 10, "height": 8}
        if not random.integers(4):
            found.append({**row, "error": "corrupt"})
        elif task == "classify":
            names = [category.name for category in random.permutation(np.array(categories, object))]
            scores = sorted(numbers(random, len(names)), reverse=True)
            top = [{"label": name, "score": score} for name, score in zip(names, scores, strict=True)]
            found.append({**row, "label": names[0], "score": scores[0], "top": top})
        elif task == "semantic":
            values = random.choice([category.id for category in categories], (8, 10) if random.integers(2) else (1, 1))
            pixels = np.broadcast_to(values, (8, 10)).astype(np.uint8)
            there = [category for category in categories if (pixels == category.id).any()]
            classes = [{"category_id": c.id, "label": c.name, "pixels": int((pixels == c.id).sum())} for c in there]
            found.append({**row, "class_map": png.encode(pixels), "classes": classes})
        else:
            found.append({**row, "detections": _detections(random, task, categories)})
    return found


def _detections(random: Random, task: str, categories: Sequence[Category]) -> list[dict[str, Any]]:
    count = int(random.choice([0, 1, 2, 5]))
    found = []
    for score in sorted(numbers(random, count), reverse=True):
        category = categories[int(random.integers(len(categories)))]
        x, y = int(random.integers(0, 10)), int(random.integers(0, 8))
        w, h = int(random.integers(0, 11 - x)), int(random.integers(0, 9 - y))
        box = {"x0": float(x), "y0": float(y), "x1": float(x + w), "y1": float(y + h)}
        mask = {"rle": rle.encode(np.ones((h, w), np.bool_), (y, x), (8, 10))} if task == "instance" else {}
        found.append({**box, "score": score, "category_id": category.id, "label": category.name, **mask})
    return found


def coco(random: Random, categories: Sequence[Category], count: int) -> dict[str, Any]:
    """Ground truth for the images of ``rows``, of hardly any objects."""
    images = [{"id": number + 1, "file_name": f"{number}.png", "width": 10, "height": 8} for number in range(count)]
    objects = []
    for number in range(int(random.choice([0, 1, 3])) if images else 0):
        x, y = int(random.integers(0, 10)), int(random.integers(0, 8))
        w, h = int(random.integers(0, 11 - x)), int(random.integers(0, 9 - y))
        objects.append(
            {
                "id": number + 1,
                "image_id": int(random.integers(1, count + 1)),
                "category_id": categories[int(random.integers(len(categories)))].id,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(not random.integers(4)),
            }
        )
    named = [{"id": category.id, "name": category.name} for category in categories]
    return {"images": images, "annotations": objects, "categories": named}


_NO_NUMBER = re.compile(r"(?<![\w/.-])-?(?:nan|inf|infinity)(?![\w/.-])|(?:nan|inf)%", re.IGNORECASE)
_ONE = re.compile(
    r"(?<![\w,./])1 (?:images|vectors|queries|classes|groups|rows|lines|epochs|neighbours|masks|detections|steps)\b"
)


def plain(text: str) -> None:
    """Fail where a text has a number that is none, or one of many things."""
    for line in text.splitlines():
        assert not _NO_NUMBER.search(line), line
        assert not _ONE.search(line), line


def strict(text: str) -> Any:
    """The value of a JSON text that has no NaN and no infinite number."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def left(folder: Path) -> None:
    """Look through the pages and JSON files of a folder."""
    for file in folder.rglob("*"):
        if file.suffix == ".json":
            strict(file.read_text())
        elif file.suffix == ".html":
            page = harmless(file.read_text())
            plain("\n".join(page.text))
            for _, attributes in page.elements:
                for name in ("d", "x", "y", "width", "height", "style", "cx", "cy", "x1", "y1"):
                    plain(attributes.get(name) or "")
