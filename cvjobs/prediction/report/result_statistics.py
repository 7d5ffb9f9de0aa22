"""Statistics of the results in one file of an output; files never change, so a nightly run reads only the new ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.categories import Category
from cvjobs.dataset import schema, sealed, snapshot
from cvjobs.dataset.parts import File
from cvjobs.storage.store import Store, in_flight

FORMAT = 1
PICKED, BETWEEN = 8, 24  # images of a file at each end and at its median; spread between the ends
SCORES = 50  # bins from 0 to 1
# The first of each bin: sides of boxes in pixels, with COCO's 32 and 96 among them, and things in an image.
SIDES = (0, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048)
COUNTS = (0, 1, 2, 3, 4, 6, 9, 13, 19, 29, 43, 65, 100, 200)
AHEAD = 4  # files that are read at once from an object store

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pick:
    """An image that may be shown: its row in its file, and its score (NaN for one without any)."""

    row: int
    score: float


@dataclass(kw_only=True)
class Statistics:
    """What the images of a file hold; a thing is a detection, a pixel of a class, or a label.

    ``images`` are rows, ``empty`` those without a thing; ``pixels`` are all of a semantic output's. ``scores`` counts
    things by score (semantic: images by the share of pixels with a class), ``sides`` boxes by the side of a square of
    their area, ``counts`` images by their things (semantic: classes). ``classes`` counts things by category id.
    The picks are in the order of their scores; ``spread`` are some at equal distances.
    """

    images: int = 0
    empty: int = 0
    things: int = 0
    pixels: int = 0
    scores: Ints = field(default_factory=lambda: np.zeros(SCORES, np.int64))
    sides: Ints = field(default_factory=lambda: np.zeros(len(SIDES), np.int64))
    counts: Ints = field(default_factory=lambda: np.zeros(len(COUNTS), np.int64))
    classes: dict[int, int] = field(default_factory=dict)
    lowest: list[Pick] = field(default_factory=list)
    spread: list[Pick] = field(default_factory=list)
    highest: list[Pick] = field(default_factory=list)
    without: list[Pick] = field(default_factory=list)

    def add(self, other: Statistics) -> None:
        """Take the counts of another one; its picks are of another file."""
        self.images += other.images
        self.empty += other.empty
        self.things += other.things
        self.pixels += other.pixels
        self.scores = self.scores + other.scores
        self.sides = self.sides + other.sides
        self.counts = self.counts + other.counts
        for category_id, number in other.classes.items():
            self.classes[category_id] = self.classes.get(category_id, 0) + number

    def record(self) -> dict[str, Any]:
        """Return the statistics as JSON types."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                values[name] = value.tolist()
            elif isinstance(value, list):
                values[name] = [[p.row, None if np.isnan(p.score) else round(p.score, 6)] for p in value]
            else:
                values[name] = value
        return values

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> Statistics:
        """Return what a JSON record describes; raises KeyError, TypeError or ValueError where it describes none."""
        values = dict(record)
        for name, length in (("scores", SCORES), ("sides", len(SIDES)), ("counts", len(COUNTS))):
            values[name] = np.array(record[name], np.int64).reshape(length)
        for name in ("lowest", "spread", "highest", "without"):
            values[name] = [Pick(int(row), float("nan" if score is None else score)) for row, score in record[name]]
        values["classes"] = {int(category_id): int(number) for category_id, number in record["classes"].items()}
        return cls(**values)


# Columns that are read: neither masks nor class maps.
COLUMNS = {
    "detect": [f"{schema.DETECTIONS}.list.element.{n}" for n in ("x0", "y0", "x1", "y1", "score", "category_id")],
    "semantic": ["width", "height", *(f"{schema.CLASSES}.list.element.{n}" for n in ("category_id", "pixels"))],
    "classify": ["label", "score"],
}
COLUMNS["instance"] = COLUMNS["detect"]


def of(task: str, categories: Iterable[Category], tables: Iterable[pa.Table]) -> Statistics:
    """Return the statistics of a file's rows, given in pieces that hold ``COLUMNS`` of the task."""
    found = Statistics()
    known = {c.id for c in categories}
    names = {c.name: c.id for c in reversed(list(categories))}
    count: Callable[[Statistics, pa.Table], Floats] = {
        "semantic": lambda s, table: _semantic(s, table, known),
        "classify": lambda s, table: _classify(s, table, names),
    }.get(task, _detect)
    best = [np.zeros(0)]
    for table in tables:
        found.images += table.num_rows
        best.append(count(found, table))
    _pick(found, np.concatenate(best))
    return found


def _detect(found: Statistics, table: pa.Table) -> Floats:
    """Add detections; return the best score of each image."""
    lengths, values = _lists(table[schema.DETECTIONS])
    x0, y0, x1, y1, score = (values[name] for name in ("x0", "y0", "x1", "y1", "score"))
    found.things += len(score)
    found.scores += _binned(score)
    with np.errstate(invalid="ignore"):  # infinite sides
        side = np.sqrt(np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0))
    found.sides += _counted(side, SIDES)
    found.counts += _counted(lengths, COUNTS)
    _count_classes(found, values["category_id"], None)
    return _best(score, lengths)


