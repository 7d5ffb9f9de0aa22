"""What is taken for what, as a page shows it: a table of heat for few classes, the most frequent pairs for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvjobs.evaluation.metrics.objects import Ints

FEW = 24
PAIRS = 20


def heat(counts: Ints, rows: Sequence[str], columns: Sequence[str]) -> dict[str, Any] | None:
    """Return a matrix with the share of its row beside each count; None for too many classes, or nothing.

    Rows and columns without anything are left out.
    """
    kept, across = (np.flatnonzero(counts.sum(axis=axis)).tolist() for axis in (1, 0))
    if not kept or max(len(kept), len(across)) > FEW:
        return None
    whole = counts.sum(axis=1)
    return {
        "columns": [columns[j] for j in across],
        "rows": [
            {
                "name": rows[i],
                "whole": int(whole[i]),
                "cells": [
                    {"count": int(counts[i, j]), "share": float(counts[i, j] / whole[i]), "right": bool(i == j)}
                    for j in across
                ],
            }
            for i in kept
        ],
    }


def confusions(counts: Ints, rows: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: what it is, what it is taken for, how often, and the share of its row."""
    wrong = counts.copy()
    side = min(wrong.shape)
    wrong[np.arange(side), np.arange(side)] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    whole = counts.sum(axis=1)
    return [
        {"truth": rows[i], "taken": columns[j], "count": int(wrong[i, j]), "share": float(wrong[i, j] / whole[i])}
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
