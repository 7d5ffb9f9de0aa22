"""Runs every benchmark and writes the dated table `benchmarks/results/YYYY-MM-DD.md`, and `.json` with raw numbers.

python benchmarks/bench.py [--quick] [--full] [--cache FOLDER]

All of it takes about an hour on two cores. ``--quick`` takes minutes, on fewer images, and writes its table
beside the photos: it checks the benchmarks, its values are not those that the targets are about.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cloud
import evaluation
import launching
import memory
import million
import photos
import prediction
import record
import resume
import retrieval
import speed
import trainings
from processes import two_cores
from table import Row, show


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run all, keep what is done after each, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=photos.default_cache(), help="where photos are kept between runs")
    parser.add_argument("--quick", action="store_true", help="fewer images: minutes, and no values to quote")
    parser.add_argument(
        "--full", action="store_true", help="20,000 images with mobilenet_v2 too: an hour on slow cores"
    )
    options = parser.parse_args(arguments)
    cache, quick = options.cache, options.quick
    two_cores()
    where = record.machine()
    table = record.place(cache, quick)
    steps: list[Callable[[], list[Row]]] = [
        lambda: speed.rows(300 if quick else 3000, 1000 if quick else 20_000, options.full, cache),
        lambda: launching.rows(10_000 if quick else 40_000, cache),
        lambda: resume.rows(300 if quick else 3000, 300 if quick else 3000, cache),
        lambda: cloud.rows(150 if quick else 600, cache),
        lambda: memory.rows(1000 if quick else 10_000, cache),
        lambda: prediction.rows(80 if quick else 400, cache),
        lambda: evaluation.rows(500 if quick else 5000, cache),
        lambda: retrieval.rows(100_000 if quick else 1_000_000, cache),
        lambda: million.rows(20_000 if quick else 1_000_000),
        *trainings.steps(quick, cache).values(),
    ]
    rows: list[Row] = []
    for step in steps:
        rows += step()
        record.save(table, where, rows)
    show(rows)
    print(table)
    return rows


if __name__ == "__main__":
    main()
