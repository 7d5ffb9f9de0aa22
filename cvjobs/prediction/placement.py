"""Where a batch job computes: on GPUs or CPUs, of this machine or of a cluster, and with how many workers.

With an address the cluster decides. It is asked only when the answer is needed: a run with nothing to do needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cvjobs.clusters.capacity import Seat, awaited, everywhere
from cvjobs.clusters.link import Link
from cvjobs.clusters.ray import room, share
from cvjobs.common import devices
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.config.options import Device
from cvjobs.networks.precision import resolve_precision
from cvjobs.prediction.scheduler import FIRST, LEAST


@dataclass(frozen=True, kw_only=True)
class Team:
    """The workers of a run: ``seats`` to begin with, and where they are; ``words`` say it in a line.

    A team that ``grows`` gets workers, ``most`` in all, as the cluster gets room for them.
    """

    device: str
    seats: tuple[Seat, ...]
    distributed: bool
    most: int
    grows: bool = False
    gpus_each: float = 1.0
    words: str = ""

    @property
    def workers(self) -> int:
        """How many there are to begin with."""
        return len(self.seats)


class Placement:
    """The choices of a user and, with ``link``, the cluster; ``watch`` is called while it is waited for."""

    def __init__(
        self,
        device: Device = "auto",
        workers: int | None = None,
        gpus_per_worker: float = 1.0,
        link: Link | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._asked, self._workers, self._each = device, workers, gpus_per_worker
        self.link, self._watch = link, watch

    @cached_property
    def device(self) -> str:
        """``cuda`` or ``cpu``; raises WrongUse where GPUs are asked for and there can be none."""
        if self._asked == "cpu":
            return "cpu"
        gpus = devices.gpus() if self.link is None else self.link.capacity().gpus
        if self._asked == "cuda" and not gpus:
            where = "this machine" if self.link is None else f"the cluster at {self.link.address}"
            raise WrongUse(f"--device cuda needs a CUDA GPU and {where} has none: leave --device out.")
        return "cuda" if gpus else "cpu"

    def precision(self, asked: str, device: str) -> str:
        """Return what a precision comes to on a device: of a cluster's, what its first worker says.

        Raises as ``resolve_precision``.
        """
        if self.link is None or asked != "auto" or device == "cpu":
            return resolve_precision(asked, device)
        return self.link.ask(resolve_precision, asked, device, gpu=True, watch=self._watch)

    def team(self, device: str, images: int) -> Team:
        """Return who computes so many images on a device; raises WrongUse where there is no room for them."""
        return self._here(device) if self.link is None else self._there(self.link, device, images)

    def _here(self, device: str) -> Team:
        gpus = devices.gpus() if device != "cpu" else 0
        most = math.floor(gpus / self._each) if gpus else devices.cpus()
        workers = self._workers or (max(most, 1) if gpus else 1)
        if workers > most:
            what, has = ("GPU", f"{gpus}") if gpus else ("core", f"{most}")
            needs = f"{workers * self._each:g}" if gpus else f"{workers}"
            raise WrongUse(
                f"--workers {workers} needs {needs} {what}s and this machine has {has}: "
                f"use at most --workers {most}, or --address of a cluster."
            )
        seat = Seat(cpus=max(devices.cpus() // workers, 1), gpus=self._each if gpus else 0.0)
        return Team(device=device, seats=(seat,) * workers, distributed=workers > 1, most=workers)

    def _there(self, link: Link, device: str, images: int) -> Team:
        gpu = device != "cpu"
        if self._workers:
            return self._asked_for(link, device, self._workers)
        has = link.capacity()
        most = max(math.ceil(images / LEAST), 1)
        free = has.free(gpu=gpu, each=self._each, held={}, starting={})[:most]
        # A machine that is to come is worth it for more images than one that is there.
        more = has.to_come(gpu=gpu, each=self._each)[: max(math.ceil(images / FIRST) - len(free), 0)]
        there = free if free or more else has.taken(gpu=gpu)[:1]
        if not there and not more:
            what = "GPU" if gpu else "core"
            raise WrongUse(f"The cluster at {link.address} has no {what} for a worker: add machines that have some.")
        words = [everywhere(len(there), gpu=gpu, each=self._each)] if there else []
        return Team(
            device=device,
            seats=(*there, *more),
            distributed=True,
            most=most,
            grows=True,
            gpus_each=self._each,
            words="; ".join([*words, *awaited(more)]),
        )

    def _asked_for(self, link: Link, device: str, workers: int) -> Team:
        """Return a team of so many workers, some perhaps on machines that are to come."""
        gpu, nodes, each = device != "cpu", link.nodes(), self._each
        there = room(nodes, gpu, each)
        more = link.capacity().to_come(gpu=gpu, each=each)[: workers - there] if workers > there else []
        if there + len(more) < workers or not more:
            cpus, more = share(nodes, workers, gpu, each), []
        else:
            cpus = min([seat.cpus for seat in more] + ([share(nodes, there, gpu, each)] if there else []))
        words = f"{counted(workers, 'workers')} on {'GPUs' if gpu else 'CPUs'} of the cluster"
        return Team(
            device=device,
            seats=(Seat(cpus=cpus, gpus=each if gpu else 0.0),) * workers,
            distributed=True,
            most=workers,
            gpus_each=each,
            words="; ".join([words, *awaited(more)]),
        )


HERE = Placement()
