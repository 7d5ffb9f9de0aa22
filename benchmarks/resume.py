"""What a kill costs, and what a run costs that has nothing to do.

python benchmarks/resume.py [--images N] [--idle N] [--cache FOLDER]

The kill comes at half of the time between the first and the last result of an uninterrupted run, not right after
something was committed: what it loses is part of its price. From outside, the killed run's first result is taken to
be there when its first decode process appears, which is a batch too early.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import photos
import psutil
from processes import CVJOBS, ENVIRONMENT, embed, start, two_cores
from speed import MODELS
from table import Row, noisy, show

MODEL = "torchvision/mobilenet_v2"
OPTIONS = ("--model", MODEL, *MODELS[MODEL])
LOOK = 0.02


def rows(images: int, idle: int, cache: Path) -> list[Row]:
    """Measure a kill and its continuation at ``images``, and for each model a run with nothing to do at ``idle``."""
    source = photos.folder(images, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        before = _span(embed(source, folder / "before", *OPTIONS).answer)
        killed, kept = _killed(source, folder / "killed", before / 2)
        resumed = _span(embed(source, folder / "killed", *OPTIONS).answer)
        _verify(folder / "killed", source)
        after = _span(embed(source, folder / "after", *OPTIONS).answer)
    found = [
        Row(
            what=f"{MODEL}, {images:,} images: killed at half and resumed ÷ one run",
            value=(killed + resumed) / ((before + after) / 2),
            unit="×",
            bound="≤",
            target=1.15,
            noisy=noisy(before, after),
            raw={
                "one_run_seconds": [round(before, 2), round(after, 2)],
                "killed_seconds": round(killed, 2),
                "resumed_seconds": round(resumed, 2),
                "rows_kept": kept,
            },
        )
    ]
    return [*found, *(idle_run(model, idle, cache) for model in MODELS)]


def idle_run(model: str, images: int, cache: Path) -> Row:
    """Return the row of a rerun with nothing to do, the slower of two."""
    source, options = photos.folder(images, cache), ("--model", model, *MODELS[model])
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        out = Path(scratch, "out")
        embed(source, out, *options)
        first, second = embed(source, out, *options), embed(source, out, *options)
    assert first.answer["computed"] == second.answer["computed"] == 0
    return Row(
        what=f"{model}, {images:,} images: rerun with nothing to do",
        value=max(first.seconds, second.seconds),
        unit="s",
        bound="≤",
        target=5,
        cpu=1000 * second.cpu / images,
        noisy=noisy(first.seconds, second.seconds),
        raw={"whole_seconds": [round(first.seconds, 2), round(second.seconds, 2)]},
    )


def _span(answer: dict[str, Any]) -> float:
    """Return the time from first to last result in s."""
    return float(answer["computed"] / answer["images_per_second"])


def _killed(source: Path, out: Path, after: float) -> tuple[float, int]:
    """Kill a run's process group ``after`` s of computing; return how long it computed in s and the rows it left."""
    process = start(*CVJOBS, "embed", source, "-o", out, "--json", *OPTIONS)
    while not _decoding(process.pid):
        if process.poll() is not None:
            raise RuntimeError(f"cvjobs embed ended with {process.returncode} before it decoded anything.")
        time.sleep(LOOK)
    began = time.perf_counter()
    time.sleep(after)
    if process.poll() is not None:
        raise RuntimeError("The run to be killed ended before it could be: give more --images.")
    os.killpg(process.pid, signal.SIGKILL)
    computed = time.perf_counter() - began
    process.wait()
    records = (json.loads(path.read_bytes()) for path in (out / "_cvjobs/parts").glob("[!.]*.json"))
    return computed, sum(record["results"]["rows"] for record in records)


def _decoding(pid: int) -> bool:
    """Return whether a run has decode processes: children of the one that is preloaded to fork them."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(child.children() for child in psutil.Process(pid).children())
    return False


def _verify(out: Path, source: Path) -> None:
    """Check that every image is there exactly once; raises CalledProcessError."""
    command = [*CVJOBS, "verify", str(out), "--source", str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 3000)
    parser.add_argument("--idle", type=int, default=3000, help="images of the run with nothing to do (default 3,000)")
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.idle, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
