"""Groups of near-duplicates within an index: the same bytes, or a chain of images whose vectors are that similar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cvjobs.common import rules
from cvjobs.dataset import parts
from cvjobs.indexing.search.components import Components, Ints
from cvjobs.indexing.search.output import AnswerFolder

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("path", pa.string()),
        ("score", pa.float32()),
        ("exact", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
DUPLICATES = "data/duplicates.parquet"
SAMPLE = 50  # groups that are kept to be shown
NEAR = 16  # neighbours looked at before a range search takes over
BLOCK = 4096  # queries of one search
RANGE = 64  # queries of one range search: each may answer with the whole collection
FIRSTS = 256 << 20  # bytes of vectors held at once while scores are computed


@dataclass(frozen=True)
class Groups:
    """The images that have duplicates: ``rows`` of ``SCHEMA``, by group, and their ``positions`` in the index."""

    rows: pa.Table
    positions: Ints


@dataclass(frozen=True, kw_only=True)
class DuplicateGroups:
    """What a comparison came to: ``members`` images in ``groups``.

    ``exact`` of them are copies of the first of their group byte by byte; ``surplus`` bytes are in all but the first.
    """

    groups: int
    members: int
    exact: int
    surplus: int
    sample: Groups


def search(
    index: Index, min_score: float, out: AnswerFolder, tell: Callable[[int], object] = lambda _: None
) -> DuplicateGroups:
    """Find all groups and publish them as ``DUPLICATES``; ``tell`` hears how many images were looked up."""
    found = find(index, min_score, tell)
    rows = found.rows
    tables = (rows.slice(start, parts.ROW_GROUP) for start in range(0, rows.num_rows, parts.ROW_GROUP))
    notes = {**out.notes, "cvjobs.min_score": f"{min_score:g}"}
    parts.write_table(out.store, DUPLICATES, SCHEMA.with_metadata(notes), tables, seal=True)
    group, size = rows["group"].to_numpy(), rows["bytes"].to_numpy()
    leads = np.diff(group, prepend=-1) > 0
    first = int(np.searchsorted(group, SAMPLE))
    return DuplicateGroups(
        groups=int(leads.sum()),
        members=rows.num_rows,
        exact=int(pc.sum(rows["exact"]).as_py() or 0) - int(leads.sum()),
        surplus=int(size[~leads].sum()),
        sample=Groups(rows.slice(0, first), found.positions[:first]),
    )


def find(index: Index, min_score: float, tell: Callable[[int], object] = lambda _: None) -> Groups:
    """Return all groups of two or more images, the largest first and in each the one to keep first.

    That one has the most pixels, then the most bytes, then the first path; ``score`` is the cosine to it and
    ``exact`` whether the bytes are the same. Two images are of one group where their bytes are the same, where they
    score at least ``min_score``, or where a chain of such images joins them. ``tell`` hears how many were looked up.
    """
    ids = _best_first(index.ids)
    rows = ids["row"].to_numpy()
    number = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
    number[rows] = np.arange(len(rows))
    content = _codes(ids["content_hash"])
    known = content >= 0
    found = Components(len(rows))
    found.unite(np.flatnonzero(known), content[known])
    directed, same = _distinct(index, number)
    found.unite(np.arange(len(rows)), same)
    asked = directed & (found.all() == np.arange(len(rows)))
    looked = 0
    for position, vectors in index.blocks(BLOCK):
        mine = number[position]
        wanted = asked[mine]
        for left, right in _edges(index, mine[wanted], vectors[wanted], min_score):
            found.unite(left, number[right])
        looked += len(mine)
        tell(looked)
    first = found.all()
    certain = known & (content == content[first])
    zero = ~directed & ~directed[first] & (index.scores > rules.FIRST)
    return _grouped(index, ids, number, first, (certain, zero))


def _best_first(ids: pa.Table) -> pa.Table:
    """Return the rows so that of any group the one to keep has the lowest number."""
    pixels = pc.multiply(ids["width"].cast(pa.int64()), ids["height"].cast(pa.int64()))
    keys = pa.table({"pixels": pixels, "bytes": ids["bytes"], "path": ids["path"]})
    order = [("pixels", "descending"), ("bytes", "descending"), ("path", "ascending")]
    return ids.take(pc.sort_indices(keys, sort_keys=order)).combine_chunks()


def _codes(hashes: pa.ChunkedArray) -> Ints:
    """Return for each hash the number of the first row that has it, -1 for a null."""
    encoded = hashes.combine_chunks().dictionary_encode().indices
    codes = encoded.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    values, first = np.unique(codes, return_index=True)
    firsts = first[np.searchsorted(values, codes)]
    return np.where(codes < 0, -1, firsts).astype(np.int64)


def _distinct(index: Index, number: Ints) -> tuple[Mask, Ints]:
    """Return which rows have a direction (a zero vector has none), and for each the first row of the same vector.

    Thousands of equal vectors would otherwise fill each other's neighbourhoods. Zero vectors are equal, by all rules
    but the first: black images are duplicates of each other.
    """
    size = int((number >= 0).sum())
    # Added to 0, -0 is 0.
    hashes = np.empty(size, "V16")
    directed = np.zeros(size, np.bool_)
    for position, vectors in index.blocks(BLOCK):
        mine = number[position]
        hashes[mine] = np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, vectors + np.float32(0))), "V16")
        directed[mine] = vectors.any(axis=1)
    same = _codes(
        pa.chunked_array([pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), size, [None, pa.py_buffer(hashes)])])
    )
    return directed, np.where(directed, same, np.arange(size)) if index.scores == rules.FIRST else same


def _edges(index: Index, mine: Ints, vectors: Floats, min_score: float) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs (number of the query, position of a row) that score enough; every pair where the index is exact."""
    if not len(mine):
        return
    scores, rows = index.search(vectors, NEAR)
    close = (rows >= 0) & (scores >= min_score)
    query, _ = np.nonzero(close)
    yield mine[query], rows[close]
    full = np.flatnonzero(close[:, -1])
    for start in range(0, len(full), RANGE):
        some = full[start : start + RANGE]
        limits, _, rows = index.within(vectors[some], min_score)
        yield np.repeat(mine[some], np.diff(limits)), rows


