"""How well `cvjobs train` does: two workers beside one, Fashion-MNIST from scratch, CIFAR-10 fine-tuned."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import fashion
import pyarrow.parquet as pq
from processes import train
from table import Row

SEEDS = (0, 1, 2)
# Its images have 32x32 pixels; at the 224 of the weights the same training takes five times as long.
CIFAR = ("--img-size", "96")
SMALL = ("--model", "small/cnn", "--img-size", "28", "--recipe", "quick")


def workers(images: int, epochs: int, cache: Path) -> list[Row]:
    """Return how far two workers' last epoch is from one worker's, in spreads of the seeds; none without the images.

    The spread is that of one worker's values: the highest less the lowest.
    """
    source = fashion.folder(cache, images)
    if source is None:
        return []
    found: dict[str, list[dict[str, float]]] = {"1": [], "2": []}
    for count, rows in found.items():
        for seed in SEEDS:
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                out = Path(scratch, "run")
                train(source, out, *SMALL, "--epochs", str(epochs), "--seed", str(seed), "--workers", count)
                rows.append(pq.read_table(out / "history.parquet").to_pylist()[-1])
    what = f"train small/cnn on {images:,} images of Fashion-MNIST, 3 seeds"
    names = {"train_loss": "final loss", "metric": "top-1 on val"}
    return [
        _apart(f"{what}: {said}", [[row[name] for row in rows] for rows in found.values()])
        for name, said in names.items()
    ]


def _apart(what: str, values: list[list[float]]) -> Row:
    one, two = values
    return Row(
        what=f"{what}, |two workers − one| ÷ spread of the seeds",
        value=abs(mean(two) - mean(one)) / (max(one) - min(one)),
        unit="×",
        bound="≤",
        target=1.0,
        raw={"one": one, "two": two},
    )


def fashion_mnist(images: int | None, epochs: int, cache: Path) -> list[Row]:
    """Return the accuracy on the test images after ``epochs`` epochs from scratch, and the time; none without them."""
    source = fashion.folder(cache, images)
    if source is None:
        return []
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        run = train(source, Path(scratch, "run"), *SMALL, "--epochs", str(epochs))
    what = f"train small/cnn from scratch on Fashion-MNIST, {epochs} epochs"
    raw = {name: run.answer[name] for name in ("metric", "test_metric", "images", "images_per_second", "best_epoch")}
    return [
        Row(
            what=f"{what}: top-1 on test",
            value=run.answer["test_metric"],
            unit="top-1",
            bound="≥",
            target=0.92,
            raw=raw,
        ),
        Row(what="the same: whole command", value=run.seconds, unit="s", bound="≤", target=1200),
    ]


def cifar(source: Path, cache: Path) -> Row:
    """Return the accuracy of the default model and recipe on the val images of a folder."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        run = train(source, Path(scratch, "run"), *CIFAR)
    raw: dict[str, Any] = {name: run.answer[name] for name in ("metric", "best_epoch", "images", "seconds")}
    return Row(
        what="train the default model on 10,000 images of CIFAR-10, --img-size 96: top-1 on val",
        value=run.answer["metric"],
        unit="top-1",
        bound="≥",
        target=0.85,
        raw=raw,
    )
