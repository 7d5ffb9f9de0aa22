"""Odd labels, names and splits: cells of every type, folders that may be classes, splits, links or loops."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [
    "cat",
    "dog",
    "hot dog",
    "café",
    "naïve",
    "1",
    "2.0",
    "007",
    "nan",
    "train",
    "val",
    "a",
    "A",
    "n01440764",
    "日本",
]
AROUND = ["", "", "", " ", "\t", "\n", "\u00a0", "\ufeff", "\u200b", "'", '"', "_", "\\", "/"]
INSIDE = ["-cat", "=1+1", "a|b", "a,b", "a\nb", "x" * 300, "\x00", "\x1b[31m", "<b>", "{{x}}", "..", ".", "\ud800"]
FOLDERS = [
    "train",
    "Train",
    "training",
    "val",
    "valid",
    "test",
    "TEST",
    "boat",
    "car",
    "Car",
    "hot_dog",
    "hot dog",
    "nan",
]
NAMES = ["a.jpg", "A.JPG", "b.png", "ü.jpg", "u\u0308.jpg", "c d.jpg", "-e.jpg", "f.tar.jpg", "g", "h.txt", "i\nj.jpg"]
SPLITS = ["train", "Train ", "val", "valid", "test", "", None]


@dataclass(frozen=True)
class OddTable:
    """A list that was written, and what it has: the paths of its rows, and the column of the labels."""

    file: Path
    paths: list[str]
    column: str


def text(random: np.random.Generator, printable: bool = False) -> str:
    """Return a label as someone may have typed it."""
    if random.random() < 0.15:
        word = str(random.choice(INSIDE))
    else:
        word = str(random.choice(WORDS))
        word = str(random.choice([word, word.upper(), word.title(), word.replace(" ", "_")]))
        word = f"{random.choice(AROUND)}{word}{random.choice(AROUND)}"
    word = unicodedata.normalize("NFC" if random.random() < 0.5 else "NFD", word)
    return word.encode("utf-8", "ignore").decode() if printable else word


def column(random: np.random.Generator, count: int) -> pa.Array:
    """Return labels (count,) of some type of Arrow's."""
    texts = [text(random, printable=True) for _ in range(count)]
    holes = random.random(count) < 0.1
    nested: list[Any] = [texts[at : at + int(random.integers(0, 3))] for at in range(count)]
    kinds: list[tuple[list[Any], Any]] = [
        (texts, pa.string()),
        (texts, pa.large_string()),
        ([value.encode() for value in texts], pa.binary()),
        ([value.encode("utf-16") for value in texts], pa.large_binary()),
        (random.integers(-3, 4, count).tolist(), pa.int8()),
        (random.integers(0, 1 << 62, count).tolist(), pa.int64()),
        ([float(value) for value in random.choice([1, 2, 2.5, np.nan, np.inf, 1e300, -0.0], count)], pa.float64()),
        ([Decimal(int(value)) for value in random.integers(0, 3, count)], pa.decimal128(12, 2)),
        ((random.random(count) < 0.5).tolist(), pa.bool_()),
        (random.integers(0, 3, count).tolist(), pa.date32()),
        ([None] * count, pa.null()),
        (nested, pa.list_(pa.string())),
        ([[value.encode() for value in own] for own in nested], pa.large_list(pa.binary())),
        ([{"name": value} for value in texts], pa.struct([("name", pa.string())])),
    ]
    values, kind = kinds[int(random.integers(len(kinds)))]
    made = pa.array([None if hole else value for hole, value in zip(holes, values, strict=True)], kind)
    return made.dictionary_encode() if pa.types.is_string(kind) and random.random() < 0.3 else made


def table(random: np.random.Generator, place: Path, columns: tuple[str, ...] = ("label", "labels")) -> OddTable:
    """Write a Parquet or CSV of images that are there, or not, with their labels; return what it holds."""
    place.mkdir(parents=True, exist_ok=True)
    count = int(random.integers(2, 40))
    paths = [f"{number}{random.choice(['.jpg', '.JPG', '.png', ''])}" for number in range(count)]
    for path in paths:
        if random.random() < 0.95:
            (place / path).write_bytes(b"never opened")
    name = str(random.choice(columns))
    chosen: dict[str, Any] = {"path": paths, name: column(random, count)}
    if random.random() < 0.3:
        chosen["split"] = [SPLITS[int(at)] for at in random.integers(0, len(SPLITS), count)]
    made = pa.table(chosen)
    if random.random() < 0.6:
        file = place / "list.parquet"
        pq.write_table(made, file)
    else:
        file = place / "list.csv"
        made.to_pandas().to_csv(file, index=False, encoding=str(random.choice(["utf-8", "utf-8-sig"])))
    return OddTable(file, paths, name)


def folders(random: np.random.Generator, place: Path) -> Path:
    """Make a folder of folders that may be classes, splits, both or neither, and links, of which some are loops."""
    place.mkdir(parents=True, exist_ok=True)
    tops = random.choice(FOLDERS, int(random.integers(1, 6)), replace=False).tolist()
    for top in tops:
        below = [
            text(random).replace("/", "").replace("\x00", "")[:60] or "x" for _ in range(int(random.integers(0, 3)))
        ]
        for folder in [top, *(f"{top}/{name}" for name in below if name.strip(".") and random.random() < 0.7)]:
            own = place / folder.encode("utf-8", "ignore").decode()
            own.mkdir(parents=True, exist_ok=True)
            for name in random.choice(NAMES, int(random.integers(0, 5)), replace=False).tolist():
                if not (own / name).is_dir():
                    (own / name).write_bytes(b"never opened")
    targets = [".", "..", str(place), str(place / str(random.choice(tops))), "nowhere", str(place.parent / "beside")]
    (place.parent / "beside").mkdir(exist_ok=True)
    (place.parent / "beside" / "b.jpg").write_bytes(b"never opened")
    for number in range(int(random.integers(0, 4))):
        link = place / str(random.choice([*tops, "."])) / f"link{number}"
        if not link.exists() and link.parent.is_dir():
            link.symlink_to(str(random.choice(targets)))
    return place


def respelt(random: np.random.Generator, path: str) -> str:
    """Return the path of an image as another tool writes it."""
    ways = [
        path,
        path.replace("/", "\\"),
        f"./{path}",
        f"/data/{path}",
        f"C:\\data\\{path}",
        unicodedata.normalize("NFD", path),
        unicodedata.normalize("NFC", path),
        path.rpartition("/")[2],
        path.rpartition(".")[0] or path,
        f" {path}",
    ]
    return str(random.choice(ways))