def _grouped(index: Index, ids: pa.Table, number: Ints, first: Ints, equal: tuple[Mask, Mask]) -> Groups:
    """Return the groups; ``equal``: which rows have the bytes of the first of theirs, and which are zero as it is."""
    exact, zero = equal
    sizes = np.bincount(first, minlength=len(first))
    roots = np.flatnonzero(sizes >= 2)
    roots = roots[np.argsort(-sizes[roots], kind="stable")]
    group = np.full(len(first), -1, np.int64)
    group[roots] = np.arange(len(roots))
    group = group[first]
    scores = _scores(index, number, group, roots)
    scores[exact | zero] = 1.0
    members = np.flatnonzero(group >= 0)
    follows = members != first[members]
    members = members[np.lexsort((members, -scores[members], follows, group[members]))]
    picked = ids.take(pa.array(members))
    rows = pa.table(
        {
            "group": pa.array(group[members]),
            "path": picked["path"],
            "score": pa.array(scores[members]),
            "exact": pa.array(exact[members]),
            **{name: picked[name] for name in ("width", "height", "bytes")},
        }
    )
    return Groups(rows.cast(SCHEMA), picked["row"].to_numpy())


def _scores(index: Index, number: Ints, group: Ints, roots: Ints) -> Floats:
    """Return each member's cosine to the first of its group, float32 (n,); 0 for images without a group."""
    scores = np.zeros(len(group), np.float32)
    dim = index.generation.dim
    room = max(FIRSTS // (4 * dim), 1)
    for start in range(0, len(roots), room):
        firsts = np.zeros((min(room, len(roots) - start), dim), np.float32)
        for position, vectors in index.blocks(BLOCK):
            mine = number[position]
            at = group[mine] - start
            lead = (at >= 0) & (at < len(firsts))
            lead[lead] = roots[group[mine[lead]]] == mine[lead]
            firsts[at[lead]] = vectors[lead]
        for position, vectors in index.blocks(BLOCK):
            mine = number[position]
            at = group[mine] - start
            inside = (at >= 0) & (at < len(firsts))
            scores[mine[inside]] = np.einsum("nd,nd->n", vectors[inside], firsts[at[inside]])
    return np.clip(scores, -1.0, 1.0)
