"""What differs for a command that runs as a job: its stdout can be told from the rest, and OUT must be the right one.

Ray writes both streams of a job into one log. Lines of stdout begin with U+001E, which terminals do not show, so
that a client gets them on stdout.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cvjobs.common.errors import WrongUse

JOB, MARKER = "CVJOBS_JOB", "CVJOBS_MARKER"
NIGHT = "CVJOBS_NIGHT"  # set for a command that is a step of a night: its job ends with it
STDOUT = "\x1e"


def mark(name: str, out: str | None) -> Path | None:
    """Leave a file beside or in OUT by which a job finds out that it sees the same folder; None where OUT is elsewhere.

    A folder that is not on this machine is one of the cluster's, and a job says whether it is there.
    """
    if out is None or _is_remote(out):
        return None
    place = _place(out)
    folder = place if os.path.isdir(place) else place.parent
    marker = folder / f".cvjobs-{name}"
    try:
        marker.touch()
    except OSError:
        return None
    return marker


@contextmanager
def job(config: Any) -> Iterator[None]:
    """Run a command as a job where it is one; raises WrongUse where its OUT is not the folder that was meant."""
    if not os.environ.pop(JOB, ""):
        yield
        return
    marker = os.environ.pop(MARKER, "")
    out = getattr(config, "out", None)
    if out is not None and not _is_remote(out):
        _check(_place(out), marker)
    stdout, sys.stdout = sys.stdout, _Marked()
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = stdout


def _check(out: Path, marker: str) -> None:
    if marker:
        try:
            os.unlink(marker)
        except OSError:
            raise WrongUse(
                f"The cluster does not see the {out} of the machine that sent this job: "
                "choose a folder that both see, one that only the cluster has, or a bucket."
            ) from None
    elif not os.path.isdir(out.parent):
        raise WrongUse(f"There is no {out.parent} on the cluster: choose an -o in a folder that it has, or a bucket.")


def _is_remote(out: str) -> bool:
    return "://" in out and not out.startswith("file://")


def _place(out: str) -> Path:
    return Path(os.path.expanduser(out.removeprefix("file://"))).absolute()


class _Marked(io.TextIOBase):
    """Standard output whose lines are written whole, each with its mark."""

    def __init__(self) -> None:
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            _write("".join(f"{STDOUT}{line}\n" for line in lines))
        return len(text)

    def close(self) -> None:
        if self._line:
            self._line = _write(f"{STDOUT}{self._line}\n")
        super().close()


def _write(text: str) -> str:
    """Write text to the file behind stdout, which is a log: a disk that is full there is no reason to fail."""
    content = text.encode(errors="backslashreplace")
    with suppress(OSError):
        while content:
            content = content[os.write(1, content) :]
    return ""
