"""Names and schemas inside an output folder; knows no storage and reads no file."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cvjobs.common import categories, json_values

DATA, ERRORS = "data", "errors"
PARTS, RUNS, LEASE = "_cvjobs/parts", "_cvjobs/runs", "_cvjobs/lease"
VERSIONS, COPIES = "_cvjobs/versions", "_cvjobs/copies"
FORMAT = "_cvjobs/format.json"
LISTING = "listing.parquet"  # of a run, in its folder
SUMMARY, REPORT = "summary.json", "report.html"
HISTORY, STATISTICS, PICTURES = "_cvjobs/history.json", "_cvjobs/statistics.json", "_cvjobs/pictures.json"

ID = pa.binary(16)
MODIFIED = pa.timestamp("ns", tz="UTC")
KEYS = [
    pa.field("path", pa.string(), nullable=False),
    pa.field("image_id", ID, nullable=False),
    pa.field("bytes", pa.int64()),
    pa.field("modified", MODIFIED),
    pa.field("version", pa.uint64(), nullable=False),
]
MEASURED = [
    pa.field("content_hash", ID),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("frames", pa.int32()),
]
TRUNCATED = pa.field("truncated", pa.bool_())  # the last one of a row, in outputs that use what could be read
ERROR_SCHEMA = pa.schema(
    [
        *KEYS,
        pa.field("stage", pa.string()),
        pa.field("code", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("retryable", pa.bool_()),
        pa.field("attempts", pa.int32()),
    ]
)
RESERVED = frozenset(f.name for f in (*KEYS, *MEASURED))

DETECTIONS, CLASS_MAP, CLASSES, LANDMARKS = "detections", "class_map", "classes", "landmarks"

_BOX = [pa.field(name, pa.float32()) for name in ("x0", "y0", "x1", "y1", "score")]
_CLASS = [pa.field("category_id", pa.int32()), pa.field("label", pa.string())]

# Boxes in pixels of the upright image, x to the right and y down from its upper left corner; best score first.
DETECTION = pa.struct([*_BOX, *_CLASS])

# As boxes, with the points of each object in pixels of the upright image, in the order of their names in the facts.
POINT = pa.struct([pa.field(name, pa.float32()) for name in ("x", "y")])
MARKED_DETECTION = pa.struct([*_BOX, *_CLASS, pa.field(LANDMARKS, pa.list_(pa.field("item", POINT)))])

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


def of_task(facts: Mapping[str, Any]) -> pa.Schema:
    """Return the fields of the results that facts tell of; those of detections have landmarks where the model does."""
    task = categories.task(facts)
    if task == "detect" and categories.landmarks(facts):
        return pa.schema([pa.field(DETECTIONS, pa.list_(pa.field("item", MARKED_DETECTION)))])
    return SCHEMAS[task]


def result_schema(carried: pa.Schema, results: pa.Schema) -> pa.Schema:
    """Return the schema of ``data/``: keys, measured columns, the list's own columns, then the results."""
    return pa.schema([*KEYS, *MEASURED, *carried, *results])


def own_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return the names that a list's own columns have beside others: ``source_`` goes before one that is taken.

    It goes there again where that name is taken too. The order of the names does not count.
    """
    others = {*names, *taken}
    found = []
    for name in names:
        new = name
        if name in taken:
            while new in others:
                new = f"source_{new}"
        found.append(new)
    return found


def new_run(lease_epoch: int) -> str:
    """Return a run id; ids sort by the epoch of the lock that the run holds."""
    return f"r{lease_epoch:06d}-{secrets.token_hex(4)}"


def epoch_of(name: str) -> int | None:
    """Return the lock's epoch in a run id, or in a part's or temporary file's name that carries one."""
    for piece in name.split("-"):
        if len(piece) >= 7 and piece[0] == "r" and piece.isascii() and piece[1:].isdigit():
            return int(piece[1:])
    return None


def pack(record: dict[str, Any]) -> bytes:
    """Return a JSON record as bytes; a number that is not finite is null."""
    return json.dumps(json_values.finite(record), indent=1, sort_keys=True).encode() + b"\n"


def unpack(content: bytes) -> dict[str, Any] | None:
    """Return a JSON record, or None where a kill cut it short or it is damaged."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
