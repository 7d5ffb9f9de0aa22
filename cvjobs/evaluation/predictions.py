"""Predictions to evaluate: the newest snapshot of an output, or a file of COCO's results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common import rules
from cvjobs.common.categories import Category
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.dataset import schema
from cvjobs.dataset.schema import DETECTIONS
from cvjobs.dataset.snapshot_reader import SnapshotReader, open_newest
from cvjobs.evaluation.ground_truth import coco, coco_records, records
from cvjobs.evaluation.metrics.objects import Detections, Floats, Id, Ints, Rle
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import open_store

ClassNumbers = Literal["", "ids", "places"]
COMMANDS = "`cvjobs detect`, `segment` or `classify`"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model said about images: ``rows`` are the paths that have a result, ``failed`` those with an error.

    ``categories`` are the classes that the model knows, none where only ids are known; ``rules`` is the version of the
    rules by which they were begun; ``notes`` are sentences on how they were read. ``whole`` false: ``categories`` are
    only those that a table has, so the model may know more.
    """

    place: str
    task: str
    categories: list[Category]
    rows: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    rules: int = rules.LABELS
    notes: Sequence[str] = ()
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class EvaluatedOutput(Predictions):
    """The newest snapshot of an output."""

    reader: SnapshotReader

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield these columns of all rows, file by file, in the order of ``rows``."""
        return self.reader.tables(columns)

    def cells(self, column: str, rows: Sequence[int]) -> dict[int, Any]:
        """Return the values of a column in some rows."""
        wanted = np.unique(np.asarray(rows, np.int64))
        return dict(zip(wanted.tolist(), self.reader.take([column], wanted)[column].to_pylist(), strict=True))

    def class_maps(self, rows: Ints) -> Iterator[tuple[Ints, list[bytes]]]:
        """Yield some rows (sorted), group by group, with their class maps as PNGs."""
        for first, table in self.reader.groups([schema.CLASS_MAP], rows):
            some = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + table.num_rows)]
            yield some, table[schema.CLASS_MAP].combine_chunks().take(pa.array(some - first)).to_pylist()

    def broken(self, row: int, why: str) -> CvjobsError:  # noqa: ARG002 - a part of the output is damaged
        """Return what to raise for a row that holds no class map."""
        return JobFailed(f"A class map of {self.place} {why}: run `cvjobs verify` on it.")

    def sizes(self) -> Floats:
        """Return the width and height of each image (rows, 2) in pixels."""
        tables = [np.zeros((0, 2))]
        tables += [np.stack([_numbers(t["width"]), _numbers(t["height"])], 1) for t in self.tables(["width", "height"])]
        return np.concatenate(tables)

    def detections(self) -> Detections:
        """Return all detections; ``image`` counts ``rows``, ``category`` is the id."""
        parts: list[Detections] = []
        first = 0
        for table in self.tables([DETECTIONS, "width", "height"] if self.task == "instance" else [DETECTIONS]):
            parts.append(_detections(table, first, self.task == "instance"))
            first += table.num_rows
        names = ("image", "category", "boxes", "area", "score")
        if not parts:
            parts = [_detections(schema.SCHEMAS["detect"].empty_table(), 0, False)]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        masks = [mask for part in parts for mask in part.masks or ()]
        return Detections(**columns, masks=masks if self.task == "instance" else None)


@dataclass(frozen=True, kw_only=True)
class ResultsFile(Predictions):
    """Detections in files: COCO's results, a table, YOLO's labels; images without names have numbers.

    ``known_sizes`` (images, 2) are the width and height of each image in pixels, 0 where they are not known, and None
    where none is. ``relative`` boxes are in shares of their image. ``numbered`` classes have no names: they are the ids
    of another tool, or places in its list of names.
    """

    found: Detections
    numbers: Sequence[Id]
    known_sizes: Floats | None = None
    relative: bool = False
    numbered: ClassNumbers = ""

    def detections(self) -> Detections:
        """Return all detections; ``image`` counts ``numbers``, ``category`` is the id."""
        return self.found


@dataclass(frozen=True, kw_only=True)
class LabelFile(Predictions):
    """A table of images and labels: an export of `classify`, a Parquet file of its output or of a training run."""

    table: pa.Table

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield these columns (of ``label``, ``score``, ``top``) of all rows; a score that is no number is null."""
        yield self.table.select(columns)

    def cells(self, column: str, rows: Sequence[int]) -> dict[int, Any]:
        """Return the values of a column in some rows."""
        return {row: self.table[column][row].as_py() for row in set(rows)}


