"""The page that a new generation of an index leaves beside it: what it holds, and some images with their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import phases
from cvjobs.common.progress import tell
from cvjobs.dataset import schema
from cvjobs.html import render
from cvjobs.html.original_links import links
from cvjobs.html.thumbnails import thumbnails
from cvjobs.indexing import generation
from cvjobs.indexing.generation import Generation
from cvjobs.indexing.index_report import IndexReport
from cvjobs.indexing.search.opened_index import open_generation
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.reader import Source, open_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store

QUERIES, NEIGHBOURS = 6, 7
AMONG = 4096  # vectors that the queries are sampled from: reading all of a large index costs more than the page
LARGEST = 1 << 30  # bytes of an exact index, or of one to be fetched, that is searched for examples
BUDGET = 20.0
TRIED = 3


def leave(
    store: Store,
    newest: Generation,
    report: IndexReport,
    storage: Mapping[str, str],
    ours: bool = False,
    spent: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Write the page; an index is worth more than its page, so an error here costs the page alone.

    ``ours`` is whether this process wrote the generation's files or checked them, as ``index_files.fetch`` takes it;
    ``spent`` returns the phases of the command so far.
    """
    try:
        examples = _examples(store, newest, storage, ours)
        report = report.at(spent()) if spent else report
        values = {"report": report, "generation": newest, "kept": generation.kept(store), "examples": examples}
        values["original"] = links(f"{store.place}/{schema.REPORT}", newest.root, newest.listed_in)
        page = render.render("index.html", **values, phases=phases.shares(report.phases))
        store.write_bytes(schema.REPORT, page.encode(errors="replace"))
    except Exception as error:  # noqa: BLE001 - see above
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        tell(f"this index has no {schema.REPORT} ({why}).")


def _examples(store: Store, newest: Generation, storage: Mapping[str, str], ours: bool) -> list[dict[str, Any]]:
    """Return images of the index, each with its neighbours; none where searching takes long or the images are gone."""
    far = not isinstance(store, LocalStore)
    if newest.count < 2 or (newest.bytes > LARGEST and (far or newest.kind == "exact")):
        return []
    with open_generation(store, newest, ours) as index:
        positions, vectors = next(iter(index.blocks(AMONG)))
        chosen = np.unique(np.linspace(0, len(positions) - 1, min(QUERIES, len(positions))).round().astype(np.int64))
        queries = positions[chosen]
        scores, found = index.search(vectors[chosen], NEIGHBOURS + 1)
        shown = np.unique(np.append(queries, found[found >= 0]))
        rows = index.rows(shown)
        source = open_source(newest.root, newest.listed_in, storage, newest.confined)
        if not any(_readable(source, row) for row in _keys(rows.slice(0, TRIED))):
            return []
        images = thumbnails(source, rows, BUDGET, like=newest.resolved.get("transform", {}))
        known = dict(zip(shown.tolist(), zip(images, rows["path"].to_pylist(), strict=True), strict=True))
    examples = []
    for query, near, cosines in zip(queries.tolist(), found.tolist(), scores.tolist(), strict=True):
        image, path = known[query]
        hits = [
            {"image": known[hit][0], "path": known[hit][1], "score": score}
            for hit, score in zip(near, cosines, strict=True)
            if hit not in (-1, query)
        ]
        examples.append({"image": image, "path": path, "hits": hits[:NEIGHBOURS]})
    return examples


def _keys(rows: pa.Table) -> list[tuple[str, int, int]]:
    stamps = rows["modified"].cast(pa.int64()).to_pylist()
    return list(zip(rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps, strict=True))


def _readable(source: Source, row: tuple[str, int, int]) -> bool:
    """Return whether an image is still there: decoders are not started for a source that went away."""
    try:
        source.read(*row)
    except Unreadable:
        return False
    return True
