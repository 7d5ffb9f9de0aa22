"""Who trains: how many workers are asked for, whether this machine has them, and what each of them gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse


@dataclass(frozen=True, kw_only=True)
class Resources:
    """From ``least`` to ``most`` workers, each with ``cpus`` cores and perhaps a GPU; one alone needs no Ray."""

    least: int
    most: int
    cpus: int
    device: str
    address: str | None

    @property
    def alone(self) -> bool:
        """Whether this process trains."""
        return self.most == 1 and not self.address


def resources_for(workers: int | str | None, address: str | None) -> Resources:
    """Return who trains; on this machine no more than it has cores or GPUs.

    Raises:
        WrongUse: ``workers`` is neither ``N`` nor ``MIN:MAX``, or this machine has too few.
    """
    least, most = _asked(workers)
    gpus = devices.gpus()
    device = "cuda" if gpus else "cpu"
    if address:
        return Resources(least=least, most=most, cpus=1, device=device, address=address)
    cores = gpus or devices.cpus()
    if least > cores:
        what = "GPU" if gpus else "core"
        raise WrongUse(
            f"--workers {least} needs {least} {what}s and this machine has {cores}: "
            f"use at most --workers {cores}, or --address of a cluster."
        )
    most = min(most, cores)
    return Resources(least=least, most=most, cpus=max(devices.cpus() // most, 1), device=device, address=None)


def _asked(workers: int | str | None) -> tuple[int, int]:
    if not isinstance(workers, str):
        return workers or 1, workers or 1
    found = re.fullmatch(r"(\d{1,6}):(\d{1,6})", workers)
    least, most = map(int, found.groups()) if found else (0, 0)
    if not 1 <= least <= most:
        raise WrongUse(f"--workers must be a number of at least 1, or MIN:MAX as in 2:8, not {workers!r}.")
    return least, most
