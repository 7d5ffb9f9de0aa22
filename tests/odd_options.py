"""Odd values for the options of every command, as the help knows them, and whole command lines of such values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
from commands import aged, here
from PIL import Image

from cvjobs.config import commands, fields
from cvjobs.config.fields import Field

NUMBERS = [
    *("0", "-0", "1", "-1", "2", "3", "0.5", "1.5", "-0.5", "0.0009", "1.0000001", "1e3", "1e-3", "1e-400", "5e-324"),
    *("nan", "-nan", "inf", "-inf", "1e400", "9" * 30, "-" + "9" * 30, "9" * 5000, "9223372036854775807"),
    *("", " ", " 3 ", "1/2", "½", "٣", "²", "0x10", "1_000", "1,5", "1.000.000", "--1", "+2", "2**3", "1e", "e5"),
    *("True", "None", "null", "auto", "[]", "1 2", "é", "\udc80", "\x1b[1m", "1\n2"),
]
TEXTS = [
    "",
    " ",
    "x",
    "é ü",
    "e\u0301",
    "a,b",
    ",",
    "-",
    "--",
    "../..",
    "~nobody/x",
    "a" * 5000,
    "\x1b[1m",
    "\n",
    "*",
    "[",
    "{}",
]
TEXTS += [
    "0",
    "1e400:1",
    ":",
    "1:0",
    "0.5:0.9",
    "flip,0",
    "flip,nan",
    "1GB",
    "0 GB",
    "nan MB",
    "k=v",
    "=",
    "k=",
    "http://",
    "s3://",
]
TIMES = ["0 2 * * *", "* * * *", "61 * * * *", "@daily", "0 0 30 2 *", "*/0 * * * *", "", "é * * * *", "0-99 * * * *"]


def every() -> Iterator[tuple[str, Field]]:
    """Every option of every command."""
    for name in commands.files():
        for field in fields.fields(commands.load(name).Config).values():
            yield name, field


def numeric() -> list[tuple[str, Field]]:
    """The options that take a number."""
    return [(name, field) for name, field in every() if field.kind in (int, float)]


def right(field: Field, text: str) -> bool:
    """Whether a text is a number that an option takes, as its help says it."""
    try:
        number = field.kind(text)
    except ValueError:
        return field.worded
    low, high = field.range
    return not math.isnan(number) and low <= number <= high


def least(command: str) -> list[str]:
    """A command line that names no file that is there, with a value for all that must have one."""
    words = [command]
    for field in fields.fields(commands.load(command).Config).values():
        if field.required:
            value = get_args(field.kind)[0] if get_origin(field.kind) is Literal else "nothing-here"
            words += [value] if field.positional else [long(field), value]
    return words


def long(field: Field) -> str:
    """The long spelling of an option."""
    return field.spelt.rpartition("/")[2]


class OptionWorld:
    """A few images and what each command makes of them, made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        random = np.random.default_rng(0)
        for number in range(8):
            image = root / "photos" / "ab"[number % 2] / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(image)
        self.photos = aged(root / "photos")
        (root / "empty.txt").touch()
        (root / "names.txt").write_text("a\nb\n")
        (root / "night.yaml").write_text("steps:\n  - models: {}\nstate: state\n")

    def _made(self, *words: object) -> Path:
        ended = here(*words)
        assert ended.code == 0, ended
        return Path(str(words[words.index("-o") + 1]))

    @cached_property
    def vectors(self) -> Path:
        return self._made("embed", self.photos, "-o", self.root / "vectors", "--model", "thumbnail/8")

    @cached_property
    def index(self) -> Path:
        return self._made("index", self.vectors, "-o", self.root / "index")

    @cached_property
    def run(self) -> Path:
        return self._made("train", self.photos, "-o", self.root / "run", *TRAIN, "--epochs", "1")

    @cached_property
    def labels(self) -> Path:
        return self._made("classify", self.photos, "-o", self.root / "labels", "--model", self.run)


