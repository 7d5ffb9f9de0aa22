"""What a machine with one GPU shows of cvjobs in less than seven minutes: its tests, equal results, speed, memory.

python benchmarks/gpu.py [--seconds N] [--only STEP ...] [--cache FOLDER]

It needs no Ray, no FAISS and no network. Each step has its own bound, none stops the next, and one that is not begun in
time is said. Ours: images per second from the second epoch on, or from the first to the last result. What is said of
the GPU is of a whole step or command, its start included, but where a note or a row says while it computed. Without a
GPU the same runs on the CPU at a small size, which shows that it works; its table lies beside the photos.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import photos
import record
from gpu_bench import Bench
from gpu_steps import STEPS, LeftOut
from nvml_meter import NvmlMeter
from table import Row, show

from cvjobs.common import devices

SLOWER = 3  # times as long as a GPU's a step may take on a CPU, where two run at once
LEAST = 5.0  # s that a step needs to be begun
NOT_TO_QUOTE = (
    "Without a GPU: values of the CPU at a small size, which show that all of it runs and are not to be quoted."
)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, keep what is done after each step, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, _, _ in STEPS]
    parser.add_argument("--seconds", type=float, default=400, help="the time for all steps (default 400)")
    parser.add_argument("--only", nargs="+", metavar="STEP", choices=names, default=names, help=", ".join(names))
    parser.add_argument("--cache", type=Path, default=photos.default_cache(), help="where images are kept between runs")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    on_gpu, meter = devices.gpus() > 0, NvmlMeter()
    where, name = _machine(on_gpu, meter)
    table = record.place(options.cache, not on_gpu, f"-gpu-{name}")
    said = [] if on_gpu else [NOT_TO_QUOTE]
    rows: list[Row] = []
    options.cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="gpu-", dir=options.cache))
    threads = ThreadPoolExecutor(1 if on_gpu else 2)  # where nothing is to be quoted, two steps at once
    try:
        bench = Bench(folder, options.cache, on_gpu, meter)
        bench.prepare()
        end = began + options.seconds
        chosen = [step for step in STEPS if step[0] in options.only]
        for line, found in threads.map(lambda step: _step(bench, step, end), chosen):
            print(f"[{time.monotonic() - began:4.0f} s] {line}", flush=True)
            for row in found:
                print(f"         {row.what}: {row.said}" + f" ({row.note})" * bool(row.note), flush=True)
            said.append(f"- {line}")
            rows += found
            record.save(table, where, rows, said)
    finally:
        threads.shutdown(cancel_futures=True)
        shutil.rmtree(folder, ignore_errors=True)
    print()
    if rows:
        show(rows)
    if not on_gpu:
        print(NOT_TO_QUOTE)
    print(table)
    return rows


def _machine(on_gpu: bool, meter: NvmlMeter) -> tuple[dict[str, Any], str]:
    """Return what the numbers depend on, and the device's name as a file has it."""
    gpu = meter.name or "GPU" if on_gpu else "none"
    where = {"gpu": gpu, **({"driver": meter.driver} if meter.driver else {}), **record.machine()}
    where |= {"cores_used": devices.cpus(), "threads": "all"}
    return where, re.sub(r"\W+", "-", gpu if on_gpu else "CPU")


def _step(bench: Bench, step: tuple[str, Any, float], end: float) -> tuple[str, list[Row]]:
    """Return the line of a step and its rows; a step that fails keeps those that it had."""
    name, measure, most = step
    began = time.monotonic()
    if end - began < LEAST:
        return f"{name}: not begun, the time is over", []
    bench = replace(bench, until=min(began + most * (1 if bench.on_gpu else SLOWER), end))
    rows: list[Row] = []
    state = ""
    with bench.meter.measured() as use:
        try:
            for row in measure(bench):
                rows.append(row)
        except LeftOut as error:
            state = f": left out, {error}"
        except (TimeoutError, subprocess.TimeoutExpired):
            state = f": not finished in {bench.until - began:.0f} s"
        except Exception as error:  # noqa: BLE001 - none stops the next
            state = f": failed, {' '.join(str(error).split())[-400:]}"
    return f"{name}{state}: {time.monotonic() - began:.1f} s, {use}", rows


if __name__ == "__main__":
    main()
