"""Which workers a run has: Ray where there is something to distribute, else this process."""

from __future__ import annotations

from cvjobs.clusters.link import Link
from cvjobs.images.decode_children import DecoderServer
from cvjobs.prediction.engine.engine import EngineSpec
from cvjobs.prediction.placement import Team
from cvjobs.prediction.workers.in_process import InProcessWorkers
from cvjobs.prediction.workers.ray_actors import RayWorkers


def start_workers(
    spec: EngineSpec, team: Team, link: Link | None, decoder_server: DecoderServer | None
) -> InProcessWorkers | RayWorkers:
    """Return the workers of a run: Ray where there is something to distribute, else this process."""
    return RayWorkers(spec, team, link) if team.distributed else InProcessWorkers(spec, decoder_server)
