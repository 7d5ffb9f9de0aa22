"""Who holds an output, from the newest record of its lock: it may be another machine's, old, or damaged.

On its own machine the holder's process is looked at, told apart by its start in ticks of the kernel, which no setting
of the clock moves. What a record does not say, or says in a way that no version of cvjobs wrote, is in doubt.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cvjobs.common.errors import JobFailed
from cvjobs.common.formatting import visible
from cvjobs.dataset import schema
from cvjobs.storage.store import Store

LAST = 253_402_300_799.0  # the end of the year 9999, in s since 1970: later ones have no date
_PIDS = range(1, 1 << 31)
_MARK = re.compile(r"(?:epoch|hb)-([0-9]{6,9})\.json")


def machine() -> str:
    """Return what identifies this boot and process namespace: only there can a pid be looked up."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def clocks() -> str | None:
    """Return what identifies this time namespace: the kernel tells starts of processes by the clock of who asks."""
    try:
        return os.readlink("/proc/self/ns/time")
    except OSError:
        return None


def started(pid: int) -> float | None:
    """Return when a process started (s since 1970), None where there is none (a zombie is none)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def ticks(pid: int) -> int | None:
    """Return when a process started, in ticks of the kernel since the boot; None where there is no way to know."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def of_this_process() -> dict[str, Any]:
    """Return the record of this process, as one that holds an output from now on."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": pid,
        "process_started": started(pid),
        "ticks": ticks(pid),
        "clocks": clocks(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "heartbeat": time.time(),
    }


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who wrote the newest record of a lock; ``heartbeat`` in s since 1970.

    What is damaged is None or empty, and then ``sound`` is False. ``content`` is all there is of it, to see it change.
    """

    host: str = ""
    pid: int | None = None
    since: str = ""
    heartbeat: float | None = None
    machine: str = ""
    process_started: float | None = None
    ticks: int | None = None
    clocks: str | None = None
    released: bool = False
    sound: bool = False
    content: bytes = b""

    def __str__(self) -> str:
        if not self.pid or not self.host or not self.since:
            return "a run whose record is damaged"
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def gone(self) -> bool:
        """Whether it is known that there is no such process any more: only on its own machine can one know."""
        if self.pid is None or self.machine != machine():
            return False
        began = started(self.pid)
        if began is None:
            return True
        if self.ticks is not None and (now := ticks(self.pid)) is not None:
            return now != self.ticks if self.clocks in (None, clocks()) else False
        if self.process_started is None or self.clocks is not None:
            return False
        return abs(began - self.process_started) > 1.0  # a record of 0.1.0

    def holds(self, live: float, early: float) -> bool | None:
        """Return whether it holds the output now; None where only watching it can tell.

        A heartbeat is fresh for ``live`` seconds, and may be as many as ``early`` ahead of this machine's clock.
        """
        if self.gone or (self.sound and self.released):
            return False
        if not self.sound or self.heartbeat is None:
            return None
        age = time.time() - self.heartbeat
        if age > live:
            return False if self.machine != machine() or self._stands_still else None
        return True if age >= -early else None

    @property
    def _stands_still(self) -> bool:
        with suppress(psutil.Error):
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return False


def newest(store: Store) -> int:
    """Return the highest lock epoch that was ever taken, 0 for a new output."""
    return max((epoch_of(name) or 0 for name in store.names(schema.LEASE)), default=0)


def epoch_of(name: str) -> int | None:
    """Return the epoch of a lock in the name of a file, None where it has none."""
    found = _MARK.fullmatch(name)
    return int(found[1]) if found else None


def read(store: Store) -> Holder | None:
    """Return who wrote the newest record of a lock, released or not; None where there never was one."""
    epoch = newest(store)
    if not epoch:
        return None
    beat, taken = (_content(store, f"{schema.LEASE}/{kind}-{epoch:06d}.json") for kind in ("hb", "epoch"))
    first = beat if beat is not None else taken
    found = of(schema.unpack(first or b""), first or b"")
    if found.sound or beat is None or taken is None:
        return found
    # Who took it is known all the same where only the heartbeat is damaged.
    known = of(schema.unpack(taken), taken)
    return Holder(**{**vars(known), "sound": False, "released": False, "content": beat + taken})


def _content(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except FileNotFoundError:
        return None
    except JobFailed as error:
        if isinstance(error.__cause__, IsADirectoryError):
            return b""
        raise


def of(record: dict[str, Any] | None, content: bytes) -> Holder:
    """Return what a record says, and whether all of it is as some version of cvjobs writes it."""
    sound = record is not None
    record = record or {}

    def field(name: str, fits: Callable[[Any], bool], *, must: bool = False) -> Any:
        nonlocal sound
        value = record.get(name)
        if value is None and not must:
            return None
        if fits(value):
            return value
        sound = False
        return None

    known = Holder(
        host=visible(field("host", _text, must=True) or ""),
        pid=field("pid", lambda value: type(value) is int and value in _PIDS, must=True),
        since=visible(field("since", _text, must=True) or ""),
        heartbeat=field("heartbeat", _moment, must=True),
        machine=field("machine", _text, must=True) or "",
        process_started=field("process_started", _moment),
        ticks=field("ticks", lambda value: type(value) is int and value >= 0),
        clocks=field("clocks", _text),
        released=field("released", lambda value: isinstance(value, bool)) or False,
        content=content,
    )
    return Holder(**{**vars(known), "sound": sound})


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 300


def _moment(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LAST
