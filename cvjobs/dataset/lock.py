"""The lock on an output: politeness between runs. Exactness never depends on it.

The holder writes a heartbeat; on its own machine its process is looked at as well. A heartbeat from the future, an old
one of a process that runs, or a damaged record says nothing: a clock was set, or a file was. Such a one is watched for
a minute of this machine's monotonic time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cvjobs.common.errors import CvjobsError, JobFailed, OutputHeld
from cvjobs.common.progress import tell
from cvjobs.dataset import holder as holders
from cvjobs.dataset import schema
from cvjobs.dataset.holder import Holder, newest
from cvjobs.storage.store import Store

__all__ = ["Glance", "Lock", "check", "free", "held", "holder", "newest", "taken_over"]

LIVE = 60.0
BEAT = 5.0
GLANCE = 1.0


def taken_over(place: str) -> str:
    """Return the sentence of a run that ends because another one holds its output now."""
    return (
        f"Another run took {place} over, for this one's heartbeat had stopped, or by `cvjobs unlock`: nothing is lost."
    )


class Glance:
    """Looks, at most once a second, whether a later run has taken an output over: cheap to call often."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store, self._epoch = store, epoch
        self._looked = -GLANCE

    def __call__(self) -> None:
        """Raise OutputHeld where one has; a store that does not answer now may do so the next time."""
        if (now := time.monotonic()) - self._looked >= GLANCE:
            self._looked = now
            with suppress(JobFailed):
                check(self._store, self._epoch)


def check(store: Store, epoch: int) -> None:
    """Raise OutputHeld where a later run has taken an output over from the one of this epoch."""
    if newest(store) > epoch:
        raise OutputHeld(taken_over(store.place))


class Lock:
    """This run's hold on an output, in a ``with`` block; ``epoch`` orders the runs that ever held it."""

    def __init__(self, store: Store, epoch: int, holder: dict[str, Any]) -> None:
        self.store, self.epoch, self._holder = store, epoch, holder
        self._stop = threading.Event()
        self.glance = Glance(store, epoch)
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
        check(self.store, self.epoch)


# Outputs that this process gave free and could not say so in, on a disk that was full: with the epochs of its locks.
_UNRELEASED: dict[str, int] = {}


def _freed(store: Store, found: Holder) -> bool:
    """Return whether this process itself gave the output free without being able to write so."""
    ours = _UNRELEASED.get(store.place) == newest(store) and found.pid == os.getpid()
    return ours and found.machine == holders.machine()


def holder(store: Store) -> Holder | None:
    """Return who holds the output, or may hold it; None where it is free."""
    found = holders.read(store)
    return None if found is None or _freed(store, found) or found.holds(LIVE, BEAT) is False else found


def _watched(store: Store, say: Callable[[str], object]) -> Holder | None:
    """Return who holds the output, None where it is free; a record that says nothing is watched for a minute."""
    first = holders.read(store)
    if first is None or _freed(store, first) or (holds := first.holds(LIVE, BEAT)) is False:
        return None
    if holds:
        return first
    if first.sound:
        what = f"the heartbeat of process {first.pid} on {first.host}, whose clock differs,"
    else:
        what = "the lock, whose record is damaged,"
    say(f"watching {what} for up to a minute")
    deadline = time.monotonic() + LIVE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, BEAT))
        now = holders.read(store)
        if now is None or now.gone or (now.sound and now.released):
            return None
        if now.content != first.content:
            return now
    return None


def free(store: Store) -> Holder | None:
    """Take the output from the run that holds it, or may hold it, and return what that said of itself.

    A run that calls ``Lock.check`` or ``Lock.glance`` ends with OutputHeld. None where the output was free already.
    """
    current = holder(store)
    if current is None:
        return None
    record = {**holders.of_this_process(), "released": True}
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


def held(store: Store, say: Callable[[str], object] = tell) -> Lock:
    """Take the output for this process until the end of a ``with`` block; ``say`` is told where that takes a minute.

    Raises OutputHeld with the holder named where it is not free.
    """
    # In this order: where a rival takes this epoch after we looked for a holder, we cannot take it.
    epoch = newest(store) + 1
    current = _watched(store, say)
    record = holders.of_this_process()
    store.writer = f"r{epoch:06d}"
    if current is None and _take(store, epoch, record):
        marks = store.names(schema.LEASE)
        store.delete(*(f"{schema.LEASE}/{n}" for n in marks if (holders.epoch_of(n) or epoch) < epoch))
        return Lock(store, epoch, record)
    current = current or holder(store) or holders.of(record, b"")
    raise OutputHeld(
        f"{store.place} is held by {current}: "
        "wait for it or stop it, then run the same command again; `cvjobs unlock` frees an output whose holder is gone."
    )
