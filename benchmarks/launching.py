"""How much the process with the model does beside launching it: processor time an image, and the interpreter's lock.

python benchmarks/launching.py [--images N] [--cache FOLDER]

The images are JPEGs of 64 pixels a side, of which there are more in a second than of any others. The lock is looked
at while a stand-in for a model on a GPU runs: it takes 16 ms a batch of 256 images and does not hold the lock.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import photos
from processes import embed, script, two_cores
from table import Row, noisy, show

START = 4000  # images of the command whose time is that of the start
MODEL = "thumbnail/8"


def rows(images: int, cache: Path) -> list[Row]:
    """Measure with so many images, which must be more than 4,000; the lock with all of them."""
    source, few = photos.tiny(images, cache), photos.tiny(START, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        start = embed(few, Path(scratch, "start"), "--model", MODEL)
        first, second = (embed(source, Path(scratch, name), "--model", MODEL) for name in ("first", "second"))
        stand_in = script("stand_in.py", source, Path(scratch, "stand_in"))
    own = min(first.own, second.own) - start.own
    speeds = [float(run.answer["images_per_second"]) for run in (first, second)]
    shared: dict[str, Any] = {
        "noisy": noisy(*speeds),
        "cpu": 1000 * min(first.cpu, second.cpu) / images,
        "raw": {"own": [start.own, first.own, second.own], "img/s": speeds, "stand-in": stand_in.answer},
    }
    what = f"{MODEL}, {images:,} images of 64 pixels: "
    stand = f"stand-in of 16 ms a batch, {stand_in.answer['images_per_second']:,.0f} img/s: "
    return [
        Row(
            what=what + "own processor time without the start, with listing and publishing",
            value=1e6 * own / (images - START),
            unit="µs/image",
            **shared,
        ),
        Row(what=what + "img/s", value=max(speeds), unit="img/s", bound="≥", target=8000, **shared),
        Row(
            what=stand + "own processor time",
            value=1e6 * stand_in.answer["own"],
            unit="µs/image",
            bound="≤",
            target=30,
            **shared,
        ),
        Row(
            what=stand + "lock held",
            value=stand_in.answer["held"],
            unit="of 1",
            bound="≤",
            target=0.2,
            **shared,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 40_000)
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
