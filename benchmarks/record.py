"""What a table of measurements says beside its rows: the machine, the libraries, the commit; and how it is written."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from processes import CORES, ENVIRONMENT
from table import Row, markdown

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("cvjobs", "ray", "torch", "torchvision", "torchcodec", "pillow", "pyarrow")


def place(cache: Path, quick: bool, suffix: str = "") -> Path:
    """Return where today's table belongs; a quick one, whose values are not to be quoted, lies beside the photos."""
    return (cache / "quick" if quick else RESULTS) / f"{datetime.date.today():%Y-%m-%d}{suffix}.md"


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
