"""Runs every benchmark and writes the dated table `benchmarks/results/YYYY-MM-DD.md`, and `.json` with raw numbers.

python benchmarks/bench.py [--quick] [--full] [--cache FOLDER]

All of it takes about twenty minutes on two cores. ``--quick`` takes minutes, on fewer images, and writes its table
beside the photos: it checks the benchmarks, its values are not those that the targets are about.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cloud
import evaluation
import memory
import million
import photos
import prediction
import psutil
import resume
import retrieval
import speed
from processes import CORES, ENVIRONMENT, two_cores
from table import Row, markdown, show

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("cvjobs", "ray", "torch", "torchvision", "torchcodec", "pillow", "pyarrow")


def machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code, and the commit of the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"),
        "cores_used": CORES,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "threads": f"OMP_NUM_THREADS={ENVIRONMENT['OMP_NUM_THREADS']}",
    }


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def save(table: Path, where: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write the rows so far, as Markdown to ``table`` and as JSON beside it."""
    table.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": where, "rows": [row.record() for row in rows]}
    table.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    facts = ", ".join(f"{key} {value}" for key, value in where.items())
    table.write_text(f"# Benchmarks of {table.stem}\n\n{facts}\n\n{markdown(rows)}")


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
    where = machine()
    table = (cache / "quick" if quick else RESULTS) / f"{datetime.date.today():%Y-%m-%d}.md"
    steps: list[Callable[[], list[Row]]] = [
        lambda: speed.rows(300 if quick else 3000, 1000 if quick else 20_000, options.full, cache),
        lambda: resume.rows(300 if quick else 3000, 300 if quick else 3000, cache),
        lambda: cloud.rows(150 if quick else 600, cache),
        lambda: memory.rows(1000 if quick else 10_000, cache),
        lambda: prediction.rows(80 if quick else 400, cache),
        lambda: evaluation.rows(500 if quick else 5000, cache),
        lambda: retrieval.rows(100_000 if quick else 1_000_000, cache),
        lambda: million.rows(20_000 if quick else 1_000_000),
    ]
    rows: list[Row] = []
    for step in steps:
        rows += step()
        save(table, where, rows)
    show(rows)
    print(table)
    return rows


if __name__ == "__main__":
    main()
