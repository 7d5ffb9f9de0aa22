"""Which workers a run has: Ray where there is something to distribute, else this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvjobs.images.decode_worker import Nursery
from cvjobs.prediction.engine.engine import StageSpec

if TYPE_CHECKING:
    pass
from cvjobs.prediction.workers.in_process import LocalCrew
from cvjobs.prediction.workers.ray_actors import RayCrew


def workers(
    spec: StageSpec, workers: int, distributed: bool, address: str | None, nursery: Nursery | None
) -> LocalCrew | RayCrew:
    """Return the crew for a run: Ray where there is something to distribute, else this process."""
    return RayCrew(spec, workers, address) if distributed else LocalCrew(spec, nursery)
