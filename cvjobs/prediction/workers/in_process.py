"""One engine in this process."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cvjobs.clusters.machine_hours import MachineHours
from cvjobs.common.errors import JobFailed
from cvjobs.images.decode_children import DecoderServer
from cvjobs.prediction.engine.engine import Engine, EngineSpec, ShardResult
from cvjobs.prediction.engine.throughput import Pace
from cvjobs.prediction.scheduler import DEPTH

if TYPE_CHECKING:
    from types import TracebackType


class InProcessWorkers:
    """One engine in this process: nothing to start, nothing to set up."""

    def __init__(self, spec: EngineSpec, decoder_server: DecoderServer | None = None) -> None:
        self._stage = Engine(spec, decoder_server)
        self._threads = ThreadPoolExecutor(DEPTH, thread_name_prefix="shard")

    def __enter__(self) -> InProcessWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.stop()
        self._threads.shutdown()
        self._stage.close()

    def ready(self) -> list[Any]:
        """Return the engine."""
        return [self._stage]

    def submit(self, worker: Any, table: pa.Table) -> Future[ShardResult]:
        """See ``scheduler.Workers``."""
        return self._threads.submit(worker.run, table)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """See ``scheduler.Workers``."""
        return list(wait_for(handles, seconds, FIRST_COMPLETED).done)

    def result(self, handle: Future[ShardResult]) -> ShardResult:
        """See ``scheduler.Workers``; an engine in this process cannot die alone."""
        return handle.result()

    def replace(self, worker: Any) -> None:  # noqa: ARG002
        """See ``scheduler.Workers``."""
        raise JobFailed("The worker of this process cannot be replaced.")

    @property
    def waiting(self) -> int:
        """No worker waits for a machine."""
        return 0

    def note(self, hours: MachineHours) -> None:
        """This machine is the only one, as is known without workers."""

    def paces(self) -> list[Pace]:
        """Return how fast the engine is."""
        return [self._stage.pace]
