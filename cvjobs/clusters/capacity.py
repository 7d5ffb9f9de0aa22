"""What a cluster has for workers, and what may still come: machines with cores and GPUs, and the seats among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvjobs.common.formatting import counted

ALMOST = 0.01  # of a GPU: what a question to a worker takes, or rounding


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What one worker gets: its cores, its share of a GPU, and the id of the machine, "" for any that has the room."""

    cpus: int
    gpus: float = 0.0
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineRoom:
    """A machine that is there and stays, by Ray's id, or a type of which ``count`` more may come, by its name."""

    id: str
    cpus: int
    gpus: float
    free_cpus: float
    free_gpus: float
    count: int = 1

    def seats(self, *, gpu: bool, each: float, free: bool) -> int:
        """Return how many workers have room, all of it or what is ``free``; without GPUs a machine is for one."""
        cpus, gpus = (self.free_cpus, self.free_gpus) if free else (float(self.cpus), self.gpus)
        if not gpu:
            return int(cpus >= 1)
        return min(math.floor(gpus / each + ALMOST / each), int(cpus))

    def seat(self, *, gpu: bool, each: float, here: bool = True) -> Seat:
        """Return what a worker gets: its share of the cores beside GPUs, or all that are free."""
        whole = max(self.seats(gpu=gpu, each=each, free=False), 1)
        cpus = self.cpus // whole if gpu else int(self.free_cpus)
        return Seat(cpus=max(cpus, 1), gpus=each if gpu else 0.0, node=self.id if here else "")


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """A cluster at one moment: the machines that are there, those that may come by type, and the ids of drained ones.

    A drained machine is about to be taken away, and is not among those that are there.
    """

    there: tuple[MachineRoom, ...]
    coming: tuple[MachineRoom, ...] = ()
    drained: frozenset[str] = frozenset()

    @property
    def gpus(self) -> int:
        """How many GPUs there are or may be."""
        return int(sum(room.gpus * room.count for room in (*self.there, *self.coming)))

    def free(self, *, gpu: bool, each: float, held: Mapping[str, int], starting: Mapping[str, int]) -> list[Seat]:
        """Return a seat for each worker more that the machines have room for now.

        Args:
            gpu: Whether workers are for GPUs.
            each: The share of a GPU that one takes.
            held: By machine, the workers that have a seat there.
            starting: By machine, those of them that may not have taken it yet.
        """
        found = []
        for room in self.there:
            whole, left = (room.seats(gpu=gpu, each=each, free=free) for free in (False, True))
            more = min(whole - held.get(room.id, 0), left - starting.get(room.id, 0))
            found += [room.seat(gpu=gpu, each=each)] * max(more, 0)
        return found

    def to_come(self, *, gpu: bool, each: float) -> list[Seat]:
        """Return a seat for each worker that machines which may come have room for, wherever that is."""
        found = []
        for room in (one for one in self.coming if gpu or not one.gpus or all(other.gpus for other in self.coming)):
            found += [room.seat(gpu=gpu, each=each, here=False)] * (
                room.seats(gpu=gpu, each=each, free=False) * room.count
            )
        return found

    def taken(self, *, gpu: bool) -> list[Seat]:
        """Return a seat on each machine that could hold a worker and has no room now: it is waited for."""
        return [room.seat(gpu=gpu, each=1.0) for room in self.there if room.seats(gpu=gpu, each=1.0, free=False)]


def capacity(
    nodes: Iterable[Mapping[str, Any]],
    free: Mapping[str, Mapping[str, float]],
    drained: Iterable[str] = (),
    coming: Iterable[MachineRoom] = (),
) -> Capacity:
    """Return what a cluster has, given ``ray.nodes()``, what is free by node, and the nodes that are drained."""
    gone = frozenset(drained)
    rooms = []
    for node in nodes:
        if node["Alive"] and node["NodeID"] not in gone:
            has, left = node["Resources"], free.get(node["NodeID"], {})
            rooms.append(
                MachineRoom(
                    id=node["NodeID"],
                    cpus=int(has.get("CPU", 0)),
                    gpus=has.get("GPU", 0.0),
                    free_cpus=left.get("CPU", 0.0),
                    free_gpus=left.get("GPU", 0.0),
                )
            )
    return Capacity(there=tuple(rooms), coming=tuple(coming), drained=gone)


def everywhere(workers: int, *, gpu: bool, each: float) -> str:
    """Return in a line that there are so many workers, as many as a cluster has room for."""
    if not gpu:
        return f"{counted(workers, 'workers')} on CPUs, one for each machine of the cluster"
    part = "free GPU" if each == 1 else f"{each:g} of a free GPU"
    return f"{counted(workers, 'workers')}, one for each {part} of the cluster"


def awaited(seats: Sequence[Seat]) -> list[str]:
    """Return in a line for what machines, with these seats, a cluster is asked; no line without any."""
    if not seats:
        return []
    gpus, cpus = sum(seat.gpus for seat in seats), sum(seat.cpus for seat in seats)
    what = f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else f"{cpus:,} core{'s' * (cpus != 1)}"
    return [f"the cluster is asked for machines with {what}, for {counted(len(seats), 'workers')}"]
