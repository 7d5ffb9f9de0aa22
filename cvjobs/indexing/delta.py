"""An update: what differs between an index and its embeddings, and the files that add it to an unchanged base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from cvjobs.dataset.keys import positions as positions_of
from cvjobs.dataset.keys import rows_at
from cvjobs.dataset.parts import File, write_table
from cvjobs.indexing import generation, index_files
from cvjobs.indexing.builder.build import SCHEMA, publish_flat, publish_halves
from cvjobs.indexing.generation import DELTA, DELTA_IDS, DELTA_VECTORS, IDS, REMOVED, Generation
from cvjobs.indexing.vectors import COLUMNS, Embeddings, Floats, Ints
from cvjobs.storage.store import Store

_KEYS = ["image_id", "content_hash"]
_REMOVED = pa.schema([pa.field("row", pa.int64(), nullable=False)])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``added`` and ``changed`` are positions in the embeddings, ``dead`` rows of the index that count no longer.

    An image's vector is a function of its content, so only images with other bytes have changed.
    """

    added: Ints
    changed: Ints
    dead: Ints

    @property
    def removed(self) -> int:
        """How many images are gone."""
        return len(self.dead) - len(self.changed)

    @property
    def count(self) -> int:
        """How many images are new, changed or gone."""
        return len(self.added) + len(self.dead)


def known_files(current: Generation) -> tuple[File, ...]:
    """Return the files that an update reads: what is needed of the base is small."""
    names = (IDS, DELTA, DELTA_IDS, DELTA_VECTORS, REMOVED, *([generation.BASE] if current.kind != "exact" else []))
    return tuple(file for name in names if (file := current.file(name)))


def compare(paths: dict[str, Path], embeddings: Embeddings) -> Difference:
    """Return what differs between an index, whose ids are at these paths, and its embeddings."""
    own = pa.concat_tables([index_files.read_rows(paths[name], _KEYS) for name in (IDS, DELTA_IDS) if name in paths])
    dead = dead_rows(paths)
    live = np.delete(np.arange(own.num_rows), dead)
    if len(dead):
        own = rows_at(own, live)
    theirs = pa.concat_tables([own.slice(0, 0), *embeddings.keys(_KEYS)])
    found = positions_of(theirs["image_id"].combine_chunks(), own["image_id"].combine_chunks())
    there = np.flatnonzero(found >= 0)
    other = (_halves(theirs)[there] != _halves(own)[found[there]]).any(axis=1)
    gone = np.ones(len(live), np.bool_)
    gone[found[there[~other]]] = False
    return Difference(added=np.flatnonzero(found < 0), changed=there[other], dead=live[gone])


def _halves(table: pa.Table) -> Any:
    """Return the content hashes as (n, 2) numbers."""
    column = table["content_hash"].cast(pa.binary()).fill_null(bytes(16)).cast(pa.binary(16)).combine_chunks()
    return np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, 2)[column.offset : column.offset + len(column)]


def dead_rows(paths: dict[str, Path]) -> Ints:
    """Return the rows of an index that count no longer, sorted."""
    return index_files.read_removed(paths[REMOVED]) if REMOVED in paths else np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Update:
    """An index whose files are at ``paths``, and the embeddings that it is to follow."""

    store: Store
    current: Generation
    paths: dict[str, Path]
    embeddings: Embeddings

    def write(self, folder: str, difference: Difference) -> tuple[File, ...]:
        """Write the files of an update and return those of the whole generation; the base's stay where they are.

        Only row groups of the embeddings with new vectors are read.
        """
        new = np.sort(np.concatenate([difference.added, difference.changed]))
        written: list[File] = []
        if len(new):
            written.append(write_table(self.store, f"{folder}/{DELTA_IDS}", SCHEMA, self._ids(new)))
            name = f"{folder}/{DELTA}"
            if self.current.kind == "exact":
                written.append(publish_flat(self.store, name, self._rows(new), self.embeddings.dim, self._flat(new)))
            else:
                index = self._lists(new)
                written.append(index_files.publish_index(self.store, name, index, index.ntotal))
            if self.current.kind == "pq":
                halves = f"{folder}/{DELTA_VECTORS}"
                written.append(publish_halves(self.store, halves, self._blocks(new), self._old(DELTA_VECTORS)))
        if len(difference.dead):
            dead = np.union1d(dead_rows(self.paths), difference.dead)
            table = pa.table([pa.array(dead)], schema=_REMOVED)
            written.append(write_table(self.store, f"{folder}/{REMOVED}", _REMOVED, [table]))
        names = {file.name.rpartition("/")[2] for file in written}
        linked = [file for file in self.current.files if file.name.rpartition("/")[2] not in names]
        return (*linked, *written)

    def _rows(self, new: Ints) -> int:
        return self.current.delta + len(new)

    def _blocks(self, new: Ints) -> Iterator[Floats]:
        return (vectors for _, vectors in self.embeddings.blocks(new))

    def _ids(self, new: Ints) -> Iterator[pa.Table]:
        if DELTA_IDS in self.paths:
            yield index_files.read_rows(self.paths[DELTA_IDS])
        yield from self.embeddings.reader.pieces(COLUMNS, new)

    def _flat(self, new: Ints) -> Iterator[Floats]:
        if DELTA in self.paths:
            old = index_files.read_index(self.paths[DELTA], faiss.IO_FLAG_MMAP_IFC)
            yield faiss.rev_swig_ptr(old.get_xb(), old.ntotal * old.d).reshape(old.ntotal, old.d)
        yield from self._blocks(new)

    def _lists(self, new: Ints) -> Any:
        """Return the lists of the rows that came after the base, with its centroids and codes."""
        if DELTA in self.paths:
            index = index_files.read_index(self.paths[DELTA])
        else:
            index = index_files.read_lists(self.paths[generation.BASE], None)
        row = self.current.base + self.current.delta
        for vectors in self._blocks(new):
            index.add_with_ids(vectors, np.arange(row, row + len(vectors)))
            row += len(vectors)
        return index

    def _old(self, name: str) -> Path | None:
        return self.paths.get(name)
