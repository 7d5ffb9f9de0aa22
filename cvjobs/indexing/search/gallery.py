"""Pages to look at: queries with their neighbours, groups of duplicates; every thumbnail is in the page itself."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cvjobs.html import render
from cvjobs.html.original_links import links
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.images.decode_children import DecoderServer
from cvjobs.indexing.search.answers import Duplicates, Neighbours
from cvjobs.indexing.search.self_matches import Origin
from cvjobs.sources.left_out import rows as left_out_rows
from cvjobs.sources.reader import open_source
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import file_at

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

ACROSS = 12  # images shown beside a query or in a group
IMAGES = 480  # in a page
DOWN = 50  # queries or groups
LARGE, SMALL = 360, 200  # pixels
BUDGET = 30.0  # seconds for all images of one kind


def of_neighbours(answer: Neighbours, index: Index, origin: Origin, options: Options) -> str:
    """Return the page of the first queries with their neighbours; ``origin`` is where the queries' paths start."""
    across = min(answer.k, ACROSS)
    down = min(answer.sample.keys.num_rows, DOWN, IMAGES // (across + 1))
    shown = [(rows.slice(0, across), hits[:across]) for _, rows, hits in answer.sample.each()][:down]
    keys = answer.sample.keys.slice(0, down)
    hits = np.unique(np.concatenate([np.zeros(0, np.int64), *[found for _, found in shown]]))
    with closing(DecoderServer()) as decoder_server:
        asked = _read(origin, options, keys, LARGE, decoder_server, index)
        images = dict(
            zip(
                hits.tolist(),
                _read(_origin(index), options, index.rows(hits), SMALL, decoder_server, index),
                strict=True,
            )
        )
    queries = [
        {
            "path": path,
            "image": image,
            "hits": [
                {"image": images[hit], "path": row["path"], "score": row["score"]}
                for hit, row in zip(found.tolist(), rows.to_pylist(), strict=True)
            ],
        }
        for path, image, (rows, found) in zip(keys["path"].to_pylist(), asked, shown, strict=True)
    ]
    skipped = left_out_rows(answer.left_out)
    return render.render(
        "query.html",
        answer=answer,
        queries=queries,
        across=across,
        skipped=skipped,
        asked=links(answer.html, origin.root, origin.base),
        original=links(answer.html, index.generation.root, index.generation.listed_in),
    )


def of_duplicates(answer: Duplicates, index: Index, options: Options) -> str:
    """Return the page of the largest groups."""
    groups: list[dict[str, Any]] = []
    rows, positions = answer.sample.rows.to_pylist(), answer.sample.positions
    starts = [i for i, row in enumerate(rows) if not i or row["group"] != rows[i - 1]["group"]]
    room = IMAGES
    wanted: list[int] = []
    for start, end in list(zip(starts, [*starts, len(rows)][1:], strict=True))[:DOWN]:
        shown = range(start, min(end, start + ACROSS))
        if len(shown) > room:
            break
        room -= len(shown)
        wanted += shown
        groups.append({"rows": [rows[i] for i in shown], "at": list(shown), "count": end - start})
    with closing(DecoderServer()) as decoder_server:
        found = _read(_origin(index), options, index.rows(positions[wanted]), SMALL, decoder_server, index)
    images = dict(zip(wanted, found, strict=True))
    for group in groups:
        group["images"] = [images[i] for i in group["at"]]
    original = links(answer.html, index.generation.root, index.generation.listed_in)
    return render.render("duplicates.html", answer=answer, groups=groups, original=original)


def write(file: str, page: str, options: Options) -> None:
    """Publish a page under the name of a file."""
    store, name = file_at(file, options, "--html")
    store.write_bytes(name, page.encode())


def _origin(index: Index) -> Origin:
    return Origin(index.generation.root, index.generation.listed_in, index.generation.confined)


def _read(
    origin: Origin, options: Options, rows: pa.Table, size: int, decoder_server: DecoderServer, index: Index
) -> list[Thumbnail]:
    source = open_source(origin.root, origin.base, options, origin.confined)
    return thumbnails(source, rows, BUDGET, size, decoder_server, index.generation.resolved.get("transform", {}))
