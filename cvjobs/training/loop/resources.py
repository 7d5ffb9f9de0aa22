"""Who trains: how many workers are asked for, what they compute on, and what each of them gets.

On this machine that is known at once. With an address the cluster decides, and is asked only when that is needed: a run
that has ended needs none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from cvjobs.clusters.capacity import Seat, everywhere
from cvjobs.clusters.link import Link
from cvjobs.clusters.ray import room, share
from cvjobs.common import devices, rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.config.options import Device
from cvjobs.training.loop.first_worker import FirstWorker, look


class Resources(Protocol):
    """From ``least`` to ``most`` workers, each with ``cpus`` cores and perhaps a GPU."""

    @property
    def least(self) -> int:
        """The fewest workers."""

    @property
    def most(self) -> int:
        """The most workers."""

    @property
    def cpus(self) -> int:
        """The cores of each."""

    @property
    def device(self) -> str:
        """What they compute on: ``cuda`` or ``cpu``."""

    @property
    def address(self) -> str | None:
        """Their cluster's."""

    @property
    def alone(self) -> bool:
        """Whether this process trains, which needs no Ray."""

    @property
    def first(self) -> FirstWorker | None:
        """What a worker of the cluster has to compute with; None without one, and for a run of before."""

    def ruled(self, team: int) -> Resources:
        """Return who trains a run that was begun by a version of the rules for teams."""


@dataclass(frozen=True, kw_only=True)
class DecidedResources:
    """Who trains, as it is known without asking anyone; see ``Resources``."""

    least: int
    most: int
    cpus: int
    device: str
    address: str | None

    @property
    def alone(self) -> bool:
        """See ``Resources``."""
        return self.most == 1 and not self.address

    @property
    def first(self) -> None:
        """See ``Resources``."""
        return

    def ruled(self, team: int) -> Resources:
        """See ``Resources``."""
        del team
        return self


@dataclass(frozen=True, kw_only=True)
class ClusterResources:
    """Workers of a cluster: without a number of them one for each free GPU, or for each machine where it has none.

    ``useful`` is how many find something to do in a step. ``watch`` is called while a worker is waited for, and may
    raise.
    """

    link: Link
    numbers: tuple[int, int] | None
    asked: Device = "auto"
    useful: int = 1
    watch: Callable[[], None] = field(default=lambda: None)

    @property
    def address(self) -> str:
        """See ``Resources``."""
        return self.link.address

    @property
    def alone(self) -> bool:
        """See ``Resources``."""
        return False

    @cached_property
    def device(self) -> str:
        """See ``Resources``; raises WrongUse where GPUs are asked for and there can be none."""
        if self.asked == "cpu":
            return "cpu"
        gpus = self.link.capacity().gpus
        if self.asked == "cuda" and not gpus:
            raise WrongUse(f"--device cuda needs a CUDA GPU and the cluster at {self.address} has none: leave it out.")
        return "cuda" if gpus else "cpu"

    @property
    def least(self) -> int:
        """See ``Resources``."""
        return self.numbers[0] if self.numbers else max(sum(bool(seat.node) for seat in self._seats), 1)

    @property
    def most(self) -> int:
        """See ``Resources``."""
        return self.numbers[1] if self.numbers else len(self._seats)

    @cached_property
    def cpus(self) -> int:
        """See ``Resources``."""
        if not self.numbers:
            return min(seat.cpus for seat in self._seats)
        nodes, gpu = self.link.nodes(), self.device != "cpu"
        there = min(self.most, room(nodes, gpu))
        return share(nodes, there, gpu) if there else 1  # who are more than that wait for machines

    @cached_property
    def first(self) -> FirstWorker:
        """See ``Resources``; a worker of the cluster says it."""
        gpu = self.device != "cpu"
        cores = max((machine.cpus for machine in self.link.capacity().there), default=1)
        together = cores // self.cpus if self.numbers and not gpu else 1  # else each has its GPU, or its machine
        workers = max(min(together, self.most), 1)
        return self.link.ask(look, self.device, workers, gpu=gpu, watch=self.watch)

    def ruled(self, team: int) -> Resources:
        """See ``Resources``; by the first rules one worker without a number, one core each, and the device of here."""
        if team >= rules.TEAM:
            return self
        least, most = self.numbers or (1, 1)
        return DecidedResources(least=least, most=most, cpus=1, device=_here(self.asked), address=self.address)

    @cached_property
    def _seats(self) -> list[Seat]:
        has, gpu = self.link.capacity(), self.device != "cpu"
        free = has.free(gpu=gpu, each=1.0, held={}, starting={})
        seats = [*free, *has.to_come(gpu=gpu, each=1.0)][: self.useful] or has.taken(gpu=gpu)
        if not seats:
            what = "GPU" if gpu else "core"
            raise WrongUse(f"The cluster at {self.address} has no {what} for a worker: add machines that have some.")
        return seats[: self.useful]


