"""What a run of ``index`` did, as a record, as JSON and as the lines a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cvjobs.common import phases, tabular
from cvjobs.common.formatting import counted, size
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import schema
from cvjobs.indexing.generation import Generation
from cvjobs.storage.storage_options import Options

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class IndexReport(Tabular):
    """The state of an index after a run, and what the run itself did with the embeddings' vectors.

    ``count = added + changed + kept``; ``memory`` is what it is searched in, ``bytes`` its files, both in bytes;
    ``phases`` are the seconds of the command's phases, which add up to ``seconds``. ``storage`` has the settings of a
    bucket, which are never printed.
    """

    out: str
    generation: int
    kind: str
    factory: str
    count: int
    dim: int
    added: int
    changed: int
    removed: int
    kept: int
    rebuilt: bool
    recall: float
    target_recall: float
    queries: int
    nprobe: int
    rerank: int
    bytes: int
    memory: int
    embeddings: str
    version: int
    fingerprint: str
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    storage: Options = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        out: str,
        generation: Generation,
        *,
        added: int = 0,
        changed: int = 0,
        removed: int = 0,
        kept: int = 0,
        rebuilt: bool = False,
    ) -> IndexReport:
        """Return the report on a generation."""
        g = generation
        return cls(
            out=out,
            generation=g.number,
            kind=g.kind,
            factory=g.factory,
            count=g.count,
            dim=g.dim,
            added=added,
            changed=changed,
            removed=removed,
            kept=kept,
            rebuilt=rebuilt,
            recall=g.recall,
            target_recall=g.target_recall,
            queries=g.queries,
            nprobe=g.nprobe,
            rerank=g.rerank,
            bytes=g.bytes,
            memory=g.memory,
            embeddings=g.embeddings,
            version=g.version,
            fingerprint=g.fingerprint,
            seconds=g.seconds,
        )

    def at(self, spent: dict[str, float]) -> IndexReport:
        """Return the report after these phases."""
        return replace(self, seconds=phases.whole(spent), phases=spent)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {name: value for name, value in vars(self).items() if name != "storage"}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return what the index's newest generation knows of its images, one row each: path, image_id, ..."""
        from cvjobs.indexing.search.opened_index import open_index

        with open_index(self.out, self.storage) as index:
            return tabular.chosen(index.ids.drop_columns("row"), columns)

    def __str__(self) -> str:
        done = "built" if self.rebuilt else "up to date" if not self.added + self.changed + self.removed else "updated"
        setting = "".join(
            [f", nprobe {self.nprobe}"] * bool(self.nprobe) + [f", rerank ×{self.rerank}"] * bool(self.rerank)
        )
        measured = f"measured with {counted(self.queries, 'queries')}" if self.queries else "by construction"
        return "\n".join(
            [
                f"{counted(self.count, 'vectors')} of {counted(self.dim, 'numbers')}, {self.kind} ({self.factory})",
                f"{self.added:,} added, {self.changed:,} changed, {self.removed:,} removed, {self.kept:,} kept",
                f"recall@10 {self.recall:.3f} {measured}{setting}",
                f"{size(self.bytes)} on disk, searched in {size(self.memory)} of memory",
                f"{self.out} (generation {self.generation}) {done} in {self.seconds:,.1f} s",
                *([f"  {phases.told(self.phases)}"] if self.phases else []),
                f"{self.out}/{schema.REPORT}",
            ]
        )
