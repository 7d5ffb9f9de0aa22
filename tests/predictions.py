"""Outputs of made-up detections, masks and labels, written through the functions that a run writes its own with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.failures import Failure
from cvjobs.common.fingerprint import digest
from cvjobs.common.paths import path_bytes
from cvjobs.dataset import lock, parts
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.changes import Plan
from cvjobs.dataset.parts import Author
from cvjobs.dataset.update import End, UpdateRequest, update
from cvjobs.prediction.engine.writer import error_rows
from cvjobs.sources.rows import FAILURES, IMAGES, Listing, path_columns, stat_columns
from cvjobs.storage.local_store import LocalStore

Rows = Sequence[Mapping[str, Any]]
NOTHING = pa.schema([])
A_PART = 1000


def output(
    folder: Path,
    task: str,
    categories: Sequence[Category],
    rows: Rows,
    *,
    source: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    carried: pa.Schema = NOTHING,
    schema: pa.Schema | None = None,
) -> Path:
    """Write a finished output, or on an old one its next snapshot, and return its folder.

    Args:
        folder: where it goes.
        task: ``detect``, ``instance``, ``semantic`` or ``classify``.
        categories: the classes that the model knows.
        rows: one image each: ``path``, ``width``, ``height`` and the task's columns as Python values; one with
            ``error`` (a code of ``failures.CODES``) is a failed image instead; ``content`` are bytes of its own for
            the hash of its content.
        source: the folder of the images, where they are to be seen; without one nothing is read.
        facts: more of what identifies the results.
        carried: columns of a list that the rows have too.
        schema: the columns of another task than these.
    """
    assert len({row["path"] for row in rows}) == len(rows), "a path has more than one row"
    facts = {"model": "toy", **common_categories.facts(task, list(categories)), **(facts or {})}
    columns = dataset_schema.SCHEMAS[task] if schema is None else schema
    order = UpdateRequest(
        listing=_listing(rows, source),
        schema=dataset_schema.result_schema(carried, columns).with_metadata(
            {"cvjobs.facts": dataset_schema.pack(facts)}
        ),
        fingerprint=digest(facts),
        facts=facts,
        hasher=lambda table: [None] * table.num_rows,
        overwrite=True,
        allow_deletions=True,
    )
    store = LocalStore(folder)
    by_path = {row["path"]: row for row in rows}

    def compute(author: Author, todo: Plan) -> End:
        for start in range(0, todo.todo.num_rows, A_PART):
            keys = todo.todo.slice(start, A_PART)
            chosen = [by_path[path] for path in keys["path"].to_pylist()]
            bad = [i for i, row in enumerate(chosen) if "error" in row]
            good = [i for i, row in enumerate(chosen) if "error" not in row]
            failures = [Failure("decode", chosen[i]["error"], "made up") for i in bad]
            table = _table(keys.take(pa.array(good, pa.int64())), [chosen[i] for i in good], order.schema)
            parts.commit(store, author, table, error_rows(keys.take(pa.array(bad, pa.int64())), failures))
        return End()

    with lock.held(store) as held:
        update(store, held, order, compute, lambda _: None)
    return folder


def _listing(rows: Rows, source: Path | None) -> Listing:
    paths = [path_bytes(row["path"]) for row in rows]
    files = [os.stat(os.path.join(os.fsencode(source), path)) if source else None for path in paths]
    sizes, times = [f.st_size if f else 100 for f in files], [f.st_mtime_ns if f else 0 for f in files]
    size, modified, version = stat_columns(sizes, times)
    root = str(source or "/photos")
    return Listing(
        source=root,
        root=root,
        images=pa.table([*path_columns(paths), size, modified, pa.array(version)], schema=IMAGES),
        failures=FAILURES.empty_table(),
        skipped={},
        unreadable=(),
        started_ns=1 << 62,  # so that every time stamp is old enough to be trusted
        base="",
    )


def _table(keys: pa.Table, rows: Rows, schema: pa.Schema) -> pa.Table:
    """The rows of a part."""
    columns = {
        "content_hash": pa.array(
            [(row.get("content") or path_bytes(row["path"])).ljust(16)[:16] for row in rows], dataset_schema.ID
        ),
        "frames": pa.array(np.ones(len(rows), np.int32)),
    }
    columns |= {name: keys[name] for name in keys.schema.names}
    values = [
        columns[field.name] if field.name in columns else pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema
    ]
    return pa.table(values, schema=schema)


CATEGORIES = [Category(1, "cat"), Category(2, "<script>dog</script>"), Category(7, "line\nbreak")]


def detection(x0: float, y0: float, x1: float, y1: float, score: float, category_id: int = 1) -> dict[str, Any]:
    """A detection as a row has it, a cat if nothing else is said."""
    label = {c.id: c.name for c in CATEGORIES}.get(category_id, "?")
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": score, "category_id": category_id, "label": label}
