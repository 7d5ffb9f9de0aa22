"""Folders of decoded images that a process uses: they stay meanwhile, and what dead ones left goes after a week."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import time
from typing import IO

from cvjobs.common.errors import storage_failure

LOCK = ".lock"
PASSING = "passing"  # ends the name of a folder of images that do not stay
OLD = 7 * 24 * 3600.0  # seconds after which nobody comes back for what a process left that died


class CacheHold:
    """A folder that this process uses until ``close``, with others or not; it is made where there is none."""

    def __init__(self, folder: str, lock: IO[bytes] | None = None) -> None:
        """Wait while another process deletes it; raises JobFailed where there can be no such folder."""
        self.folder = folder
        self._lock = lock or _locked(folder, fcntl.LOCK_SH)

    def close(self) -> None:
        """Use it no more."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.utime(self._lock.fileno())
            self._lock.close()
            self._lock = None

    def clear(self) -> None:
        """Use it no more, and delete it unless another process uses it."""
        self.close()
        _deleted(self.folder)


def claimed(folder: str, run: str) -> CacheHold:
    """Return a folder below another for this process alone, for images of a run that do not stay.

    What a process of the run left in it that died is still there.
    """
    name = hashlib.sha256(run.encode()).hexdigest()[:12]
    for number in itertools.count():
        place = os.path.join(folder, f"{name}.{PASSING}{number}")
        lock = _locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            return CacheHold(place, lock)
    raise AssertionError("there is always a next number")


def sweep(folder: str, *, passing: bool = False) -> None:
    """Delete what is older than a week below a folder and used by no process: all, or what does not stay."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            place = os.path.join(folder, name)
            lock = os.path.join(place, LOCK)
            with contextlib.suppress(OSError):
                ours = not passing or name.rstrip("0123456789").endswith(f".{PASSING}")
                if ours and time.time() - os.stat(lock).st_mtime > OLD:
                    _deleted(place)


def _deleted(folder: str) -> None:
    """Delete a folder, unless a process uses it."""
    with contextlib.suppress(OSError), open(os.path.join(folder, LOCK), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: str, how: int) -> IO[bytes] | None:
    """Return the lock of a folder, None where another process has it and ``how`` does not wait."""
    try:
        while True:
            os.makedirs(folder, exist_ok=True)
            place = os.path.join(folder, LOCK)
            lock = open(place, "ab")  # noqa: SIM115 - closed by who uses it
            try:
                fcntl.flock(lock, how)
                os.utime(lock.fileno())
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(lock.fileno()), os.stat(place)):
                        return lock
            except BlockingIOError:
                lock.close()
                return None
            except BaseException:
                lock.close()
                raise
            lock.close()  # it was deleted meanwhile
    except OSError as error:
        raise storage_failure(error, folder, "--cache", begun=False) from error
