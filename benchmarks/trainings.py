"""How fast `cvjobs train` is beside a plain PyTorch loop, how soon it begins, and how well what it trained does.

python benchmarks/trainings.py [--quick] [--only NAME ...] [--cifar FOLDER] [--boxes FOLDER] [--masks FOLDER]

Speed: images per second from the second epoch on, of the command between two runs of the loop. NAME is speed, bounded
(a quarter and half of the images stay decoded), start, early (the first step on 10,000 and 1,000,000 images), workers,
fashion, autoencoder, detector or segmenter; ``--cifar`` is a folder of CIFAR-10's classes below train and val,
``--boxes`` one of COCO's train.json and val.json, ``--masks`` one of images and masks of 11 classes; without them
their rows are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import re
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import harmonic_mean, mean
from typing import NamedTuple

import encoders
import learning
import own_models
import photos
import pyarrow.parquet as pq
import record
from plain_training import RATIO, SCALE
from processes import BENCHMARKS, CVJOBS, run, start, threads, train, two_cores
from table import Row, noisy, show

EPOCHS = 3
CLASSES = 4
LINKED = 1000  # photos that many images are links to
PATIENCE = 300.0
STEPPED = re.compile(rb"step ([2-9]|\d\d+)/")


class Contest(NamedTuple):
    """A model at one size on some images, the loop's options, and how much faster the command is to be."""

    model: str
    side: int
    images: int
    options: tuple[str, ...]
    target: float
    kept: float = 1.0  # the share of the decoded images that stays

    @property
    def what(self) -> str:
        """Say what is compared."""
        loop = "with images in memory" if self.options else "that decodes JPEGs every epoch"
        name = self.model.removeprefix("torchvision/")
        part = "" if self.kept == 1 else f", of which {self.kept:.0%} stay decoded"
        return f"train {name} at {self.side}, {self.images:,} images{part}: img/s ÷ DataLoader loop {loop}"


def speed(quick: bool, cache: Path) -> list[Row]:
    """Return the rows of images per second: of the default model, and of a light one, for which decoding matters."""
    light, heavy = (600, 128) if quick else (4000, 448)
    contests = [
        Contest("torchvision/mobilenet_v2", 224, heavy, ("--decoded",), 1.0),
        Contest("small/cnn", 32, light, ("--decoded",), 1.0),
        Contest("small/cnn", 32, light, (), 1.5),
    ]
    return [_contest(contest, cache) for contest in contests]


def bounded(quick: bool, cache: Path) -> list[Row]:
    """Return the rows of images per second where a quarter, and half, of the images stay decoded."""
    images = 8000 if quick else 20_000
    shares = {0.25: 1.1, 0.5: 1.35}
    return [_contest(Contest("small/cnn", 32, images, (), goal, kept), cache) for kept, goal in shares.items()]


def _contest(contest: Contest, cache: Path) -> Row:
    source = _classes(contest.images, cache) if contest.kept == 1 else _linked(contest.images, cache)
    # At 4:3, as the photos are.
    size = round(contest.kept * contest.images * 4 * (1.5 * contest.side) ** 2)
    bound = () if contest.kept == 1 else ("--cache-size", str(size))
    same: tuple[str | Path, ...] = ("--model", contest.model, "--epochs", str(EPOCHS))
    loop = (sys.executable, BENCHMARKS / "plain_training.py", source / "train", "--side", str(contest.side))
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        out = Path(scratch, "run")
        before = run(*threads(), *loop, *same, *contest.options)
        ours = train(
            source, out, *same, *_augmentation(), "--img-size", str(contest.side), "--weights", "random", *bound
        )
        after = run(*threads(), *loop, *same, *contest.options)
        history = pq.read_table(out / "history.parquet").to_pydict()
    speeds = {
        "plain": before.answer["images_per_second"],
        "ours": history["images_per_second"],
        "plain_after": after.answer["images_per_second"],
    }
    # The first epoch warms up: allocators, the workers of the loop.
    steady = {side: harmonic_mean(each[1:]) for side, each in speeds.items()}
    return Row(
        what=contest.what,
        value=steady["ours"] / mean((steady["plain"], steady["plain_after"])),
        unit="×",
        bound="≥",
        target=contest.target,
        cpu=1000 * ours.cpu / (contest.images * EPOCHS),
        noisy=noisy(steady["plain"], steady["plain_after"]),
        raw={
            **{side: [round(value, 2) for value in each] for side, each in speeds.items()},
            "train_loss": {"plain": before.answer["losses"], "ours": history["train_loss"]},
        },
    )


def _augmentation() -> tuple[str, ...]:
    """Return what makes a recipe's step the loop's."""
    scale, ratio = (f"{low}:{high}" for low, high in (SCALE, RATIO))
    return ("--recipe", "finetune", "--color-jitter", "0", "--clip-grad", "0", "--scale", scale, "--ratio", ratio)


def _classes(count: int, cache: Path) -> Path:
    """Return a folder with ``count`` photos in classes below train, and a few below val."""
    made = cache / f"classes-{count}"
    if not made.is_dir():
        unfinished = cache / f".classes-{count}-{os.getpid()}"
        for number, path in enumerate(sorted(photos.folder(count + CLASSES, cache).rglob("*.jpg"))):
            link = unfinished / ("train" if number < count else "val") / f"class{number % CLASSES}" / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        unfinished.rename(made)
    return made