def _semantic(found: Statistics, table: pa.Table, known: set[int]) -> Floats:
    """Add pixels; return the share of each image's pixels that have a class."""
    lengths, values = _lists(table[schema.CLASSES])
    ids, pixels = values["category_id"], values["pixels"]
    pixels = np.where(np.isin(ids, list(known)), pixels, 0)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    total = np.concatenate([[0], np.cumsum(pixels)])[ends]
    covered = total[1:] - total[:-1]
    kinds = np.concatenate([[0], np.cumsum(pixels > 0)])[ends]
    area = _numbers(table["width"]) * _numbers(table["height"])
    found.pixels += int(area.sum())
    found.things += int(covered.sum())
    share = np.where(covered > 0, covered / np.maximum(area, 1), np.nan)
    found.scores += _binned(share)
    found.counts += _counted(kinds[1:] - kinds[:-1], COUNTS)
    _count_classes(found, ids[pixels > 0], pixels[pixels > 0])
    return share


def _classify(found: Statistics, table: pa.Table, names: Mapping[str, int]) -> Floats:
    """Add labels; return the score of each image."""
    score = np.where(table["label"].is_valid().to_numpy(), _numbers(table["score"]), np.nan)
    found.things += int(np.isfinite(score).sum())
    found.scores += _binned(score)
    for entry in table["label"].value_counts().to_pylist():
        if entry["values"] is not None:
            at = names.get(entry["values"], -1)
            found.classes[at] = found.classes.get(at, 0) + entry["counts"]
    return score


def _lists(column: pa.ChunkedArray) -> tuple[Ints, dict[str, npt.NDArray[Any]]]:
    """Return how many structs each row has, and the numbers in all of them; what is null is NaN, an id is -1."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    values = lists.flatten()
    fields = {}
    for at, kind in enumerate(values.type):
        if pa.types.is_primitive(kind.type):
            missing = -1 if pa.types.is_integer(kind.type) else float("nan")
            fields[kind.name] = pc.fill_null(pc.struct_field(values, at), missing).to_numpy()
    return lengths, fields


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(), np.float64)


def _binned(shares: npt.NDArray[np.floating[Any]]) -> Ints:
    return np.histogram(shares[np.isfinite(shares)], SCORES, (0.0, 1.0))[0].astype(np.int64)


def _counted(values: npt.NDArray[Any], firsts: tuple[int, ...]) -> Ints:
    places = np.searchsorted(np.array(firsts[1:]), values[np.isfinite(values)], side="right")
    return np.bincount(places, minlength=len(firsts)).astype(np.int64)


def _count_classes(found: Statistics, ids: Ints, weights: npt.NDArray[Any] | None) -> None:
    table = pa.table({"id": ids, "n": np.ones(len(ids), np.int64) if weights is None else weights.astype(np.int64)})
    sums = table.group_by("id", use_threads=False).aggregate([("n", "sum")])
    for category_id, number in zip(sums["id"].to_pylist(), sums["n_sum"].to_pylist(), strict=True):
        found.classes[category_id] = found.classes.get(category_id, 0) + number


def _best(scores: npt.NDArray[np.floating[Any]], lengths: Ints) -> Floats:
    """Return the highest score of each list; NaN for one that is empty."""
    best = np.full(len(lengths), np.nan)
    some = lengths > 0
    if some.any():
        starts = (np.cumsum(lengths) - lengths)[some]
        best[some] = np.fmax.reduceat(scores, starts)
    return best


def _pick(found: Statistics, best: Floats) -> None:
    """Choose the images of a file that may be shown, given the score of each."""
    rows = np.flatnonzero(np.isfinite(best))
    rows = rows[np.argsort(best[rows], kind="stable")]
    middle = len(rows) // 2

    def picks(chosen: Ints) -> list[Pick]:
        return [Pick(int(row), float(best[row])) for row in chosen]

    spread = np.linspace(0, len(rows) - 1, min(BETWEEN, len(rows))).round().astype(np.int64)
    near = np.arange(max(middle - PICKED // 2, 0), min(middle + PICKED // 2, len(rows)))
    without = np.flatnonzero(~np.isfinite(best))
    found.empty += len(without)
    found.lowest, found.highest = picks(rows[:PICKED]), picks(rows[-PICKED:])
    found.spread = picks(rows[np.unique(np.concatenate([spread, near]))])
    found.without = picks(without[:PICKED])


def gather(
    store: Store, files: Iterable[File], task: str, categories: list[Category], seconds: float
) -> dict[str, Statistics]:
    """Return the statistics of files by name: those that are known, and of the others as many as can be read in time.

    What is found out is kept for the next run. Raises as ``snapshot.read_batches``.
    """
    files = list(files)
    earlier = _load(store, task)
    known = {file.name: earlier[file.name] for file in files if file.name in earlier}
    until = time.monotonic() + seconds

    def read(file: File) -> Statistics | None:
        if time.monotonic() > until:
            return None
        return of(task, categories, snapshot.read_batches(store, file, COLUMNS[task]))

    new = [file for file in files if file.name not in known]
    found = zip(new, in_flight(store, read, new, AHEAD), strict=True)
    known |= {file.name: statistics for file, statistics in found if statistics is not None}
    if known.keys() != earlier.keys():
        records = {name: statistics.record() for name, statistics in known.items()}
        content = sealed.pack({"format": FORMAT, "task": task, "files": records})
        store.write_bytes(schema.STATISTICS, content)
    return known


def _load(store: Store, task: str) -> dict[str, Statistics]:
    try:
        content = sealed.unpack(store.read(schema.STATISTICS)) or {}
        if (content["format"], content["task"]) != (FORMAT, task):
            return {}
        return {name: Statistics.load(record) for name, record in content["files"].items()}
    except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError):
        return {}
