"""Engines in Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cvjobs.clusters.capacity import Seat
from cvjobs.clusters.link import Link
from cvjobs.clusters.machine_hours import MachineHours
from cvjobs.clusters.ray import connect, disconnect, library, share
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.common.paths import path_bytes
from cvjobs.common.phases import IMPORTING
from cvjobs.common.progress import during
from cvjobs.dataset import schema
from cvjobs.prediction.engine.engine import Engine, EngineSpec, ShardResult
from cvjobs.prediction.engine.throughput import Pace
from cvjobs.prediction.placement import Team
from cvjobs.prediction.scheduler import DEPTH, WorkerDied
from cvjobs.storage.remote_files import is_remote

if TYPE_CHECKING:
    from types import TracebackType

STARTS = 3
CLOSING = 20.0  # s


class Actor:
    """What runs in a Ray actor: an engine, built after the actor stands so that its errors keep their words."""

    def __init__(self) -> None:
        self._stage: Engine | None = None

    def start(self, spec: EngineSpec) -> None:
        """Build the engine.

        Raises WrongUse where this machine sees another file system than the command.
        """
        _check_sight(spec)
        self._stage = Engine(spec)

    def place(self) -> str:
        """Return the id of the machine, once the actor is there."""
        node: str = library().get_runtime_context().get_node_id()
        return node

    def run(self, table: pa.Table) -> ShardResult:
        """Run a shard."""
        assert self._stage is not None
        return self._stage.run(table)

    def pace(self) -> Pace:
        """Return how fast the engine is."""
        return self._stage.pace if self._stage else Pace()

    def close(self) -> Pace:
        """Commit what has an answer and end the engine."""
        if self._stage is not None:
            self._stage.close()
        return self.pace()


def _check_sight(spec: EngineSpec) -> None:
    if not spec.epoch:
        return  # a dry run, whose OUT is a temporary folder of each machine
    out = os.path.join(os.fsencode(spec.out), schema.FORMAT.encode())
    root = path_bytes(spec.root)
    for place, needed, seen in ((spec.out, out, os.path.exists), (spec.root, root, os.path.isdir)):
        if needed and not is_remote(needed) and not seen(needed):
            raise WrongUse(
                f"A worker on {socket.gethostname()} does not see {place}: "
                "use folders that every machine of the cluster shares, or a bucket."
            )


class RayWorkers:
    """Engines in Ray actors: on a cluster, or on a Ray of this machine that ends with the run.

    On a cluster a team that may grow gets a worker more wherever there is room for one, machines that come included;
    one on a machine that is drained ends what it has and gets nothing new.
    """

    def __init__(self, spec: EngineSpec, team: Team, link: Link | None) -> None:
        self._spec, self._team, self._link = spec, team, link
        self._places: dict[Any, str] = {}
        self._seats: dict[Any, Seat] = {}
        self._ready: list[Any] = []
        self._leaving: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._placing: dict[Any, Any] = {}
        self._paces: dict[Any, Pace] = {}
        self._asked: dict[Any, Any] = {}
        self._failed_starts = 0
        self._closed = False
        with during(IMPORTING):
            ray = self._ray = library()
        self._ours = link is None and not ray.is_initialized()
        seats = team.seats
        if link is not None:
            self._ray = link.ray
        elif self._ours:
            with during("starting Ray"):
                connect(None)
        if link is None:
            try:
                cpus = share(ray.nodes(), team.workers, team.device != "cpu", team.gpus_each)
            except CvjobsError:
                if self._ours:  # the next run of this process may be on another cluster
                    disconnect()
                raise
            seats = tuple(replace(seat, cpus=cpus) for seat in seats)
        for seat in seats:
            self._start(seat)

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        closing = {worker.close.remote(): worker for worker in (*self._ready, *self._leaving)}
        if closing:
            closed, _ = self._ray.wait(list(closing), num_returns=len(closing), timeout=CLOSING)
            for handle in closed:
                with contextlib.suppress(Exception):  # one that cannot close any more has nothing left to commit
                    self._paces[closing[handle]] = self._result(handle)
        if self._ours:
            with during("ending Ray"):
                disconnect()
        else:
            for worker in (*self._ready, *self._leaving, *self._starting.values()):
                self._ray.kill(worker)

    def _start(self, seat: Seat) -> None:
        options: dict[str, Any] = {"num_cpus": seat.cpus, "num_gpus": seat.gpus, "max_concurrency": DEPTH + 2}
        if seat.node:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(seat.node, soft=False)
        worker = self._ray.remote(Actor).options(max_restarts=0, max_task_retries=0, **options).remote()
        self._seats[worker] = seat
        self._placing[worker.place.remote()] = worker
        self._starting[worker.start.remote(replace(self._spec, cpus=seat.cpus))] = worker

    def ready(self) -> list[Any]:
        """Return the actors whose engine stands, and that may have more to do."""
        self._note_places()
        started, _ = (
            self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)
            if self._starting
            else ([], [])
        )
        for handle in started:
            worker = self._starting.pop(handle)
            try:
                self._result(handle)
            except WorkerDied as death:
                self._start_again(worker, death)
            else:
                self._failed_starts = 0
                self._ready.append(worker)
        self._look()
        return list(self._ready)

    @property
    def waiting(self) -> int:
        """How many workers have no machine yet."""
        return len(self._placing)

    def _note_places(self) -> None:
        if not self._placing:
            return
        placed, _ = self._ray.wait(list(self._placing), num_returns=len(self._placing), timeout=0)
        for handle in placed:
            worker = self._placing.pop(handle)
            with contextlib.suppress(WorkerDied):  # as its start will say
                self._places[worker] = self._result(handle)

    def _start_again(self, worker: Any, death: WorkerDied) -> None:
        """Start another in the place of one that died before it stood; one whose machine is gone has no place."""
        seat = self._seats.pop(worker)
        if not self._stands(seat):
            self._start_elsewhere(seat)
            return
        self._failed_starts += 1
        if self._failed_starts >= STARTS:
            raise JobFailed(f"Workers die while they start ({death}): see the Ray logs, then run again.") from death
        self._start(seat)

    def _stands(self, seat: Seat) -> bool:
        """Return whether the machine of a seat is there, and stays."""
        if not seat.node or self._link is None:
            return True
        return seat.node in {room.id for room in self._link.capacity().there}

    def _start_elsewhere(self, seat: Seat) -> None:
        """Ask an autoscaler for another machine in the place of one that is gone; without one, what comes is used."""
        if self._link is not None and self._link.kinds:
            self._start(replace(seat, node=""))

    def _look(self) -> None:
        """Let workers on drained machines end what they have, and start one wherever there is room for it."""
        seen = self._link.seen() if self._link is not None else None
        if seen is None:
            return
        for worker in [one for one in self._ready if self._places.get(one, "") in seen.drained]:
            self._ready.remove(worker)
            self._leaving.append(worker)
            if not self._seats[worker].node:
                self._start(self._seats[worker])
        more = self._team.most - len(self._ready) - len(self._starting)
        if not self._team.grows or more <= 0:
            return
        held, starting = Counter(map(self._node, self._seats)), Counter(map(self._node, self._starting.values()))
        gpu = self._team.device != "cpu"
        free = seen.free(gpu=gpu, each=self._team.gpus_each, held=held, starting=starting)
        for seat in free[held[""] :][:more]:  # the first ones are for those that wait for any machine
            self._start(seat)

    def _node(self, worker: Any) -> str:
        return self._places.get(worker) or self._seats[worker].node

    def submit(self, worker: Any, table: pa.Table) -> Any:
        """See ``scheduler.Workers``."""
        return worker.run.remote(table)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """See ``scheduler.Workers``; also wakes when a new actor stands."""
        waiting = [*handles, *self._starting]
        if not waiting:  # for machines
            time.sleep(seconds)
            return []
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        return [handle for handle in done if handle not in self._starting]

    def result(self, handle: Any) -> ShardResult:
        """See ``scheduler.Workers``."""
        done: ShardResult = self._result(handle)
        return done

    def _result(self, handle: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
            raise cause from error  # a bug's report needs the worker's own traceback
        except (errors.NodeDiedError, errors.ObjectLostError, errors.ActorUnschedulableError) as error:
            raise WorkerDied(str(error), innocent=True) from error
        except (errors.RayActorError, errors.OutOfMemoryError, errors.WorkerCrashedError) as error:
            raise WorkerDied(str(error).split("\n", 1)[0], bool(getattr(error, "preempted", False))) from error

    def replace(self, worker: Any) -> None:
        """See ``scheduler.Workers``."""
        if worker in self._leaving:
            self._leaving.remove(worker)
            self._seats.pop(worker)
        elif worker in self._ready:
            self._ready.remove(worker)
            seat = self._seats.pop(worker)
            if self._stands(seat):
                self._start(seat)
            else:
                self._start_elsewhere(seat)

    def note(self, hours: MachineHours) -> None:
        """Note which machines the cluster has, and on which of them workers are; cheap to call often."""
        if self._link is not None:
            hours.look(self._link.seen_nodes(), self._places.values())

    def paces(self) -> list[Pace]:
        """Return how fast the engines were when they last answered; asks them again without waiting."""
        if self._closed:
            return list(self._paces.values())
        for worker, handle in list(self._asked.items()):
            done, _ = self._ray.wait([handle], timeout=0)
            if done:
                del self._asked[worker]
                with contextlib.suppress(WorkerDied, CvjobsError):
                    self._paces[worker] = self._result(handle)
        for worker in (*self._ready, *self._leaving):
            if worker not in self._asked:
                self._asked[worker] = worker.pace.remote()
        return list(self._paces.values())