def _linked(count: int, cache: Path) -> Path:
    """Return a folder as ``_classes`` makes it, whose images are hard links to 1,000 photos."""
    made = cache / f"links-{count}"
    if not made.is_dir():
        unfinished = cache / f".links-{count}-{os.getpid()}"
        given = sorted(photos.folder(LINKED, cache).rglob("*.jpg"))
        for number in range(count + count // 20):
            path = given[number % LINKED]
            split = "train" if number < count else "val"
            link = unfinished / split / f"class{number % CLASSES}" / f"{number // 1000:04}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        unfinished.rename(made)
    return made


def early(quick: bool, cache: Path) -> list[Row]:
    """Return the rows of the time from the command to the end of its first step, however many images there are."""
    return [_first_of(count, cache) for count in ((2000, 20_000) if quick else (10_000, 1_000_000))]


def _first_of(count: int, cache: Path) -> Row:
    source = _linked(count, cache)
    ours, terminal = pty.openpty()  # what is not one has a line every 10 s
    termios.tcsetwinsize(terminal, (24, 200))
    with tempfile.TemporaryDirectory(dir=cache) as scratch, open(ours, "rb", buffering=0) as told:
        began = time.perf_counter()
        options = ("--model", "small/cnn", "--img-size", "64", "--epochs", "1")
        process = start(*threads(), *CVJOBS, "train", source, "-o", Path(scratch, "run"), *options, stderr=terminal)
        os.close(terminal)
        said = b""
        while not STEPPED.search(said):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                process.kill()
                raise RuntimeError(f"no step of a training was seen: {said.decode(errors='replace')}")
            with contextlib.suppress(OSError):  # it has ended
                said = said[-4000:] + told.read(4000)
        took = time.perf_counter() - began
        process.kill()
        process.wait()
    return Row(
        what=f"train small/cnn at 64, {count:,} images: from the command to the end of its first step",
        value=took,
        unit="s",
        bound="≤",
        target=30,
        raw={"seconds": round(took, 1)},
    )


def first_step(cache: Path) -> Row:
    """Return the row of the time from the start of a command with two workers to the end of its first step."""
    source = _classes(64, cache)
    took = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir=cache) as scratch, tempfile.TemporaryFile("w+") as errors:
            out = Path(scratch, "run")
            began = time.perf_counter()
            options = ("--model", "small/cnn", "--workers", "2", "--epochs", "1")
            process = start(*CVJOBS, "train", source, "-o", out, *options, stderr=errors)
            while not _stepped(out):
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    process.kill()
                    errors.seek(0)
                    raise RuntimeError(f"no step of a training was seen: {errors.read()[-2000:]}")
                time.sleep(0.05)
            took.append(time.perf_counter() - began)
            process.wait()
    return Row(
        what="train small/cnn --workers 2, 64 images: from the command to the end of its first step",
        value=max(took),
        unit="s",
        bound="≤",
        target=30,
        noisy=noisy(*took),
        raw={"seconds": [round(value, 1) for value in took]},
    )


def _stepped(run: Path) -> bool:
    """Whether a training's notes of where it is have a step that has ended."""
    for note in run.glob("_cvjobs/team/*/state.json"):
        with contextlib.suppress(OSError):  # a training that ends takes its notes away
            return bool(json.loads(note.read_bytes())["done"])
    return False


def steps(
    quick: bool, cache: Path, cifar: Path | None = None, boxes: Path | None = None, masks: Path | None = None
) -> dict[str, Callable[[], list[Row]]]:
    """Return what measures the rows of each name."""
    pictures = 2000 if quick else None
    found: dict[str, Callable[[], list[Row]]] = {
        "speed": lambda: speed(quick, cache),
        "bounded": lambda: bounded(quick, cache),
        "early": lambda: early(quick, cache),
        "start": lambda: [first_step(cache)],
        "workers": lambda: learning.workers(1000 if quick else 4000, 2 if quick else 4, cache),
        "fashion": lambda: learning.fashion_mnist(pictures, 2 if quick else 10, cache),
        "autoencoder": lambda: encoders.rows(pictures, 2 if quick else 5, cache),
        "detector": lambda: own_models.detector(quick, cache),
        "segmenter": lambda: own_models.segmenter(quick, cache),
    }
    if cifar is not None:
        found["cifar"] = lambda: [learning.cifar(cifar, cache)]
    if boxes is not None:
        found["boxes"] = lambda: own_models.cells(boxes, 2 if quick else 10, cache)
    if masks is not None:
        found["masks"] = lambda: own_models.streets(masks, 2 if quick else 20, cache)
    return found


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, keep what is done after each name, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=photos.default_cache(), help="where images are kept between runs")
    parser.add_argument("--quick", action="store_true", help="fewer images: minutes, and no values to quote")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names, as above, or cifar, boxes or masks")
    parser.add_argument("--cifar", type=Path, help="a folder of CIFAR-10's classes below train and val")
    parser.add_argument("--boxes", type=Path, help="a folder of images with train.json and val.json")
    parser.add_argument("--masks", type=Path, help="a folder of images and masks of 11 classes below train and val")
    options = parser.parse_args(arguments)
    two_cores()
    where = {**record.machine(), "threads": threads()[1]}
    table = record.place(options.cache, options.quick, "-training")
    rows: list[Row] = []
    for name, measure in steps(options.quick, options.cache, options.cifar, options.boxes, options.masks).items():
        if not options.only or name in options.only:
            rows += measure()
            record.save(table, where, rows)
    show(rows)
    print(table)
    return rows


if __name__ == "__main__":
    main()
