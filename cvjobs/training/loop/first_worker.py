"""What a worker has to compute with, as it says itself: it knows its GPU and its memory, and the command does not."""

from __future__ import annotations

from dataclasses import dataclass

from cvjobs.common import devices
from cvjobs.training import plan
from cvjobs.training.checks import memory


@dataclass(frozen=True, kw_only=True)
class FirstWorker:
    """A worker: its device by torch's name, what the precision auto comes to there, and its memory in bytes.

    ``bytes`` are for it alone, where its machine has as many workers as it gets; ``limit`` as ``memory.limit``.
    """

    torch_device: str
    precision: str
    bytes: int
    limit: int


def look(device: str, workers: int) -> FirstWorker:
    """Return what one of so many workers on this machine, or the one that has its GPU, has to compute with."""
    return FirstWorker(
        torch_device=devices.torch_name(device),
        precision=plan.resolved("auto", device),
        bytes=memory.available(device, workers),
        limit=memory.limit(device),
    )
