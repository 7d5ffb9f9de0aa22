"""CSV (RFC 4180): one line a detection, a class's area or an image; an image without any has one line all the same."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from cvjobs.common import json_values
from cvjobs.common.formatting import marked, without_controls
from cvjobs.dataset import schema
from cvjobs.dataset.export import ExportedOutput, publish
from cvjobs.dataset.schema import CLASSES, DETECTIONS
from cvjobs.images.masks import rle

TASKS = ("classify", "detect", "instance", "semantic")
UNIT = "lines"

IMAGE = ["path", "width", "height"]
CLASS = ["category_id", "label"]
BOX = [*CLASS, "score", "x0", "y0", "x1", "y1"]
COLUMNS = {"detect": BOX, "instance": [*BOX, "area"], "semantic": [*CLASS, "pixels"]}
LISTS = {"detect": DETECTIONS, "instance": DETECTIONS, "semantic": CLASSES, "classify": "top"}

Row = dict[str, Any]


def write(output: ExportedOutput, to: str) -> int:
    """Write the file and return how many lines it has, without the one of names."""
    count = 0
    carried = output.reader.carried
    names = COLUMNS.get(output.task) or _ranked(output)
    describe = _best if output.task == "classify" else _listed

    def fill(file: BinaryIO) -> None:
        nonlocal count
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        lines = csv.writer(text)
        lines.writerow(map(named, [*IMAGE, *schema.own_names(carried, names), *names]))
        for table in output.tables([*IMAGE, *carried, LISTS[output.task]]):
            for row in json_values.rows(table):
                image = [*(named(row[name]) for name in IMAGE), *(harmless(row[name]) for name in carried)]
                for values in describe(row, LISTS[output.task], names):
                    lines.writerow([*image, *map(named, values)])
                    count += 1
        text.detach()  # the file is flushed and closed by who opened it

    publish(output, to, fill)
    return count


def named(value: Any) -> Any:
    r"""Return a cell as ``harmless`` does, of a path or a label: one line, in which a newline is ``\x0a``."""
    return harmless(without_controls(value) if isinstance(value, str) else value)


def harmless(value: Any) -> Any:
    """Return a cell: numbers as they are, nothing as the empty one, text that a spreadsheet would compute marked.

    A terminal that shows the file obeys nothing in it: of control characters only ends of lines and tabs stay.
    """
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        value = without_controls(value, "\t\r\n")
    return marked(value) if isinstance(value, str) else value


def _ranked(output: ExportedOutput) -> list[str]:
    """Return the columns of the best classes: ``label``, ``score``, ``label_2``, ``score_2`` and so on."""
    ranks = range(2, output.reader.snapshot.facts.get("top", 1) + 1)
    return ["label", "score", *(f"{name}_{rank}" for rank in ranks for name in ("label", "score"))]


def _listed(row: Row, column: str, names: list[str]) -> Iterator[list[Any]]:
    listed = row[column] or [{}]
    if "area" in names and row[column]:
        areas = rle.areas([found["rle"] for found in listed]).tolist()
        listed = [{**found, "area": area} for found, area in zip(listed, areas, strict=True)]
    for found in listed:
        yield [found.get(name) for name in names]


def _best(row: Row, column: str, names: list[str]) -> Iterator[list[Any]]:
    values = [value for guess in row[column] or () for value in (guess["label"], guess["score"])]
    yield (values + [None] * len(names))[: len(names)]