def open_predictions(place: str, options: Options) -> EvaluatedOutput | ResultsFile:
    """Open an output (a folder or a bucket) or a JSON file; raises WrongUse where it is no prediction."""
    path = Path(os.path.expanduser(place))
    if path.is_file():
        return _file(path)
    reader = open_newest(open_store(place, options=options), "predictions", COMMANDS)
    if reader.task not in schema.SCHEMAS:
        raise WrongUse(f"{reader.store.place} holds vectors, no predictions: name the -o folder of {COMMANDS}.")
    return EvaluatedOutput(
        place=reader.store.place,
        task=reader.task,
        categories=reader.categories,
        rows=_paths(reader.tables(["path"])),
        failed=_paths(reader.errors(["path"])),
        rules=reader.snapshot.listing_rules,
        reader=reader,
    )


def _paths(tables: Iterable[pa.Table]) -> list[str]:
    return [path for table in tables for path in table["path"].to_pylist()]


def _detections(table: pa.Table, first: int, masked: bool) -> Detections:
    """Return the detections of some rows, of which the first has the number ``first``."""
    nested = table[DETECTIONS].combine_chunks()
    inside = nested.flatten()
    column = {field.name: inside.field(field.name) for field in inside.type}
    image = np.repeat(np.arange(table.num_rows), pc.list_value_length(nested).fill_null(0).to_numpy())
    x0, y0, x1, y1, score = (_numbers(column[name]) for name in ("x0", "y0", "x1", "y1", "score"))
    boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    masks: list[Rle] | None = None
    if masked:
        sizes = np.stack([_numbers(table["height"]), _numbers(table["width"])], axis=1).astype(np.int64)[image].tolist()
        texts = column["rle"].to_pylist()
        masks = [{"size": size, "counts": text.encode()} for size, text in zip(sizes, texts, strict=True)]
    return Detections(
        image=image + first,
        category=_numbers(column["category_id"]).astype(np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3] if masks is None else coco_records.sizes(masks),
        score=score,
        masks=masks,
    )


def _numbers(column: pa.Array | pa.ChunkedArray) -> Floats:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[no-any-return]


def _file(path: Path) -> ResultsFile:
    content = records.load(path)
    images: list[Any] = []
    categories: list[Category] = []
    found = content
    if isinstance(content, dict):
        found, images = content.get("annotations"), content.get("images") or []
        categories = [c for c in coco_records.read_categories(path, content.get("categories") or []) if c.name]
    if not isinstance(found, list) or not isinstance(images, list):
        raise WrongUse(f"{path} holds no predictions: name the -o folder of {COMMANDS}, or a COCO results file.")
    ids = records.ids(path, found, "result", "image_id")
    numbers: list[Id] = list(dict.fromkeys(ids))
    names: list[str] = []
    shapes: list[tuple[int, int]] = []
    if images:
        numbers, shapes, names = coco_records.read_images(path, images)
    masks = None
    if found and all(record.get("segmentation") for record in found):
        masks = [coco.rle(path, f"result {n + 1}", r["segmentation"], (0, 0)) for n, r in enumerate(found)]
    boxes = coco.boxes(path, found, masks)
    if isinstance(content, dict) or masks is None or not any(record.get("bbox") for record in found):
        area = coco.areas(path, found, boxes, masks)
    else:
        area = boxes[:, 2] * boxes[:, 3]  # COCO's API takes the area of the box where a result has one
    return ResultsFile(
        place=str(path),
        task="detect" if masks is None else "instance",
        categories=categories,
        rows=names if all(names) else [],
        found=Detections(
            image=records.positions(path, {id_: at for at, id_ in enumerate(numbers)}, ids, "image_id"),
            category=records.numbers(path, found, "result", "category_id"),
            boxes=boxes,
            area=area,
            score=records.column(path, found, "result", "score", np.float64),
            masks=masks,
        ),
        numbers=numbers,
        known_sizes=_sizes(numbers, shapes, ids, found),
    )


def _sizes(numbers: Sequence[Id], shapes: Sequence[tuple[int, int]], ids: Sequence[Id], found: list[Any]) -> Floats:
    """Return the width and height of each image: as listed, as its results say, or as their run lengths do; or 0."""
    known: dict[Id, tuple[float, float]] = {}
    for id_, record in zip(ids, found, strict=True):
        if id_ not in known and min(size := _size(record)) > 0:
            known[id_] = size
    listed = {id_: (float(width), float(height)) for id_, (height, width) in zip(numbers, shapes, strict=False)}
    known.update({id_: size for id_, size in listed.items() if min(size) > 0})
    return np.array([known.get(id_, (0.0, 0.0)) for id_ in numbers], np.float64).reshape(-1, 2)


def _size(record: dict[str, Any]) -> tuple[float, float]:
    """Return the width and height of the image of a result, (0, 0) where it does not say them."""
    outline = record.get("segmentation")
    inside = outline.get("size") if isinstance(outline, dict) else None
    sizes: list[Any] = [(record.get("height"), record.get("width")), inside or ()]
    for size in sizes:
        try:
            height, width = (float(side) for side in size)
        except (TypeError, ValueError):
            continue
        if 0 < width < coco.FARTHEST and 0 < height < coco.FARTHEST:
            return width, height
    return 0.0, 0.0
