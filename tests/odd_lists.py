"""Lists as other programs, hands and accidents write them: every format, encoding and line end, whole or broken."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from trees import STAMP

NAMES = ("a.jpg", "b b.png", "caf\u00e9.jpg", "d/e.jpg", "_DSC0002.JPG", "q'\",.jpg", "🦊.webp", "#h.jpg", " lead.jpg")
GONE = (
    *(
        "gone.jpg",
        "../gone.jpg",
        "/nowhere/a.jpg",
        "d",
        "d/e.jpg/x",
        "~/a.jpg",
        "images\\a.jpg",
        "x" * 300,
        "nul\0.jpg",
    ),
    *(
        "file:///nowhere/b.jpg",
        "file:///%00",
        "s3:///x",
        "https://[::1/a.jpg",
        ".",
        "..",
        "/",
        "//",
        "\u202e",
        "\x1b[31m",
    ),
)
COLUMNS = ("label", "split", "n", "Tag", "é", "", "x" * 60, "a b", "weights", "path ")
CELLS = (
    "",
    "1",
    "007",
    "cat ",
    "caf\u00e9",
    "new\nline",
    'quote "',
    "a,b",
    "a\tb",
    "\u2028",
    "NaN",
    "None",
    "=1+1",
    "y" * 3000,
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1", "cp1252", "shift-jis")
ENDS = ("\n", "\r\n", "\r")


@dataclass
class OddList:
    """A list that was made; ``rows`` is how many it has, None where it is broken and may say anything or be refused."""

    file: Path
    rows: int | None
    what: str


def odd_list(rng: np.random.Generator, folder: Path) -> OddList:
    """Make a list in a folder, and the files that it may name."""
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"image {name}")
        os.utime(folder / name, ns=(STAMP, STAMP))
    count = int(rng.integers(0, 12))
    paths = [_path(rng, folder) for _ in range(count)]
    suffix = (".txt", ".lst", ".csv", ".tsv", ".parquet", ".CSV")[rng.integers(6)]
    file = folder / f"list{suffix}"
    if suffix == ".parquet":
        pq.write_table(_table(rng, paths), file, row_group_size=int(rng.integers(1, 9)))
        encoding = "parquet"
    else:
        end = ENDS[rng.integers(len(ENDS))]
        encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
        text = _lines(rng, paths, end) if suffix in (".txt", ".lst") else _rows(rng, paths, suffix, end)
        file.write_bytes(text.encode(encoding, errors="replace"))
    whole = encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "parquet")
    if rng.integers(3) == 0:
        file.write_bytes(_damaged(rng, file.read_bytes()))
        whole = False
    if suffix in (".txt", ".lst"):
        # What such a list cannot say: lines that are comments, or that end within a name.
        paths = [path for path in paths if path.strip() and not path.startswith("#") and "\n" not in path]
    return OddList(file, len(paths) if whole else None, f"{suffix} {encoding}")


def _path(rng: np.random.Generator, folder: Path) -> str:
    kind = rng.integers(5)
    name = NAMES[rng.integers(len(NAMES))]
    if kind == 0:
        return GONE[rng.integers(len(GONE))]
    if kind == 1:
        return f"{folder}/{name}"
    return f"./{name}" if kind == 2 else name


def _lines(rng: np.random.Generator, paths: list[str], end: str) -> str:
    noise = ("", "# comment", "  ")
    lines = [line for path in paths for line in ([path, noise[rng.integers(3)]] if rng.integers(4) == 0 else [path])]
    return end.join(lines) + end * int(rng.integers(3))


def _rows(rng: np.random.Generator, paths: list[str], suffix: str, end: str) -> str:
    columns = _columns(rng)
    at = int(rng.integers(len(columns) + 1))
    columns.insert(at, ("path", "uri", "file", "image")[rng.integers(4)])
    out = io.StringIO()
    # Before Python 3.13 the writer quotes no other ends of lines than its own.
    least = end == "\r\n" and bool(rng.integers(2))
    writer = csv.writer(
        out,
        delimiter="\t" if suffix == ".tsv" else ",",
        lineterminator=end,
        quoting=csv.QUOTE_MINIMAL if least else csv.QUOTE_ALL,
    )
    writer.writerow(columns)
    for path in paths:
        cells = [CELLS[rng.integers(len(CELLS))] for _ in columns]
        cells[at] = path
        writer.writerow(cells)
        if rng.integers(5) == 0:
            out.write(end)
    text = out.getvalue()
    return text[: len(text) - len(end)] if rng.integers(4) == 0 else text


def _columns(rng: np.random.Generator) -> list[str]:
    return [COLUMNS[i] for i in rng.permutation(len(COLUMNS))[: rng.integers(4)]]


def _table(rng: np.random.Generator, paths: list[str]) -> pa.Table:
    kinds = (pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
    kind = kinds[rng.integers(len(kinds))]
    plain = pa.array(paths, pa.string())
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    makers: tuple[Any, ...] = (
        lambda n: pa.array([7] * n, pa.int64()),
        lambda n: pa.array([None] * n, pa.float64()),
        lambda n: pa.array([float("nan")] * n, pa.float32()),
        lambda n: pa.array(["a", None] * n, pa.string())[:n].dictionary_encode(),
        lambda n: pa.array([[1, 2], None] * n, pa.list_(pa.int8()))[:n],
        lambda n: pa.array([{"x": 1}] * n, pa.struct([("x", pa.int16())])),
        lambda n: pa.array([b"\xff\0"] * n, pa.binary()),
        lambda n: pa.array([True] * n, pa.bool_()),
        pa.nulls,
        lambda n: pa.array([10**15] * n, pa.timestamp("us", "UTC")),
    )
    columns = {name: makers[rng.integers(len(makers))](len(paths)) for name in _columns(rng)}
    return pa.table({**columns, "path": column})


def _damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Cut, change, add or repeat some bytes."""
    raw = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(raw) + 1))
        kind = rng.integers(6)
        if kind == 0:
            del raw[at:]
        elif kind == 1:
            raw[at:at] = rng.integers(0, 256, 3, np.uint8).tobytes()
        elif kind == 2:
            raw[at:at] = rng.choice(
                [b'"', b"\0", b"\r", b"\n", b",", b"\t", b"\xff\xfe", b'""', b'"\n', b"\xef\xbb\xbf"]
            )
        elif kind == 3:
            del raw[at : at + int(rng.integers(1, 9))]
        elif kind == 4:
            raw[at:at] = raw[: int(rng.integers(40))]
        elif at < len(raw):
            raw[at] ^= 1 << int(rng.integers(8))
    return bytes(raw)
