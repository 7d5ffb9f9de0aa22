"""The loop over shards: hands shards to free workers, and survives workers that die.

The same loop drives an engine in this process and engines in Ray actors; the workers are in ``workers``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cvjobs.dataset.keys import rows_at
from cvjobs.prediction.engine.engine import ShardResult

FIRST = 256
LEAST = 16
LARGEST = 8192
SECONDS = 10.0
DEPTH = 2
WAIT = 0.5  # s


class WorkerDied(Exception):
    """A worker is gone with what it was doing; ``innocent`` where its machine was lost, not its process."""

    def __init__(self, reason: str, innocent: bool = False) -> None:
        super().__init__(reason)
        self.innocent = innocent


class Workers(Protocol):
    """Workers that run shards; a handle stands for one shard that one worker is running."""

    def ready(self) -> list[Any]:
        """Return the workers that are ready for shards."""

    def submit(self, worker: Any, table: pa.Table) -> Any:
        """Give a worker a shard and return its handle."""

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """Return the handles whose shards have ended, after at most ``seconds``."""

    def result(self, handle: Any) -> ShardResult:
        """Return an ended shard's ledger row; raises WorkerDied, or the CvjobsError that ended the worker's engine."""

    def replace(self, worker: Any) -> None:
        """Put a new worker in a dead one's place; raises JobFailed where workers die before they are ready."""


@dataclass
class _Task:
    """A shard, how many workers died of it, and whether a worker must have nothing else meanwhile."""

    table: pa.Table
    deaths: int = 0
    alone: bool = False
    worker: Any = None
    began: float = 0.0


@dataclass
class Shards:
    """Cuts the images to do into shards of about 10 s, and smaller towards the end so that all end together.

    ``each`` is what an image of the last shard took, in s, from when a worker was given it; 0 before there was one.
    """

    todo: pa.Table
    workers: int
    size: int = FIRST
    at: int = 0
    each: float = 0.0
    again: deque[_Task] = field(default_factory=deque)

    def next(self, alone: bool, room: float = math.inf) -> _Task | None:
        """Return the next shard, which ends within ``room`` s as far as the last one tells, None where none does.

        One that a worker died of is only for a worker that has nothing else.
        """
        if self.again and (alone or not self.again[0].alone):
            return self.again.popleft()
        left = self.todo.num_rows - self.at
        count = min(self.size, max(left // (DEPTH * self.workers), LEAST), left)
        if room < count * self.each:
            count = int(room / self.each) if room >= LEAST * self.each else 0
        if count == 0:
            return None
        rows = np.arange(self.at, self.at + count)
        self.at += count
        return _Task(rows_at(self.todo, rows))

    def learn(self, images: int, seconds: float) -> None:
        """Aim at shards of 10 s, growing at most twofold at a time."""
        self.each = seconds / images
        ideal = images / max(seconds, 0.01) * SECONDS
        self.size = int(min(max(ideal, LEAST), 2 * self.size, LARGEST))


def work(
    workers: Workers,
    shards: Shards,
    uncommitted: Callable[[pa.Table], pa.Table],
    give_up: Callable[[pa.Table], None],
    stopped: Callable[[], bool],
    room: Callable[[], float] = lambda: math.inf,
) -> bool:
    """Run every shard, and return whether all of them ended; ends early where ``stopped`` says so.

    ``room`` tells how many seconds a shard that is given out now may take; where none is as short, what runs ends.
    ``uncommitted`` returns those rows of a lost shard that no part holds yet; ``give_up`` makes an error row of an
    image whose workers died twice with nothing else to do. A lost shard is tried again alone, then halved, until
    only the image that kills is left.
    """
    busy: dict[Any, _Task] = {}
    while not stopped():
        left, ready = room(), workers.ready()
        shards.workers = max(shards.workers, len(ready))
        for worker in ready:
            held = [task for task in busy.values() if task.worker is worker]
            while len(held) < DEPTH and not any(task.alone for task in held):
                task = shards.next(alone=not held, room=left)
                if task is None:
                    break
                task.worker, task.began = worker, time.monotonic()
                busy[workers.submit(worker, task.table)] = task
                held.append(task)
        if not busy and not shards.again and shards.at == shards.todo.num_rows:
            return True
        if not busy and left < LEAST * shards.each:
            return False
        for handle in workers.wait(list(busy), WAIT):
            if handle not in busy:
                continue  # lost together with another shard of the same worker
            task = busy.pop(handle)
            try:
                done = workers.result(handle)
            except WorkerDied as death:
                lost = [task, *(t for t in busy.values() if t.worker is task.worker)]
                busy = {h: t for h, t in busy.items() if t.worker is not task.worker}
                for one in lost:
                    _try_again(shards, one, death.innocent, uncommitted, give_up)
                workers.replace(task.worker)
            else:
                shards.learn(done.images, time.monotonic() - task.began)
    return False


def _try_again(
    shards: Shards,
    task: _Task,
    innocent: bool,
    uncommitted: Callable[[pa.Table], pa.Table],
    give_up: Callable[[pa.Table], None],
) -> None:
    table = uncommitted(task.table)
    count = table.num_rows
    if count == 0:
        return
    if innocent:
        shards.again.append(_Task(table, task.deaths, task.alone))
        return
    # A shard that got further before its worker died is no proof against what is left of it.
    deaths = task.deaths + 1 if count == task.table.num_rows else 1
    if deaths < 2:
        shards.again.append(_Task(table, deaths, alone=True))
    elif count == 1:
        give_up(table)
    else:
        for half in (table.slice(0, count // 2), table.slice(count // 2)):
            # A larger half is split at its next death; one image is only condemned by two of its own.
            shards.again.append(_Task(half, 0 if half.num_rows == 1 else 1, alone=True))
