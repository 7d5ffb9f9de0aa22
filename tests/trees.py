"""What the tests of the listing share: making files and tables, and looking at a listing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvjobs.common.errors import WrongUse
from cvjobs.sources.rows import Listing

NOBODY = 65534
STAMP = 1_700_000_000_123_456_789


def touch(path: Path | bytes, content: bytes = b"x", modified_ns: int = STAMP) -> None:
    """Make a file, and the folders above it."""
    raw = os.fsencode(path)
    os.makedirs(os.path.dirname(raw), exist_ok=True)
    with open(raw, "wb") as file:
        file.write(content)
    os.utime(raw, ns=(modified_ns, modified_ns))


def paths(listing: Listing) -> list[str]:
    found: list[str] = sorted(listing.images["path"].to_pylist())
    return found


def failed(listing: Listing) -> dict[str, str]:
    table = listing.failures
    return dict(zip(table["path"].to_pylist(), table["code"].to_pylist(), strict=True))


def versions(listing: Listing) -> dict[str, int]:
    table = listing.images
    return dict(zip(table["path"].to_pylist(), table["version"].to_pylist(), strict=True))


def as_nobody(call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns in a child process whose user is nobody (modes do not bind root)."""
    if os.geteuid() != 0:
        return call()
    pa.scalar(STAMP, pa.timestamp("ns", "UTC")).as_py()  # imports what nobody may not be able to read
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with os.fdopen(write_end, "wb") as pipe:
                try:
                    pickle.dump(call(), pipe)
                except WrongUse as error:
                    pickle.dump(error, pipe)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        result = pickle.load(pipe)
    os.waitpid(child, 0)
    return result


def opened(folder: Path) -> Path:
    """Let nobody reach a folder of pytest's, and return it."""
    for above in (folder, *folder.parents[:3]):  # with one for each of several workers
        above.chmod(0o755)
    return folder


def write_table(file: Path, columns: dict[str, Any]) -> Path:
    """Write a table as Parquet, CSV or TSV, as the name says."""
    table = pa.table(columns)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        separator = "\t" if file.suffix == ".tsv" else ","
        lines = [table.schema.names, *([str(value) for value in row.values()] for row in table.to_pylist())]
        file.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    return file
