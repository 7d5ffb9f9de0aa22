"""The lock on an output: politeness between runs. Exactness never depends on it."""

from __future__ import annotations

import os
import socket
import threading
import time
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
    """Return when a process started, None where there is none (a zombie is none)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


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
        with suppress(CvjobsError):  # a lock of a process that is gone counts as free
            self._write(released=True)

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
            raise OutputHeld(f"Another run took {self.store.place} over while this one stood still: nothing is lost.")


def newest(store: Store) -> int:
    """Return the highest lock epoch that was ever taken, 0 for a new output."""
    epochs = [name[6:12] for name in store.names(schema.LEASE) if name.startswith("epoch-")]
    return max((int(e) for e in epochs if e.isdigit()), default=0)


def holder(store: Store) -> dict[str, Any] | None:
    """Return who holds the output: host, pid, run, since and heartbeat age in s; None where it is free."""
    epoch = newest(store)
    if epoch == 0:
        return None
    record: dict[str, Any] | None = None
    for name in (f"hb-{epoch:06d}.json", f"epoch-{epoch:06d}.json"):
        try:
            record = schema.unpack(store.read(f"{schema.LEASE}/{name}"))
        except FileNotFoundError:
            continue
        if record is not None:
            break
    if record is None or record.get("released"):
        return None
    age = time.time() - float(record["heartbeat"])
    if age > LIVE:
        return None
    if record["machine"] == _machine():
        started = _started(int(record["pid"]))
        if started is None or abs(started - float(record["process_started"])) > 1.0:
            return None
    return {**record, "age": age}


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


def held(store: Store) -> Lock:
    """Take the output for this process until the end of a ``with`` block.

    Raises OutputHeld with the holder named where it is not free.
    """
    # In this order: where a rival takes this epoch after we looked for a holder, we cannot take it.
    epoch = newest(store) + 1
    current = holder(store)
    pid = os.getpid()
    record = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "process_started": _started(pid),
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
        "wait for it or stop it, then run the same command again."
    )
