"""Machines of a Ray cluster as processes of this one, which see its files, and are lost at once."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from commands import end, started
from hosts import RAY

OPTIONS = ["--num-cpus=1", "--block", "--disable-usage-stats", "--object-store-memory=80000000"]


def variables(folder: Path) -> dict[str, str]:
    """What everything of a cluster needs in its environment; a folder gets its token and what machines keep."""
    token = folder / "token"
    token.write_text("b" * 64)
    token.chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "XDG_CACHE_HOME": str(folder / "own")}
    return own | {"RAY_enable_metrics_collection": "0", "RAY_DISABLE_METRICS": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def node(variables: dict[str, str], *words: str) -> Iterator[str]:
    """A machine of one core in a cluster, which is lost in the end; the cluster's address, where it is the head."""
    with started([RAY, "start", *words, *OPTIONS], **variables) as process:
        assert process.stdout is not None
        found = None
        while not found and (line := process.stdout.readline()):
            found = re.search(r"--address='([^']+)'" if "--head" in words else "Ray runtime (started)", line)
        assert found, "ray start did not start"
        try:
            yield found[1]
        finally:
            lost(process)


def lost(process: subprocess.Popen[str]) -> None:
    """End everything of a machine at once, as when the power fails."""
    with contextlib.suppress(psutil.NoSuchProcess):
        end([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])
    process.wait()
