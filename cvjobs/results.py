"""The columns that detection, segmentation and classification add to a row, and how a reader tells them apart.

A job's facts hold ``task`` (``detect``, ``instance``, ``semantic`` or ``classify``) and ``categories``, the classes
that its model knows, in the model's order; both are in the snapshot and in every Parquet file's ``cvjobs.facts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

DETECTIONS = "detections"
CLASS_MAP = "class_map"
CLASSES = "classes"
BACKGROUND = "__background__"  # what a class map has where there is nothing to see, by the name in the weights

_BOX = [pa.field(name, pa.float32()) for name in ("x0", "y0", "x1", "y1", "score")]
_CLASS = [pa.field("category_id", pa.int32()), pa.field("label", pa.string())]

# Boxes in pixels of the upright image, x to the right and y down from its upper left corner; best score first.
DETECTION = pa.struct([*_BOX, *_CLASS])
# ``rle`` is the compressed run-length string of COCO's API, for a mask of the row's height and width.
INSTANCE = pa.struct([*_BOX, *_CLASS, pa.field("rle", pa.string())])
AREA = pa.struct([*_CLASS, pa.field("pixels", pa.int64())])
GUESS = pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32())])

SCHEMAS: dict[str, pa.Schema] = {
    "detect": pa.schema([pa.field(DETECTIONS, pa.list_(pa.field("item", DETECTION)))]),
    "instance": pa.schema([pa.field(DETECTIONS, pa.list_(pa.field("item", INSTANCE)))]),
    # A PNG of one channel, a category_id for each pixel of the upright image; ``classes`` counts them, largest first.
    "semantic": pa.schema(
        [pa.field(CLASS_MAP, pa.binary()), pa.field(CLASSES, pa.list_(pa.field("item", AREA)))],
    ),
    # ``label`` and ``score`` are those of the first of ``top``.
    "classify": pa.schema(
        [
            pa.field("label", pa.string()),
            pa.field("score", pa.float32()),
            pa.field("top", pa.list_(pa.field("item", GUESS))),
        ]
    ),
}


@dataclass(frozen=True)
class Category:
    """A class that a model knows: the number it has in the results, and its name."""

    id: int
    name: str


def facts(task: str, categories: list[Category]) -> dict[str, Any]:
    """Return the two facts by which an output says what it holds, as JSON types."""
    return {"task": task, "categories": [[c.id, c.name] for c in categories]}


def task(facts: Mapping[str, Any]) -> str:
    """Return the task of an output by its facts; empty where it has vectors, or nothing yet."""
    found: str = facts.get("task", "")
    return found


def categories(facts: Mapping[str, Any]) -> list[Category]:
    """Return the classes that an output's model knows, by its facts."""
    return [Category(id_, name) for id_, name in facts.get("categories", [])]


def things(facts: Mapping[str, Any]) -> list[Category]:
    """Return the classes of what there is to see: all but the background of a class map."""
    return [category for category in categories(facts) if category.name != BACKGROUND]
