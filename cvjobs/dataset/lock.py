"""The lock on an output: politeness between runs. Exactness never depends on it.

The holder writes a heartbeat. On its own machine its process is looked at as well, told apart by its start in ticks of
the kernel, which no setting of the clock moves. A heartbeat from the future, or an old one of a process that runs,
says nothing: a clock was set. Such a one is watched for a minute of this machine's monotonic time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from cvjobs.common.errors import CvjobsError, JobFailed, OutputHeld
from cvjobs.dataset import schema
from cvjobs.storage.store import Store

LIVE = 60.0
BEAT = 5.0


def _machine() -> str:
    """Return what identifies this boot and process namespace: only there can a pid be looked up."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _started(pid: int) -> float | None:
    """Return when a process started (s since 1970), None where there is none (a zombie is none)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _ticks(pid: int) -> int | None:
    """Return when a process started, in ticks of the kernel since the boot; None where there is no way to know."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_there(record: dict[str, Any]) -> bool:
    """Return whether the process that wrote a record of this machine is still there."""
    pid, ticks = int(record["pid"]), record.get("ticks")
    started = _started(pid)
    if started is None:
        return False
    if ticks is not None and (now := _ticks(pid)) is not None:
        return bool(now == ticks)
    return abs(started - float(record["process_started"])) <= 1.0  # a record of 0.1.0


def _stands_still(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False


def _holds(record: dict[str, Any]) -> bool | None:
    """Return whether the run that wrote a record holds the output now; None where only watching it can tell."""
    if record.get("released"):
        return False
    age = time.time() - float(record["heartbeat"])
    if record["machine"] == _machine():
        if not _is_there(record):
            return False
        if age > LIVE:
            return False if _stands_still(int(record["pid"])) else None
    elif age > LIVE:
        return False
    return True if age >= -BEAT else None


def taken_over(place: str) -> str:
    """Return the sentence of a run that ends because another one holds its output now."""
    return (
        f"Another run took {place} over, for this one's heartbeat had stopped, or by `cvjobs unlock`: nothing is lost."
    )


class Lock:
    """This run's hold on an output, in a ``with`` block; ``epoch`` orders the runs that ever held it."""

    def __init__(self, store: Store, epoch: int, holder: dict[str, Any]) -> None:
        self.store, self.epoch, self._holder = store, epoch, holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        """Give the output free, so that the next run need not look for this process."""
        self._stop.set()
        self._thread.join()
        try:
            self._write(released=True)
        except CvjobsError:  # a lock of a process that is gone counts as free, and this one knows
            _UNRELEASED[self.store.place] = self.epoch

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                if self.overtaken():
                    return
                self._write(released=False)
            except CvjobsError:
                continue  # a missed beat is no reason to stop: the next one may be written

    def _write(self, released: bool) -> None:
        record = {**self._holder, "heartbeat": time.time(), "released": released}
        self.store.write_bytes(f"{schema.LEASE}/hb-{self.epoch:06d}.json", schema.pack(record))

    def overtaken(self) -> bool:
        """Return whether a later run has taken the output over."""
        return newest(self.store) > self.epoch

    def check(self) -> None:
        """Raise OutputHeld where a later run has taken the output over."""
        if self.overtaken():
            raise OutputHeld(taken_over(self.store.place))


# Outputs that this process gave free and could not say so in, on a disk that was full: with the epochs of its locks.
_UNRELEASED: dict[str, int] = {}


def newest(store: Store) -> int:
    """Return the highest lock epoch that was ever taken, 0 for a new output."""
    epochs = [name[6:12] for name in store.names(schema.LEASE) if name.startswith("epoch-")]
    return max((int(e) for e in epochs if e.isdigit()), default=0)


def _newest_record(store: Store) -> dict[str, Any] | None:
    epoch = newest(store)
    for name in (f"hb-{epoch:06d}.json", f"epoch-{epoch:06d}.json"):
        try:
            record = schema.unpack(store.read(f"{schema.LEASE}/{name}"))
        except FileNotFoundError:
            continue
        if record is not None:
            return record
    return None


def _freed(store: Store, record: dict[str, Any]) -> bool:
    """Return whether this process itself gave the output free without being able to write so."""
    ours = _UNRELEASED.get(store.place) == newest(store) and int(record["pid"]) == os.getpid()
    return ours and record["machine"] == _machine()


def holder(store: Store) -> dict[str, Any] | None:
    """Return who holds the output, or may hold it: host, pid, since and heartbeat age in s; None where it is free."""
    record = _newest_record(store)
    if record is None or _freed(store, record) or _holds(record) is False:
        return None
    return {**record, "age": time.time() - float(record["heartbeat"])}


def _watched(store: Store, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Return who holds the output, None where it is free; a heartbeat that says nothing is watched for a minute."""
    first = _newest_record(store)
    if first is None or _freed(store, first) or (holds := _holds(first)) is False:
        return None
    if holds:
        return first
    say(f"watching the heartbeat of process {first['pid']} on {first['host']}, whose clock differs, for up to a minute")
    deadline = time.monotonic() + LIVE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, BEAT))
        if (now := _newest_record(store)) is None or now.get("released"):
            return None
        if now != first:
            return now
        if now["machine"] == _machine() and not _is_there(now):
            return None
    return None


def free(store: Store) -> dict[str, Any] | None:
    """Take the output from the run that holds it, or may hold it, and return what that said of itself.

    A run that calls ``Lock.check`` before it writes ends with OutputHeld. None where the output was free already.
    """
    current = holder(store)
    if current is None:
        return None
    record = {**current, "released": True}
    while not store.create(f"{schema.LEASE}/epoch-{newest(store) + 1:06d}.json", schema.pack(record)):
        pass  # another command took the number: the next one
    return current


def _take(store: Store, epoch: int, record: dict[str, Any]) -> bool:
    name = f"{schema.LEASE}/epoch-{epoch:06d}.json"
    try:
        return store.create(name, schema.pack(record))
    except JobFailed:
        try:
            ours = schema.unpack(store.read(name)) == record
        except FileNotFoundError:
            ours = newest(store) < epoch
        if ours:
            raise
        return False  # a rival was faster, and has already cleaned up after us


def held(store: Store, say: Callable[[str], object] = lambda _: None) -> Lock:
    """Take the output for this process until the end of a ``with`` block; ``say`` is told where that takes a minute.

    Raises OutputHeld with the holder named where it is not free.
    """
    # In this order: where a rival takes this epoch after we looked for a holder, we cannot take it.
    epoch = newest(store) + 1
    current = _watched(store, say)
    pid = os.getpid()
    record = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "process_started": _started(pid),
        "ticks": _ticks(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "heartbeat": time.time(),
    }
    store.writer = f"r{epoch:06d}"
    if current is None and _take(store, epoch, record):
        marks = [name for name in store.names(schema.LEASE) if name.startswith(("epoch-", "hb-"))]
        store.delete(*(f"{schema.LEASE}/{n}" for n in marks if n.rsplit("-", 1)[1] < f"{epoch:06d}.json"))
        return Lock(store, epoch, record)
    current = current or holder(store) or record
    raise OutputHeld(
        f"{store.place} is held by process {current['pid']} on {current['host']} since {current['since']}: "
        "wait for it or stop it, then run the same command again; `cvjobs unlock` frees an output whose holder is gone."
    )
