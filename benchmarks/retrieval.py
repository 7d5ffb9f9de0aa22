"""What an index of a million vectors costs to build, to search and to keep up to date, each beside a baseline.

python benchmarks/retrieval.py [--vectors N] [--cache FOLDER]

The vectors are made up: Gaussian clusters of about 200 in 16 dimensions, turned into 128 with a little noise, because
the embeddings of images vary in far fewer directions than they have numbers. They are written through the functions
that a run writes rows with.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import photos
import pyarrow as pa
from processes import CORES, CVJOBS, Finished, run, two_cores
from table import Row, noisy, show

from cvjobs.dataset import parts, snapshot
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.indexing.search.opened_index import Index, open_index
from cvjobs.indexing.vectors import open_embeddings, unit
from cvjobs.storage.store import open_store

DIM = 128
CLUSTER = 200
LATENT = 16
ROWS_A_FILE = 50_000
QUERIES = 2000
EXACT = 50_000
K = 10
BASELINE_LISTS = 4096

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def rows(count: int, cache: Path) -> list[Row]:
    """Measure on ``count`` vectors, with the memory that the target for a million allows, scaled down."""
    limit = 400 * count // 1_000_000
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        source, out = folder / "vectors", folder / "index"
        write(source, count, 1)
        reading = seconds(lambda: read(source))
        built = index(source, out, f"{limit}MB")
        with open_index(str(out)) as opened:
            stored = np.concatenate([vectors for _, vectors in chunks(count)])
            searched = searching(opened, stored)
        spread = index(source, folder / "spread", f"{limit}MB", "--workers", "2")
        again = index(source, folder / "again", f"{limit}MB")
        write(source, count + count // 100, 2)
        updated = index(source, out, f"{limit}MB")
        write(folder / "some", min(count, EXACT), 1)
        index(folder / "some", folder / "exact", "1GB", "--kind", "exact")
        with open_index(str(folder / "exact")) as opened:
            searched.append(exact(opened, stored[: min(count, EXACT)]))
    assert updated.answer["added"] == count // 100
    what = f"{count:,} × {DIM}"
    steady = noisy(built.seconds, again.seconds)
    whole = (built.seconds + again.seconds) / 2
    raw = {name: round(run.seconds, 1) for name, run in (("first", built), ("again", again), ("workers", spread))}
    return [
        Row(what=f"{what}: built", value=built.seconds, unit="s", bound="≤", target=300, noisy=steady, raw=raw),
        Row(
            what=f"{what}: memory of all processes",
            value=built.pss,
            unit="MiB",
            bound="≤",
            target=limit / 1.048576 + 477,
        ),
        Row(
            what=f"{what}: built by 2 workers ÷ by one process",
            value=spread.seconds / whole,
            unit="×",
            bound="≤",
            target=1.2,
            noisy=steady,
        ),
        Row(
            what=f"{what}: 1% added ÷ built",
            value=updated.seconds / whole,
            unit="×",
            bound="≤",
            target=0.05,
            noisy=steady,
        ),
        Row(
            what=f"{what}: vectors read alone ÷ built",
            value=reading / whole,
            unit="×",
            bound="≤",
            target=0.1,
            noisy=steady,
        ),
        *searched,
    ]


def index(source: Path, out: Path, limit: str, *options: str) -> Finished:
    """Run ``cvjobs index``."""
    return run(
        "env",
        f"OMP_NUM_THREADS={CORES}",
        *CVJOBS,
        "index",
        source,
        "-o",
        out,
        "--max-memory",
        limit,
        "--json",
        *options,
        memory=True,
    )


def chunks(count: int) -> Iterator[tuple[int, Floats]]:
    """Yield first rows and vectors, the same for every count."""
    fixed = np.random.default_rng(0)
    centres = fixed.normal(size=(1_000_000 // CLUSTER, LATENT))
    turn = fixed.normal(size=(LATENT, DIM)) / np.sqrt(LATENT)
    for start in range(0, count, ROWS_A_FILE):
        random = np.random.default_rng(start)
        rows = min(ROWS_A_FILE, count - start)
        points = centres[random.integers(0, len(centres), rows)] + 0.65 * random.normal(size=(rows, LATENT))
        yield start, np.asarray(points @ turn + 0.1 * random.normal(size=(rows, DIM)), np.float32)


def write(out: Path, count: int, version: int) -> None:
    """Publish a snapshot of an embeddings output."""
    store = open_store(str(out), "r000001")
    author = parts.Author(run="r000001-00000000", epoch=0, fingerprint="f" * 64, listed=0)
    store.create(dataset_schema.FORMAT, dataset_schema.pack({"format": "cvjobs", "version": 1, "source": "/none"}))
    embedding = pa.field("embedding", pa.list_(pa.field("item", pa.float32()), DIM))
    schema = dataset_schema.result_schema(pa.schema([]), pa.schema([embedding]))
    files = []
    for start, vectors in chunks(count):
        names = [f"image{number:08}.jpg" for number in range(start, start + len(vectors))]
        ids = pa.array([hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names], dataset_schema.ID)
        one = pa.array(np.ones(len(names), np.int32))
        columns = {"path": pa.array(names), "image_id": ids, "content_hash": ids, "width": one, "height": one}
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
        columns |= {"bytes": one, "frames": one, "version": one, "modified": one.cast(pa.int64())}
        table = pa.table([columns[f.name].cast(f.type) for f in schema], schema=schema)
        part = parts.commit(store, author, table, None)
        assert part.results is not None
        files.append(part.results)
    new = Snapshot(version=version, run=author.run, fingerprint=author.fingerprint, source="/none", root="/none")
    assert snapshot.publish(store, Snapshot(**{**vars(new), "wanted": count, "results": tuple(files)}))


def read(source: Path) -> None:
    """Read all vectors."""
    for _ in open_embeddings(open_store(str(source))).blocks():
        continue


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes, the best of five times."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def searching(opened: Index, stored: Floats) -> list[Row]:
    """Compare with FAISS's IVF of full vectors, tuned to the same recall; both are measured against exact search."""
    own = np.random.default_rng(7).choice(len(stored), min(QUERIES, len(stored) // 10), replace=False)
    vectors = unit(stored)
    queries = vectors[own]
    _, true = faiss.knn(queries, vectors, K + 1, metric=faiss.METRIC_INNER_PRODUCT)
    reached = recall(opened.search(queries, K + 1)[1], true, own)
    lists = min(BASELINE_LISTS, len(stored) // 40)
    baseline = faiss.index_factory(DIM, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    baseline.train(vectors[:: max(1, len(vectors) // (64 * lists))])
    baseline.add(vectors)
    for baseline.nprobe in range(1, lists + 1):
        if recall(baseline.search(queries, K + 1)[1], true, own) >= reached:
            break
    before = seconds(lambda: baseline.search(queries, K))
    ours = seconds(lambda: opened.search(queries, K))
    after = seconds(lambda: baseline.search(queries, K))
    what = f"{len(stored):,} × {DIM}"
    raw = {"nprobe": opened.generation.nprobe, "baseline_nprobe": baseline.nprobe, "recall": reached}
    return [
        Row(what=f"{what}: recall@10", value=reached, unit="×", bound="≥", target=0.95, raw=raw),
        Row(
            what=f"{what}: QPS ÷ FAISS IVF{lists},Flat at equal recall",
            value=(before + after) / 2 / ours,
            unit="×",
            bound="≥",
            target=1.5,
            noisy=noisy(before, after),
            raw={**raw, "queries_per_second": round(len(queries) / ours)},
        ),
    ]


def recall(rows: Ints, true: Ints, own: Ints) -> float:
    """Return recall@10 of queries that are rows themselves, which do not count."""
    found = [
        len(set(mine[mine != self][:K]) & set(theirs[theirs != self][:K]))
        for mine, theirs, self in zip(rows, true, own, strict=True)
    ]
    return float(np.mean(found)) / K


def exact(opened: Index, stored: Floats) -> Row:
    """Compare exact search with the matrix product that it consists of."""
    vectors, queries = unit(stored), unit(stored[:QUERIES])
    turned = np.ascontiguousarray(vectors.T)
    before = seconds(lambda: queries @ turned)
    ours = seconds(lambda: opened.search(queries, K))
    after = seconds(lambda: queries @ turned)
    return Row(
        what=f"{len(stored):,} × {DIM}, exact: search ÷ bare matrix product",
        value=(before + after) / 2 / ours,
        unit="×",
        bound="≥",
        target=0.9,
        noisy=noisy(before, after),
        raw={"product_seconds": round(before, 3), "search_seconds": round(ours, 3)},
    )


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="how many vectors (default 1,000,000)")
    parser.add_argument("--cache", type=Path, default=photos.default_cache(), help="where scratch files go")
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.vectors, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
