"""What a table of measurements says beside its rows: the machine, the libraries, the commit; and how it is written."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from processes import CORES, ENVIRONMENT
from table import Row, markdown

import cvjobs

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("ray", "torch", "torchvision", "torchcodec", "pillow", "pyarrow")


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
        **_versions(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "threads": f"OMP_NUM_THREADS={ENVIRONMENT['OMP_NUM_THREADS']}",
    }


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; cvjobs may be a folder on PYTHONPATH."""
    found = {"cvjobs": cvjobs.__version__}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _git(*words: str) -> str:
    """Return what git says, empty where there is none or the code is no checkout."""
    try:
        return subprocess.run(
            ["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(table: Path, where: dict[str, Any], rows: Sequence[Row], said: Sequence[str] = ()) -> None:
    """Write the rows so far, as Markdown to ``table`` and as JSON beside it; ``said`` are paragraphs before them."""
    table.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": where, "rows": [row.record() for row in rows], **({"said": list(said)} if said else {})}
    table.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    facts = ", ".join(f"{key} {value}" for key, value in where.items())
    paragraphs = "".join(f"{line}\n\n" for line in said)
    table.write_text(f"# Benchmarks of {table.stem}\n\n{facts}\n\n{paragraphs}{markdown(rows)}")
