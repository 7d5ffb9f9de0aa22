"""A CSV file with the columns ``path`` and ``label``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from cvjobs.evaluation.ground_truth.types import BadTruth, LabelTruth

COLUMNS = ("path", "label")
ENDINGS = (".csv", ".tsv")


def fits(path: Path) -> bool:
    """Return whether a place looks like a CSV file."""
    return path.is_file() and path.suffix.lower() in ENDINGS


def read(path: Path, masks: bool, names: Sequence[str]) -> LabelTruth:  # noqa: ARG001 - the file has names
    """Return the label of each path; raises BadTruth that names the line."""
    labels: dict[str, str] = {}
    for line, image, label in _rows(path):
        if not image or not label:
            raise BadTruth(path, line, f"has no {'label' if image else 'path'}")
        if labels.setdefault(image, label) != label:
            raise BadTruth(path, line, f"gives {image!r} a second label")
    return LabelTruth(format="table", names=list(labels), labels=list(labels.values()))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            head = [cell.strip() for cell in next(reader, [])]
            if not set(COLUMNS) <= set(head):
                raise BadTruth(path, 1, f"must name the columns {' and '.join(COLUMNS)}")
            at = [head.index(name) for name in COLUMNS]
            for row in reader:
                if any(cell.strip() for cell in row):
                    image, label = (row[i].strip() if i < len(row) else "" for i in at)
                    yield reader.line_num, image, label
    except UnicodeDecodeError:
        raise BadTruth(path, None, "is no UTF-8 text") from None
    except csv.Error as error:
        raise BadTruth(path, reader.line_num, f"is no CSV ({error})") from error
    except OSError as error:
        raise BadTruth(path, None, f"cannot be read ({error.strerror})") from error
