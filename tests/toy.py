"""What the tests of the dataset layer share: a source of small files and a computer that only reads them.

A file that begins with BAD has no result, one that begins with FLAKY fails in a way that is tried again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from trees import STAMP, touch

from cvjobs.common.failures import Failure
from cvjobs.common.fingerprint import digest
from cvjobs.dataset import lock, parts, sealed, snapshot, snapshot_reader, update, versions
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.changes import Plan
from cvjobs.dataset.parts import Author
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.update import End, UpdateRequest
from cvjobs.dataset.verify import VerifyReport, verify
from cvjobs.prediction.engine.writer import error_rows
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import LocalSource
from cvjobs.sources.rows import Listing
from cvjobs.storage.local_store import LocalStore

SECONDS = itertools.count()
FACTS = {"model": "toy", "size": 2}
VALUE = pa.schema([("value", pa.string())])


@dataclass
class Toy:
    """A source folder (or list) and an output; ``computed`` are the paths of the last run."""

    source: Path
    out: Path
    every: int = 3
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    computed: list[str] = field(default_factory=list)
    reused: int = 0
    left: int = 0

    def put(self, name: str, content: str) -> None:
        """Write a file of the source, with an old time stamp that no other has."""
        touch(self.source / name, content.encode(), STAMP + next(SECONDS) * 1_000_000_000)

    def run(self, **options: Any) -> Snapshot:
        """Run once, as a command would."""
        with Run(self, **options) as run:
            return run.finish()

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.out)

    def verify(self, against_source: bool = True) -> VerifyReport:
        return verify(self.store, list_source(str(self.source)) if against_source else None)

    def rows(self) -> dict[str, str]:
        """Return the results by path, of the newest snapshot."""
        return pairs(snapshot_reader.open_dataset(str(self.out)).to_arrow(), "value")

    def failed(self) -> dict[str, str]:
        """Return the errors' codes by path."""
        return pairs(snapshot_reader.open_dataset(str(self.out)).errors(), "code")

    def wanted(self) -> dict[str, str]:
        """Return what the results must be."""
        contents = {p.name: p.read_text() for p in self.source.iterdir()}
        return {name: text for name, text in contents.items() if not text.startswith(("BAD", "FLAKY"))}

    def check(self) -> None:
        """Assert that the output is exact, for our readers and for others, and holds nothing else."""
        report = self.verify()
        assert report.problems == ()
        assert report.notes == ()
        assert report.exit_code == 0
        assert self.rows() == self.wanted()
        assert plain(self.out) == self.wanted()
        assert temporary(self.out) == []
        assert len(list((self.out / dataset_schema.VERSIONS).iterdir())) == 1