TRAIN = ("--model", "small/cnn", "--recipe", "quick", "--weights", "random", "--img-size", "8", "--batch-size", "4")
CHEAP = ("embed", "index", "query", "export", "verify", "schedule", "models", "unlock", "run", "jobs", "cluster")
ALL = (*CHEAP, *["train"] * 6, *["classify", "eval", "query", "embed", "index"] * 2)
HUGE = ("k", "limit", "top", "max_pixels", "max_det", "seed", "patience", "accumulate")  # what takes no memory
FITTING = {
    "scale": ["0.5:1", "1", "0.01:0.02", "1e-9:1"],
    "ratio": ["0.5:2", "1", "1e-9:1e9", "0.75:1.33"],
    "img_size": ["8", "8:16", "16:8", "1", "33"],
    "freeze_until": ["layer", "0", "head"],
    "max_memory": ["1GB", "400MB", "1 B", "9999999999GB", "0.5GiB"],
    "classes": ["a,b", "0,1", "a"],
    "weights": ["random", "pretrained"],
    "price": ["1", "gpu=2.5", "0"],
    "labels": [],
    "format": ["coco", "csv", "jsonl", "yolo"],
    "cron": TIMES[:1],
}
# What starts Ray, other programs or a network, or stops other programs; and what is in the line already.
LEFT_OUT = frozenset(
    {"workers", "address", "notify_command", "storage_option", "action", "yes", "out", "model", "epochs"}
)


def line(world: OptionWorld, random: np.random.Generator, out: Path, names: tuple[str, ...]) -> list[str]:
    """A command line that works, and one to four options with values that are odd as often as not."""
    command = str(random.choice(names))
    lines: dict[str, Callable[[], tuple[Any, ...]]] = {
        "embed": lambda: (world.photos, "-o", out, "--model", "thumbnail/8"),
        "classify": lambda: (world.photos, "-o", out, "--model", world.run),
        "train": lambda: (world.photos, "-o", out, *TRAIN, "--epochs", "1"),
        "index": lambda: (world.vectors, "-o", out),
        "query": lambda: (world.index, world.photos),
        "eval": lambda: (world.labels, world.photos, "-o", out),
        "export": lambda: (world.labels if "train" in names else world.vectors, "--format", "jsonl", "-o", out),
        "verify": lambda: (world.vectors,),
        "unlock": lambda: (world.vectors, "--yes"),
        "run": lambda: (world.root / "night.yaml", "--dry-run"),
        "schedule": lambda: (world.root / "night.yaml", "--cron", str(random.choice(TIMES))),
        "models": lambda: (),
        "jobs": lambda: ("list", "--address", "http://127.0.0.1:1"),
        "cluster": lambda: ("status",),
    }
    words = [command, *map(str, lines[command]())]
    known = [field for field in fields.fields(commands.load(command).Config).values() if field.name not in LEFT_OUT]
    for field in random.permutation(np.array([*known, None], object))[: random.integers(1, 8)]:
        if field is not None and not field.positional:
            words += given(world, random, field, out)
    return words


def given(world: OptionWorld, random: np.random.Generator, field: Field, out: Path) -> list[str]:
    """The words that give an option a value, which may be none that it takes."""
    if field.kind is bool:
        return [long(field)]
    odd = random.random() < 0.2
    if get_origin(field.kind) is Literal:
        values = [str(random.choice(TEXTS))] if odd else [*get_args(field.kind)]
    elif field.kind in (int, float):
        low, high = field.range
        safe = abs(high) <= 4096 or field.kind is float or field.name in HUGE
        values = [str(field.kind(low)), "4", "0.5", "1", "1e-9", *[str(field.kind(high))] * safe]
        values = [text for text in values if right(field, text)]
        if odd:
            values = [text for text in NUMBERS if not right(field, text)] or values
    else:
        places = [world.photos, world.root / "empty.txt", world.root / "names.txt", out, out / "none" / "x", world.root]
        values = FITTING.get(field.name) or [*map(str, places)]
        if odd:
            values = [*map(str, places), *TEXTS]
    value = str(random.choice(np.array(values, object)))
    return [f"{long(field)}={value}"] if long(field).startswith("--") else [long(field), value]
