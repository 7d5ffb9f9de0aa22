"""What COCO's files have in common: their images, their categories, and the sizes of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rles

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth.records import SHOWN, Record, column, ids, numbers
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.evaluation.metrics.objects import Floats, Id, Ints, Rle


def read_images(path: Path, images: list[Record]) -> tuple[list[Id], list[tuple[int, int]], list[str]]:
    """Return the ids of images, ascending, their (height, width), (0, 0) where none is given, and their file names."""
    known = ids(path, images, "image", "id")
    if len(set(known)) < len(known):
        raise BadTruth(path, None, "gives one id to several images")
    order = sorted(range(len(known)), key=lambda at: (isinstance(known[at], str), known[at]))
    height, width = (column(path, images, "image", side, np.int64, 0).tolist() for side in ("height", "width"))
    return (
        [known[i] for i in order],
        [(height[i], width[i]) for i in order],
        [_text(images[i].get("file_name")) for i in order],
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def read_categories(path: Path, records: Any) -> list[Category]:
    """Return categories in the order of the file, without a name where they have none; raises BadTruth."""
    if not isinstance(records, list):
        raise BadTruth(path, None, "has categories that are no list")
    found = numbers(path, records, "category", "id").tolist()
    return [Category(id_, _text(record.get("name"))) for id_, record in zip(found, records, strict=True)]


def categories_of(path: Path, records: Any, used: Ints) -> tuple[list[Category], list[str]]:
    """Return the categories by their ids, and what is to be said of them; of several with one id it is the last."""
    if records is None:
        return [Category(id_, "") for id_ in np.unique(used).tolist()], []
    last: dict[int, Category] = {}
    notes = []
    for category in read_categories(path, records):
        before = last.setdefault(category.id, category)
        if before.name != category.name:
            notes.append(
                f"the truth names category {category.id} {before.name[:SHOWN]!r} and {category.name[:SHOWN]!r}: "
                "the last name counts, as in COCO's API"
            )
        last[category.id] = category
    return [last[id_] for id_ in sorted(last)], notes


def sizes(masks: list[Rle]) -> Floats:
    """Return the number of pixels of masks (n,)."""
    return np.array(rles.area(masks) if masks else [], np.float64)