def forge(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the newest snapshot with other words, as if a run had published it so."""
    store = LocalStore(out)
    state = versions.newest(store)
    assert state is not None
    change(state.record)
    for name in (versions.name_of(state.number), versions.copy_of(state.number)):
        store.write_bytes(name, sealed.pack(state.record))


def six(root: Path) -> Toy:
    """Return a source of five images and a bad one, for parts of two."""
    made = Toy(root / "source", root / "out", every=2)
    for i in range(5):
        made.put(f"{i}.jpg", f"image {i}")
    made.put("bad.jpg", "BAD")
    return made


class Run:
    """One run that can be stopped between listing and end, as a process that sleeps is."""

    def __init__(self, toy: Toy, *, steal: bool = False, **options: Any) -> None:
        self.toy = toy
        self.listing = list_source(str(toy.source))
        self.store = LocalStore(toy.out)
        base = snapshot.latest(self.store)
        update.check_source(self.store, base, self.listing)
        fingerprint = digest(toy.facts)
        if not options.get("overwrite"):
            update.check_fingerprint(self.store, base, fingerprint, toy.facts)
        names = {f.name for f in (*dataset_schema.KEYS, *dataset_schema.MEASURED)}
        carried = pa.schema([f for f in self.listing.images.schema if f.name not in names])
        self.order = UpdateRequest(
            listing=self.listing,
            schema=dataset_schema.result_schema(carried, VALUE).with_metadata(
                {"cvjobs.fingerprint": fingerprint, "cvjobs.facts": dataset_schema.pack(toy.facts)}
            ),
            fingerprint=fingerprint,
            facts=toy.facts,
            hasher=hasher(self.listing),
            **options,
        )
        if steal:  # as after a minute of silence of a process that still exists
            expire(self.store)
        self.held = lock.held(self.store)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.__exit__()

    def finish(self, compute: update.Compute | None = None) -> Snapshot:
        snap, todo = update.update(self.store, self.held, self.order, compute or self.compute, lambda _: None)
        self.toy.reused, self.toy.left = todo.reused, todo.left
        return snap

    def compute(self, author: Author, todo: Plan) -> End:
        """Commit a part of results and errors for every few images."""
        self.toy.computed = todo.todo["path"].to_pylist()
        self.commit_failures(author, todo)
        for start in range(0, todo.todo.num_rows, self.toy.every):
            self.commit(author, todo.todo.slice(start, self.toy.every))
        return End()

    def commit_failures(self, author: Author, todo: Plan) -> None:
        if todo.failures.num_rows:
            found = [Failure("list", code, "as listed") for code in todo.failures["code"].to_pylist()]
            parts.commit(self.store, author, None, error_rows(todo.failures, found))

    def commit(self, author: Author, rows: pa.Table) -> parts.Part:
        good, values, bad, failures = [], [], [], []
        source = LocalSource(self.listing.root, self.listing.base)
        for i, row in enumerate(rows.to_pylist()):
            try:
                content = source.read(row["path"], row["bytes"], rows["modified"].cast(pa.int64())[i].as_py())
            except Unreadable as error:
                bad.append(i)
                failures.append(error.failure)
                continue
            if content.startswith((b"BAD", b"FLAKY")):
                bad.append(i)
                code = "corrupt" if content.startswith(b"BAD") else "read_io"
                failures.append(Failure("decode", code, content.decode()))
            else:
                good.append(i)
                values.append(content)
        return parts.commit(
            self.store,
            author,
            results(rows.take(pa.array(good, pa.int64())), values, self.order.schema),
            error_rows(rows.select([f.name for f in dataset_schema.KEYS]).take(pa.array(bad, pa.int64())), failures),
        )


def results(rows: pa.Table, contents: list[bytes], schema: pa.Schema) -> pa.Table:
    """Return result rows whose value is the content as text."""
    columns = {
        "content_hash": pa.array([xxhash.xxh3_128_digest(c) for c in contents], dataset_schema.ID),
        **{name: pa.array([1] * len(contents), pa.int32()) for name in ("width", "height", "frames")},
        "value": pa.array([c.decode() for c in contents], pa.string()),
    }
    return pa.table([columns[n] if n in columns else rows[n] for n in schema.names], schema=schema)


def hasher(listing: Listing) -> Any:
    folder = Path(listing.root or listing.base)

    def hashes(rows: pa.Table) -> list[bytes | None]:
        return [xxhash.xxh3_128_digest((folder / path).read_bytes()) for path in rows["path"].to_pylist()]

    return hashes


def pairs(table: pa.Table, column: str) -> dict[str, str]:
    if not table.num_columns:
        return {}
    found = dict(zip(table["path"].to_pylist(), table[column].to_pylist(), strict=True))
    assert len(found) == table.num_rows, "a path has more than one row"
    return found


def plain(out: Path) -> dict[str, str]:
    """Return the results as a program reads them that has none of our code."""
    files = list((out / "data").glob("*.parquet")) if (out / "data").exists() else []
    return pairs(pq.read_table(out / "data"), "value") if files else {}


def temporary(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if ".tmp-" in path.name]


def expire(store: LocalStore) -> None:
    """Make the heartbeat of the run that holds an output two minutes old."""
    holder = lock.holder(store)
    assert holder is not None, "no run holds it"
    record = json.loads(holder.content)
    record["heartbeat"] -= 120
    record["machine"] = "another"  # where nobody can look for its process
    name = f"{dataset_schema.LEASE}/hb-{lock.newest(store):06d}.json"
    (store.root / name).write_bytes(dataset_schema.pack(record))


def killed(run: Run, parts_committed: int) -> None:
    """Run until that many parts are committed, and then no further: what a killed process leaves."""

    class Kill(BaseException):
        pass

    def compute(author: Author, todo: Plan) -> End:
        run.commit_failures(author, todo)
        for n in range(parts_committed):
            rows = todo.todo.slice(n * run.toy.every, run.toy.every)
            if rows.num_rows:
                run.commit(author, rows)
        raise Kill

    try:
        run.finish(compute)
    except Kill:
        die(run)
    else:
        raise AssertionError("the run ended")


def die(run: Run) -> None:
    """Leave the lease as a process does that is gone: neither beating nor released."""
    run.held._stop.set()
    run.held._thread.join()
    record = {**run.held._holder, "pid": dead_pid()}
    name = f"{dataset_schema.LEASE}/hb-{run.held.epoch:06d}.json"
    if lock.newest(run.store) == run.held.epoch:
        (run.store.root / name).write_bytes(dataset_schema.pack(record))


def dead_pid() -> int:
    """Return the number of a process that has ended."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    return child


def other(toy: Toy, **changes: Any) -> Toy:
    """Return the same source and output under another model."""
    return replace(toy, facts={**toy.facts, **changes})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
