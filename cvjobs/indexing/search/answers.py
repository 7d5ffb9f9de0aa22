"""What `cvjobs query` answers: the records, as JSON and as lines, and the folder that holds their rows."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common import phases, rates, tabular
from cvjobs.common.formatting import counted
from cvjobs.common.progress import Progress
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import schema
from cvjobs.indexing.search.duplicates import DUPLICATES, Groups, Threshold
from cvjobs.indexing.search.output import AnswerFolder
from cvjobs.indexing.search.queries import NEIGHBOURS, QuerySample
from cvjobs.sources import reasons
from cvjobs.sources.left_out import NamedCount, told, told_failed
from cvjobs.storage.store import Store

if TYPE_CHECKING:
    from cvjobs.indexing.search.opened_index import Index


@dataclass(frozen=True, kw_only=True)
class Answer(Tabular):
    """What both kinds of answers say; ``out`` is empty where no folder was asked for, ``html`` where no page was.

    ``images`` are those in the index, ``recall`` its own recall@10 against exact search; ``phases`` are the seconds of
    the command's phases, which add up to ``seconds``.
    """

    index: str
    generation: int
    kind: str
    recall: float
    images: int
    min_score: float | None
    seconds: float
    phases: dict[str, float]
    out: str
    html: str
    store: Store = field(repr=False, compare=False)

    name = ""

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return all rows, or some columns of them, as an Arrow table (in memory)."""
        with self.store.open(self.name) as file:
            rows = pq.ParquetFile(file)
            tabular.check(rows.schema_arrow.names, columns)
            return rows.read(columns=columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in batches."""
        with self.store.open(self.name) as file:
            yield from pq.ParquetFile(file).iter_batches()

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types, without the rows."""
        hidden = ("store", "sample")
        return {key: value for key, value in vars(self).items() if key not in hidden}

    def _against(self) -> str:
        near = "" if self.recall >= 1 else f", recall@10 {self.recall:.3f}"
        return f"{counted(self.images, 'images')} ({self.kind}{near}, generation {self.generation})"

    def _places(self) -> list[str]:
        rows = [f"{self.out}/{self.name}"] if self.out else []
        return rows + ([self.html] if self.html else [])


@dataclass(frozen=True, kw_only=True)
class Neighbours(Answer):
    """The neighbours of queries.

    ``queries`` were searched and ``answered`` of them have a neighbour; ``failed`` images could not be made queries:
    ``failures`` counts them by code and ``failed_images`` names the first ones. ``skipped_by`` and ``left_out`` as in
    ``Summary``.
    """

    source: str
    k: int
    queries: int
    answered: int
    neighbours: int
    failed: int
    failures: dict[str, int]
    failed_images: list[dict[str, str]]
    skipped_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, NamedCount] = field(default_factory=dict)
    queries_per_second: float
    exit_code: int
    sample: QuerySample = field(repr=False, compare=False)

    name = NEIGHBOURS

    def __str__(self) -> str:
        lines = [
            f"{counted(self.queries, 'queries')}, {counted(self.neighbours, 'neighbours')} among {self._against()}",
            f"{self.seconds:,.1f} s"
            + (f", {rates.told(self.queries_per_second, 'queries')}" if self.queries_per_second else ""),
            f"  {phases.told(self.phases)}",
        ]
        if self.answered < self.queries:
            least = "" if self.min_score is None else f" of at least {self.min_score:g}"
            alone = self.queries - self.answered
            lines.append(f"  no neighbour{least} for {counted(alone, 'queries')}")
        first = {code: [at["path"] for at in self.failed_images if at["code"] == code] for code in self.failures}
        lines += [*told_failed(reasons.named(self.failures, first)), *told(self.left_out)]
        return "\n".join(lines + self._places())


@dataclass(frozen=True, kw_only=True)
class Duplicates(Answer):
    """Groups of near-duplicates; counts, scores and their reason are those of ``duplicates.DuplicateGroups``."""

    groups: int
    members: int
    exact: int
    surplus: int
    score_from: str
    reason: str
    thresholds: list[Threshold]
    sample: Groups = field(repr=False, compare=False)
    exit_code: int = 0

    name = DUPLICATES

    def __str__(self) -> str:
        lines = [
            f"{counted(self.groups, 'groups')} of {self.members:,} images that score at least "
            f"{self.min_score:g} among {self._against()}",
            f"{self.exact:,} exact {'copy' if self.exact == 1 else 'copies'}, "
            f"{counted(self.surplus, 'bytes')} besides the first of each, "
            f"{self.seconds:,.1f} s",
            f"  {phases.told(self.phases)}",
            f"  score: {self.reason}",
            *self._table(),
        ]
        return "\n".join(lines + self._places())

    def _table(self) -> list[str]:
        """Return what each score comes to, as columns; the one that was asked for is marked, and alone says nothing."""
        if len(self.thresholds) < 2:
            return []
        marked = [f"{'*' * (row['min_score'] == self.min_score)}{row['min_score']:.7g}" for row in self.thresholds]
        columns = [
            (mark, f"{row['groups']:,}", f"{row['images']:,}")
            for mark, row in zip(marked, self.thresholds, strict=True)
        ]
        heads = ("--min-score", "groups", "images")
        width = max(map(len, (text for column in columns for text in column)), default=0) + 2
        return [f"  {head:<11}" + "".join(f"{c[at]:>{width}}" for c in columns) for at, head in enumerate(heads)]


def about(index: Index, out: AnswerFolder) -> dict[str, Any]:
    """Return the part of an answer that names its index and its folder."""
    generation = index.generation
    return {
        "index": out.index,
        "generation": generation.number,
        "kind": generation.kind,
        "recall": generation.recall,
        "images": len(index),
        "out": "" if out.temporary else out.store.place,
        "store": out.store,
    }


def took(progress: Progress) -> dict[str, Any]:
    """Return the part of an answer that says where its time went so far."""
    spent = progress.phases.spent()
    return {"seconds": phases.whole(spent), "phases": spent}


def keep(answer: Answer) -> None:
    """Write the summary of an answer; a temporary folder goes when the answer does."""
    if not answer.out:
        place = answer.store.place
        weakref.finalize(answer, shutil.rmtree, place, ignore_errors=True)
        return
    for name in answer.store.names(schema.DATA):
        if f"{schema.DATA}/{name}" != answer.name:
            answer.store.delete(f"{schema.DATA}/{name}")  # of an earlier answer
    answer.store.write_bytes(schema.SUMMARY, schema.pack(answer.as_dict()))