def resources_for(
    workers: int | str | None,
    link: Link | None = None,
    device: Device = "auto",
    useful: int = 1,
    watch: Callable[[], None] = lambda: None,
) -> Resources:
    """Return who trains; on this machine no more than it has cores or GPUs.

    Args:
        workers: ``N`` or ``MIN:MAX``; None for as many as the cluster has room for, or this process.
        link: The cluster, None for this machine.
        device: What is asked for.
        useful: The most workers that find something to do in a step.
        watch: As ``ClusterResources`` has it.

    Raises:
        WrongUse: ``workers`` is neither ``N`` nor ``MIN:MAX``, or this machine has too few.
    """
    least, most = _asked(workers)
    if link is not None:
        numbers = None if workers is None else (least, most)
        return ClusterResources(link=link, numbers=numbers, asked=device, useful=max(useful, 1), watch=watch)
    here = _here(device)
    gpus = devices.gpus() if here == "cuda" else 0
    if device == "cuda" and not gpus:
        raise WrongUse("--device cuda needs a CUDA GPU and this machine has none: leave --device out.")
    cores = gpus or devices.cpus()
    if least > cores:
        what = "GPU" if gpus else "core"
        raise WrongUse(
            f"--workers {least} needs {least} {what}s and this machine has {cores}: "
            f"use at most --workers {cores}, or --address of a cluster."
        )
    most = min(most, cores)
    cpus = max(devices.cpus() // most, 1)
    return DecidedResources(least=least, most=most, cpus=cpus, device=here, address=None)


def words(resources: Resources) -> str:
    """Return in a line who trains on a cluster."""
    gpu, number = resources.device != "cpu", counted(resources.most, "workers")
    if isinstance(resources, ClusterResources) and resources.numbers is None:
        cores = "" if gpu else f", with {counted(resources.cpus, 'cores')} each"
        return everywhere(resources.most, gpu=gpu, each=1.0) + cores
    number = f"{resources.least:,} to {number}" if resources.least < resources.most else number
    return f"{number} on {'GPUs' if gpu else 'CPUs'} of the cluster"


def torch_device(resources: Resources) -> str:
    """Return the device, by torch's name, on which this process computes for a training of ``resources``."""
    return devices.torch_name(_here("auto") if resources.address else resources.device)


def _here(asked: Device) -> str:
    """Return what this machine computes on."""
    return "cuda" if asked != "cpu" and devices.gpus() else "cpu"


def _asked(workers: int | str | None) -> tuple[int, int]:
    if not isinstance(workers, str):
        return workers or 1, workers or 1
    found = re.fullmatch(r"(\d{1,6}):(\d{1,6})", workers)
    least, most = map(int, found.groups()) if found else (0, 0)
    if not 1 <= least <= most:
        raise WrongUse(f"--workers must be a number of at least 1, or MIN:MAX as in 2:8, not {workers!r}.")
    return least, most
