"""How fast `cvjobs embed` is beside a plain two-thread loop and beside Ray's recipe, on two cores.

python benchmarks/speed.py [--images N] [--long N] [--full] [--cache FOLDER]

Each candidate runs between two runs of the plain loop and is compared with their mean; where those two differ by
more than 10% the row is noisy. Steady: images per second from the first to the last result. Whole: the command's
wall time with its start and its imports.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import photos
import pyarrow.dataset as pds
from processes import Finished, embed, script, two_cores
from table import Row, noisy, show

MODELS: dict[str, tuple[str, ...]] = {
    "thumbnail/8": (),
    "torchvision/mobilenet_v2": ("--weights", "random"),
}
SHORT = 1000
TOLERANCE = 1e-3


def rows(images: int, long: int, full: bool, cache: Path) -> list[Row]:
    """Measure all ratios: at ``images``, at ``long`` (0 leaves that out) and a command on at most 1,000."""
    found = []
    for model in MODELS:
        found += ratios(
            model, images, cache, peer=images if model == "thumbnail/8" else min(images, max(images // 5, 200))
        )
        if long and (full or model == "thumbnail/8"):
            found.append(long_run(model, long, cache))
    return [*found, short_run(min(images, SHORT), cache)]


def ratios(model: str, images: int, cache: Path, peer: int) -> list[Row]:
    """Return steady and whole rows against the plain loop at ``images``, and against Ray's recipe at ``peer``."""
    source = photos.folder(images, cache)
    before, ours, after = _between(model, source, cache)
    what = f"{model}, {images:,} images: "
    steady, whole = _steady(before, after), mean((before.seconds, after.seconds))
    shared: dict[str, Any] = {"cpu": 1000 * ours.cpu / images, "raw": _raw(plain=before, ours=ours, plain_after=after)}
    return [
        Row(
            what=what + "steady img/s ÷ plain loop",
            value=ours.answer["images_per_second"] / steady,
            unit="×",
            bound="≥",
            target=0.85,
            noisy=noisy(before.answer["images_per_second"], after.answer["images_per_second"]),
            **shared,
        ),
        Row(
            what=what + "whole command − plain loop's",
            value=ours.seconds - whole,
            unit="s",
            bound="≤",
            target=8,
            noisy=noisy(before.seconds, after.seconds),
            **shared,
        ),
        *_beside_ray(model, peer, cache),
    ]


def _beside_ray(model: str, images: int, cache: Path) -> list[Row]:
    source = photos.folder(images, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        options = ("--model", model, *MODELS[model])
        before = embed(source, Path(scratch, "before"), *options)
        theirs = script("ray_recipe.py", source, Path(scratch, "ray"), *options)
        after = embed(source, Path(scratch, "after"), *options)
    what = f"{model}, {images:,} images: "
    shared: dict[str, Any] = {
        "unit": "×",
        "bound": "≥",
        "target": 3,
        "cpu": 1000 * mean((before.cpu, after.cpu)) / images,
        "raw": _raw(ours=before, ray=theirs, ours_after=after),
    }
    return [
        Row(
            what=what + "steady img/s ÷ Ray's recipe",
            value=_steady(before, after) / theirs.answer["images_per_second"],
            noisy=noisy(before.answer["images_per_second"], after.answer["images_per_second"]),
            **shared,
        ),
        Row(
            what=what + "Ray's recipe whole ÷ whole command",
            value=theirs.seconds / mean((before.seconds, after.seconds)),
            noisy=noisy(before.seconds, after.seconds),
            **shared,
        ),
    ]


def long_run(model: str, images: int, cache: Path) -> Row:
    """Return the row of whole commands at many images."""
    before, ours, after = _between(model, photos.folder(images, cache), cache)
    return Row(
        what=f"{model}, {images:,} images: plain loop's whole ÷ whole command",
        value=mean((before.seconds, after.seconds)) / ours.seconds,
        unit="×",
        bound="≥",
        target=0.75,
        cpu=1000 * ours.cpu / images,
        noisy=noisy(before.seconds, after.seconds),
        raw=_raw(plain=before, ours=ours, plain_after=after),
    )


def short_run(images: int, cache: Path) -> Row:
    """Return the row of a whole command on few images, the slower of two."""
    source = photos.folder(images, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        first, second = (embed(source, Path(scratch, name), "--model", "thumbnail/8") for name in ("first", "second"))
    return Row(
        what=f"thumbnail/8, {images:,} images: whole command",
        value=max(first.seconds, second.seconds),
        unit="s",
        bound="≤",
        target=8,
        cpu=1000 * mean((first.cpu, second.cpu)) / images,
        noisy=noisy(first.seconds, second.seconds),
        raw=_raw(first=first, second=second),
    )


def _between(model: str, source: Path, cache: Path) -> tuple[Finished, Finished, Finished]:
    """Run the plain loop, the command and the plain loop again; raises ValueError where their vectors differ."""
    options = ("--model", model, *MODELS[model])
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        plain, out = Path(scratch, "plain.parquet"), Path(scratch, "out")
        before = script("plain.py", source, plain, *options)
        ours = embed(source, out, *options)
        after = script("plain.py", source, plain, *options)
        difference = float(np.abs(_vectors(plain) - _vectors(out / "data")).max())
    if difference > TOLERANCE:
        raise ValueError(
            f"{model}: the vectors of the two sides differ by {difference}, so their times do not compare."
        )
    return before, ours, after


def _vectors(place: Path) -> npt.NDArray[np.float32]:
    """Return the (n, dim) vectors of a Parquet file or folder, in the order of their paths."""
    table = pds.dataset(place).to_table(["path", "embedding"]).sort_by("path").combine_chunks()
    column = table["embedding"].chunk(0)
    vectors: npt.NDArray[np.float32] = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors


def _steady(*runs: Finished) -> float:
    return mean(float(run.answer["images_per_second"]) for run in runs)


def _raw(**runs: Finished) -> dict[str, Any]:
    return {
        name: {
            "whole_seconds": round(run.seconds, 2),
            "own_seconds": round(run.answer["seconds"], 2),
            "images_per_second": round(run.answer["images_per_second"], 1),
            "cpu_seconds": round(run.cpu, 2),
        }
        for name, run in runs.items()
    }


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 3000)
    parser.add_argument("--long", type=int, default=20_000, help="images of the long run, 0 for none (default 20,000)")
    parser.add_argument("--full", action="store_true", help="the long run with mobilenet_v2 too: an hour on slow cores")
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.long, options.full, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
