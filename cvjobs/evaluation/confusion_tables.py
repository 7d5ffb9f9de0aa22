"""What is taken for what, as a page shows it: a table of heat for few classes, the most frequent pairs for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.evaluation.metrics.confusion import Confusion

FILE = "confusion.parquet"
SCHEMA = pa.schema([("truth", pa.string()), ("taken", pa.string()), ("count", pa.int64())])
FEW = 24
PAIRS = 20
MOST = 2000  # classes whose matrix, a line for each of its numbers, is in eval.json


def heat(confusion: Confusion, rows: Sequence[str], columns: Sequence[str]) -> dict[str, Any] | None:
    """Return a matrix with the share of its row beside each count; None for too many classes, or nothing.

    Rows and columns without anything are left out.
    """
    kept, across = np.flatnonzero(confusion.truths), np.flatnonzero(confusion.taken)
    if not len(kept) or max(len(kept), len(across)) > FEW:
        return None
    counts = confusion.part(kept, across).matrix()
    return {
        "columns": [columns[j] for j in across.tolist()],
        "rows": [
            {
                "name": rows[i],
                "whole": int(found.sum()),
                "cells": [
                    {"count": int(count), "share": float(count / found.sum()), "right": bool(i == j)}
                    for j, count in zip(across.tolist(), found, strict=True)
                ],
            }
            for i, found in zip(kept.tolist(), counts, strict=True)
        ],
    }


def confusions(confusion: Confusion, rows: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: what it is, what it is taken for, how often, and the share of its row."""
    whole, row, column = confusion.truths, confusion.row, confusion.column
    wrong = np.flatnonzero(row != column)
    wrong = wrong[np.argsort(-confusion.counts[wrong], kind="stable")][:PAIRS]
    return [
        {"truth": rows[i], "taken": columns[j], "count": int(count), "share": float(count / whole[i])}
        for i, j, count in zip(row[wrong].tolist(), column[wrong].tolist(), confusion.counts[wrong], strict=True)
    ]


def pairs(confusion: Confusion, rows: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return the whole matrix as the pairs that occur: what it is, what it is taken for, and how often.

    Null stands for what is no class, of which ``rows`` and ``columns`` give no name.
    """
    names = [
        pa.array([*given, *[None] * (size - len(given))])
        for given, size in zip((rows, columns), confusion.shape, strict=True)
    ]
    cells = [
        names[0].take(pa.array(confusion.row)),
        names[1].take(pa.array(confusion.column)),
        pa.array(confusion.counts),
    ]
    return pa.table(cells, schema=SCHEMA)


def numbers(
    confusion: Confusion, rows: Sequence[str] | str, columns: Sequence[str] | str, most: int = MOST
) -> dict[str, Any]:
    """Return the whole matrix for ``eval.json`` as its ``confusion``; nothing where it has over ``most`` rows."""
    if confusion.shape[0] > most:
        return {}
    return {"confusion": {"rows": rows, "columns": columns, "counts": confusion.matrix().tolist()}}
