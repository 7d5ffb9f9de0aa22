"""Building the base of a generation: all vectors of a snapshot, streamed through an index of the chosen kind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pyarrow as pa

from cvjobs.common.errors import JobFailed
from cvjobs.dataset.parts import File, write_table
from cvjobs.dataset.schema import KEYS, MEASURED
from cvjobs.indexing import faiss_compat, index_files
from cvjobs.indexing.builder import ivf, ivf_training, recall
from cvjobs.indexing.builder.ivf import Addition
from cvjobs.indexing.builder.ivf_training import TrainingVectors
from cvjobs.indexing.builder.recall import MeasuredSetting, Nearest
from cvjobs.indexing.generation import BASE, IDS, LISTS, VECTORS
from cvjobs.indexing.kinds import Kind, budget
from cvjobs.indexing.search.shards import Lists
from cvjobs.indexing.vectors import COLUMNS, Embeddings, Floats, ahead
from cvjobs.storage.store import Store

_FIELDS = {field.name: field for field in (*KEYS, *MEASURED)}
SCHEMA = pa.schema([_FIELDS[name] for name in COLUMNS])

# Does all additions, in this process or spread over workers.
Add = Callable[[list[Addition]], None]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where an index is built: a new ``folder`` of the store, within ``limit`` bytes, by ``workers`` workers."""

    store: Store
    folder: str
    limit: int
    add: Add
    workers: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Base:
    """What building came to: the files, and the search setting with the recall it reached on ``queries`` queries."""

    files: tuple[File, ...]
    setting: MeasuredSetting
    queries: int


def build(site: Site, embeddings: Embeddings, kind: Kind, target: float, say: Callable[[str], object]) -> Base:
    """Build an index of a kind; raises JobFailed where it cannot reach the target recall."""
    store, folder = site.store, site.folder
    ids = write_table(store, f"{folder}/{IDS}", SCHEMA, ahead(embeddings.keys(COLUMNS)))
    if kind.name == "exact":
        blocks = (vectors for _, vectors in embeddings.blocks())
        file = publish_flat(store, f"{folder}/{BASE}", len(embeddings), embeddings.dim, blocks)
        return Base(files=(file, ids), setting=MeasuredSetting(nprobe=0, rerank=0, recall=1.0), queries=0)
    say(f"training {kind.factory}")
    drawn = ivf_training.sample(embeddings, kind, budget(kind.name, site.limit))
    trained = ivf_training.train(kind, embeddings.dim, drawn.training)
    ivf.prepare(store, folder, trained, drawn.queries)
    say("adding the vectors")
    width = faiss.extract_index_ivf(trained).code_size + 24
    tasks = [
        Addition(
            place=embeddings.reader.store.place,
            snapshot=embeddings.reader.snapshot,
            dim=embeddings.dim,
            out=store.place,
            folder=folder,
            start=start,
            end=end,
            options=site.options,
            writer=store.writer,
        )
        for start, end in ivf.ranges(len(embeddings), site.limit // 2 // width // site.workers, site.workers)
    ]
    site.add(tasks)
    say("merging the lists")
    merged = ivf.merge(store, f"{folder}/{LISTS}", tasks, trained)
    written = [index_files.publish_index(store, f"{folder}/{BASE}", trained, len(embeddings)), merged]
    if kind.name == "pq":
        blocks = (vectors for _, vectors in embeddings.blocks())
        written.append(publish_halves(store, f"{folder}/{VECTORS}", blocks, None))
    nearest = ivf.nearest_of(store, tasks, drawn.queries)
    store.delete(f"{folder}/{ivf.WORK}")
    say("measuring recall")
    setting = _tuned(store, tuple(written), kind, nearest.without(drawn.positions), drawn, target)
    return Base(files=(*written, ids), setting=setting, queries=len(drawn.positions))


def in_turn(tasks: list[Addition]) -> None:
    """Do all additions one after the other."""
    for task in tasks:
        ivf.add(task)


def _tuned(
    store: Store, written: tuple[File, ...], kind: Kind, nearest: Nearest, drawn: TrainingVectors, target: float
) -> MeasuredSetting:
    scratch = Path(tempfile.mkdtemp(prefix="cvjobs-index-"))
    try:
        paths = index_files.fetch(store, written, scratch)
        index = index_files.read_lists(paths[BASE], paths[LISTS])
        shard = Lists(index, 0, None, (1, 0), index_files.read_halves(paths.get(VECTORS), index.d))

        def search(queries: Floats, k: int, nprobe: int, rerank: int) -> Any:
            shard.nprobe, shard.rerank = nprobe, rerank
            return shard.search(queries, k)

        setting = recall.tune(search, nearest, drawn.positions, kind.lists, kind.name == "pq", target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if setting.recall < target:
        raise JobFailed(
            f"Kind {kind.name} reaches recall@10 {setting.recall:.4f} here, and --target-recall is {target}: "
            "take --kind exact, or a lower target; nothing was published."
        )
    return setting


def publish_flat(store: Store, name: str, count: int, dim: int, blocks: Iterable[Floats]) -> File:
    """Publish FAISS's file of an ``IndexFlatIP``, without ever holding the vectors."""

    def fill(file: BinaryIO) -> None:
        file.write(faiss_compat.flat_header(dim, count))
        for vectors in blocks:
            file.write(vectors.data)

    written = store.write(name, fill)
    return File(name=name, rows=count, bytes=written.bytes, sha256=written.sha256)


def publish_halves(store: Store, name: str, blocks: Iterable[Floats], old: Path | None) -> File:
    """Publish vectors as half floats, row after row, after those of an ``old`` file."""
    rows = 0

    def fill(file: BinaryIO) -> None:
        nonlocal rows
        if old is not None:
            with old.open("rb") as before:
                shutil.copyfileobj(before, file, index_files.BLOCK)
        for vectors in blocks:
            file.write(vectors.astype(np.float16).data)
            rows += len(vectors)

    written = store.write(name, fill)
    return File(name=name, rows=rows, bytes=written.bytes, sha256=written.sha256)
