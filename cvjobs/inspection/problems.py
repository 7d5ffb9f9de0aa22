"""What may be wrong with data: kinds of problems, each with what to do, and the rows that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cvjobs.sources.left_out import EXAMPLES

FILE = "problems.parquet"
COLUMNS = ("problem", "wrong", "split", "path", "where", "other", "detail")
SCHEMA = pa.schema([(name, pa.bool_() if name == "wrong" else pa.string()) for name in COLUMNS])


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problem: how several of it are called, what to do, and whether it is ``wrong`` or only doubtful."""

    title: str
    remedy: str
    wrong: bool = True


KINDS: Mapping[str, ProblemKind] = {
    "failed": ProblemKind(
        title="images that cannot be read or decoded", remedy="replace the files, or take them out of the data"
    ),
    "truth_unreadable": ProblemKind(title="records or files of the truth that make no sense", remedy="correct them"),
    "image_missing": ProblemKind(
        title="images of the truth without a file", remedy="bring the files back, or take their records out"
    ),
    "name_ambiguous": ProblemKind(
        title="images of the truth whose name fits several files or records", remedy="name them with their folder, once"
    ),
    "id_unknown": ProblemKind(
        title="annotations of images that the truth does not describe", remedy="add the images, or take them out"
    ),
    "class_unknown": ProblemKind(
        title="annotations of classes that the truth does not describe", remedy="add the classes, or correct the ids"
    ),
    "classes_differ": ProblemKind(
        title="classes that have another name or number in another split", remedy="number the classes alike"
    ),
    "box_bad": ProblemKind(title="boxes that are no boxes", remedy="write four numbers, and none below 0 for a side"),
    "box_outside": ProblemKind(
        title="boxes that reach beyond their image", remedy="cut them at the border, or look whether they are of it"
    ),
    "box_empty": ProblemKind(title="boxes or masks without area", remedy="draw them again, or take them out"),
    "box_double": ProblemKind(title="boxes that are there twice", remedy="keep one of them"),
    "mask_bad": ProblemKind(title="masks that cannot be read", remedy="write them again"),
    "mask_size": ProblemKind(
        title="masks of another size than their image", remedy="write them at the size of the image"
    ),
    "mask_beyond": ProblemKind(
        title="masks with values beyond the classes", remedy="add the classes, or give these pixels the value 255"
    ),
    "size_differs": ProblemKind(
        title="images of another size than the truth says", remedy="write the size of the upright image"
    ),
    "leak": ProblemKind(
        title="images that are in another split, too, byte by byte", remedy="keep each in one split: numbers flatter"
    ),
    "contradiction": ProblemKind(
        title="images that are there already with another label", remedy="keep one of them, with the right label"
    ),
    "double": ProblemKind(
        title="images that are there already in the same split", remedy="keep one of them", wrong=False
    ),
    "blank": ProblemKind(
        title="images that are black, white or of one colour",
        remedy="look whether they were exported well",
        wrong=False,
    ),
    "unlabelled": ProblemKind(title="images without a label or split", remedy="label them", wrong=False),
    "truth_missing": ProblemKind(
        title="images that no truth knows", remedy="label them, or leave them out", wrong=False
    ),
    "near_leak": ProblemKind(
        title="images that are nearly the same in another split", remedy="keep both in one split", wrong=False
    ),
    "label_doubtful": ProblemKind(
        title="images whose neighbours have another label", remedy="look whether the label is right", wrong=False
    ),
}


Row = tuple[str, bool, str, str, str, str, str]


@dataclass
class Problems:
    """The problems that were found, by kind: one row each, as in ``SCHEMA``.

    ``path`` is the image, ``where`` the file of the truth (with its line) or the record, ``other`` the image it is
    compared with, ``detail`` what is the matter. ``boxes`` are rows with a box (x, y, width, height) that can be shown.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    boxes: dict[str, list[tuple[Row, Sequence[float]]]] = field(default_factory=dict)

    def add(
        self, kind: str, path: str = "", *, split: str = "", where: str = "", other: str = "", detail: str = ""
    ) -> None:
        """Note one problem."""
        self.rows.setdefault(kind, []).append((kind, KINDS[kind].wrong, split, path, where, other, detail))

    def add_box(self, kind: str, path: str, box: Sequence[float], *, split: str, where: str, detail: str) -> None:
        """Note one problem of a box."""
        self.add(kind, path, split=split, where=where, detail=detail)
        self.boxes.setdefault(kind, []).append((self.rows[kind][-1], box))

    def table(self) -> pa.Table:
        """Return the rows, the kinds in their order."""
        rows = [row for kind in KINDS for row in self.rows.get(kind, ())]
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        return pa.table([pa.array(column, SCHEMA.field(i).type) for i, column in enumerate(columns)], schema=SCHEMA)

    def of(self, kind: str, most: int | None = None) -> list[dict[str, Any]]:
        """Return the rows of a kind, the first of them."""
        return [_record(row) for row in self.rows.get(kind, ())[:most]]

    def boxed(self, kind: str, most: int) -> list[tuple[dict[str, Any], Sequence[float]]]:
        """Return the first rows of a kind that have a box to be shown, and the box."""
        return [(_record(row), box) for row, box in self.boxes.get(kind, ())[:most]]

    def record(self) -> dict[str, dict[str, Any]]:
        """Return the kinds that were found as JSON types: ``count``, ``wrong``, ``title``, and the ``first`` rows."""
        found: dict[str, dict[str, Any]] = {}
        for kind, about in KINDS.items():
            if rows := self.rows.get(kind):
                own = self.of(kind, EXAMPLES)
                first = [{k: v for k, v in row.items() if v and k not in ("problem", "wrong")} for row in own]
                found[kind] = {"count": len(rows), "wrong": about.wrong, "title": about.title, "first": first}
        return found


def _record(row: Row) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))
