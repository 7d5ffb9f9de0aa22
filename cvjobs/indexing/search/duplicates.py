"""Groups of near-duplicates within an index: the same bytes, or a chain of images whose vectors are that similar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common import rules
from cvjobs.dataset import parts
from cvjobs.indexing.search import score_choice
from cvjobs.indexing.search.components import Components, Ints
from cvjobs.indexing.search.distinct_images import BLOCK, DistinctImages
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
RANGE = 64  # queries of one range search: each may answer with the whole collection
FIRSTS = 256 << 20  # bytes of vectors held at once while scores are computed
TABLED = 5_000_000  # images of which the groups of other scores are counted: 48 bytes of memory each


class Threshold(TypedDict):
    """How many groups there are of how many images where ``min_score`` is asked for; as JSON has it.

    What is below the score of an answer counts by the ``NEAR`` nearest of each image, and may be a little low.
    """

    min_score: float
    groups: int
    images: int


@dataclass(frozen=True)
class Groups:
    """The images that have duplicates: ``rows`` of ``SCHEMA``, by group, and their ``positions`` in the index.

    ``thresholds`` say what other scores would come to, and of over ``TABLED`` images only what this one does.
    """

    rows: pa.Table
    positions: Ints
    thresholds: list[Threshold] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DuplicateGroups:
    """What a comparison came to: ``members`` images in ``groups``.

    ``exact`` of them are copies of the first of their group byte by byte; ``surplus`` bytes are in all but the first.
    The first three are as in ``ScoreChoice``.
    """

    min_score: float
    score_from: str
    reason: str
    thresholds: list[Threshold]
    groups: int
    members: int
    exact: int
    surplus: int
    sample: Groups


def search(
    index: Index,
    min_score: float | None,
    out: AnswerFolder,
    tell: Callable[[int], object] = lambda _: None,
) -> DuplicateGroups:
    """Find all groups and publish them as ``DUPLICATES``; ``tell`` hears how many images were looked up.

    Without ``min_score`` it is measured, but in a folder that was begun before it was.
    """
    images = DistinctImages(index)
    if min_score is not None:
        choice = score_choice.given(min_score)
    elif out.scores < rules.MEASURED_SCORES:
        choice = score_choice.earlier()
    else:
        choice = score_choice.measured(index, images)
    found = find(index, choice.min_score, tell, images)
    rows = found.rows
    tables = (rows.slice(start, parts.ROW_GROUP) for start in range(0, rows.num_rows, parts.ROW_GROUP))
    notes = {**out.notes, "cvjobs.min_score": f"{choice.min_score:g}", "cvjobs.min_score_from": choice.score_from}
    parts.write_table(out.store, DUPLICATES, SCHEMA.with_metadata(notes), tables, seal=True)
    group, size = rows["group"].to_numpy(), rows["bytes"].to_numpy()
    leads = np.diff(group, prepend=-1) > 0
    first = int(np.searchsorted(group, SAMPLE))
    return DuplicateGroups(
        min_score=choice.min_score,
        score_from=choice.score_from,
        reason=choice.reason,
        thresholds=found.thresholds,
        groups=int(leads.sum()),
        members=rows.num_rows,
        exact=int(pc.sum(rows["exact"]).as_py() or 0) - int(leads.sum()),
        surplus=int(size[~leads].sum()),
        sample=Groups(rows.slice(0, first), found.positions[:first]),
    )


def find(
    index: Index,
    min_score: float,
    tell: Callable[[int], object] = lambda _: None,
    images: DistinctImages | None = None,
) -> Groups:
    """Return all groups of two or more images, the largest first and in each the one to keep first.

    That one has the most pixels, then the most bytes, then the first path; ``score`` is the cosine to it and
    ``exact`` whether the bytes are the same. Two images are of one group where their bytes are the same, where they
    score at least ``min_score``, or where a chain of such images joins them. ``tell`` hears how many were looked up.
    """
    images = images or DistinctImages(index)
    scores_told = score_choice.rungs(min_score) if len(images) <= TABLED else [min_score]
    joined = {score: images.equal.copy() for score in scores_told}
    looked = 0
    for position, vectors in index.blocks(BLOCK):
        mine = images.number[position]
        wanted = images.asked[mine]
        for left, right, scores in _edges(index, mine[wanted], vectors[wanted], min_score):
            for least, components in joined.items():
                near = scores >= least
                components.unite(left[near], images.number[right[near]])
        looked += len(mine)
        tell(looked)
    first = joined[min_score].all()
    certain = (images.content >= 0) & (images.content == images.content[first])
    zero = ~images.directed & ~images.directed[first] & (index.scores > rules.FIRST)
    found = _grouped(index, images.ids, images.number, first, (certain, zero))
    return replace(found, thresholds=[_threshold(score, components) for score, components in joined.items()])


def _threshold(score: float, components: Components) -> Threshold:
    sizes = np.bincount(components.all())
    return Threshold(min_score=score, groups=int((sizes > 1).sum()), images=int(sizes[sizes > 1].sum()))


def _edges(index: Index, mine: Ints, vectors: Floats, min_score: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield pairs (number of the query, position of a row) with their scores.

    Where the index is exact these are all pairs that score enough; of lower ones, the nearest of each image.
    """
    if not len(mine):
        return
    scores, rows = index.search(vectors, NEAR)
    there = rows >= 0
    query, _ = np.nonzero(there)
    yield mine[query], rows[there], scores[there]
    full = np.flatnonzero(there[:, -1] & (scores[:, -1] >= min_score))
    for start in range(0, len(full), RANGE):
        some = full[start : start + RANGE]
        limits, scores, rows = index.within(vectors[some], min_score)
        yield np.repeat(mine[some], np.diff(limits)), rows, scores


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
