"""Who runs the Stages: this process itself, or Ray actors here or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cvjobs import devices, tokens
from cvjobs.compat.ray_printing import let_print
from cvjobs.dataset import layout
from cvjobs.decoding.lanes import Nursery
from cvjobs.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.paths import path_bytes
from cvjobs.pool import DEPTH, WorkerDied
from cvjobs.remote import is_remote
from cvjobs.stage.assembly import Done, Stage, StageSpec
from cvjobs.stage.pace import Pace

if TYPE_CHECKING:
    from types import TracebackType

STARTS = 3
CLOSING = 20.0
KNOCK = 10.0
OBJECT_STORE = 100 << 20


class LocalCrew:
    """One Stage in this process: nothing to start, nothing to set up."""

    def __init__(self, spec: StageSpec, nursery: Nursery | None = None) -> None:
        self._stage = Stage(spec, nursery)
        self._threads = ThreadPoolExecutor(DEPTH, thread_name_prefix="shard")

    def __enter__(self) -> LocalCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.stop()
        self._threads.shutdown()
        self._stage.close()

    def workers(self) -> list[Any]:
        """Return the Stage."""
        return [self._stage]

    def submit(self, worker: Any, table: pa.Table) -> Future[Done]:
        """See ``pool.Crew``."""
        return self._threads.submit(worker.run, table)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """See ``pool.Crew``."""
        return list(wait_for(handles, seconds, FIRST_COMPLETED).done)

    def result(self, handle: Future[Done]) -> Done:
        """See ``pool.Crew``; a Stage in this process cannot die alone."""
        return handle.result()

    def replace(self, worker: Any) -> None:  # noqa: ARG002
        """See ``pool.Crew``."""
        raise JobFailed("The worker of this process cannot be replaced.")

    def paces(self) -> list[Pace]:
        """Return how fast the Stage is."""
        return [self._stage.pace]


class Actor:
    """What runs in a Ray actor: a Stage, built after the actor stands so that its errors keep their words."""

    def __init__(self) -> None:
        self._stage: Stage | None = None

    def start(self, spec: StageSpec) -> None:
        """Build the Stage; raises WrongUse where this machine sees another file system than the command."""
        _check_sight(spec)
        self._stage = Stage(spec)

    def run(self, table: pa.Table) -> Done:
        """Run a shard."""
        assert self._stage is not None
        return self._stage.run(table)

    def pace(self) -> Pace:
        """Return how fast the Stage is."""
        return self._stage.pace if self._stage else Pace()

    def close(self) -> Pace:
        """Commit what has an answer and end the Stage."""
        if self._stage is not None:
            self._stage.close()
        return self.pace()


def _check_sight(spec: StageSpec) -> None:
    if not spec.lease:
        return  # a dry run, whose OUT is a temporary folder of each machine
    out = os.path.join(os.fsencode(spec.out), layout.FORMAT.encode())
    root = path_bytes(spec.root)
    for place, needed, seen in ((spec.out, out, os.path.exists), (spec.root, root, os.path.isdir)):
        if needed and not is_remote(needed) and not seen(needed):
            raise WrongUse(
                f"A worker on {socket.gethostname()} does not see {place}: "
                "use folders that every machine of the cluster shares, or a bucket."
            )


class RayCrew:
    """Stages in Ray actors: on the cluster at an address, or on a Ray of this machine that ends with the run."""

    def __init__(self, spec: StageSpec, workers: int, address: str | None) -> None:
        ray = self._ray = _ray()
        self._ours = not ray.is_initialized()
        if self._ours:
            connect(address)
        gpu = spec.device != "cpu"
        self._spec = spec = replace(spec, cpus=_share(ray.nodes(), workers, gpu))
        actor = ray.remote(Actor)
        self._make = actor.options(
            num_cpus=spec.cpus,
            num_gpus=1 if gpu else 0,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=DEPTH + 2,
        )
        self._ready: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._paces: dict[Any, Pace] = {}
        self._asked: dict[Any, Any] = {}
        self._failed_starts = 0
        self._closed = False
        for _ in range(workers):
            self._start()

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        closing = {worker.close.remote(): worker for worker in self._ready}
        if closing:
            closed, _ = self._ray.wait(list(closing), num_returns=len(closing), timeout=CLOSING)
            for handle in closed:
                with contextlib.suppress(Exception):  # one that cannot close any more has nothing left to commit
                    self._paces[closing[handle]] = self._result(handle)
        if self._ours:
            disconnect()
        else:
            for worker in (*self._ready, *self._starting.values()):
                self._ray.kill(worker)

    def _start(self) -> None:
        worker = self._make.remote()
        self._starting[worker.start.remote(self._spec)] = worker

    def workers(self) -> list[Any]:
        """Return the actors whose Stage stands."""
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
                self._failed_starts += 1
                if self._failed_starts >= STARTS:
                    raise JobFailed(
                        f"Workers die while they start ({death}): see the Ray logs, then run again."
                    ) from death
                self._start()
            else:
                self._failed_starts = 0
                self._ready.append(worker)
        return list(self._ready)

    def submit(self, worker: Any, table: pa.Table) -> Any:
        """See ``pool.Crew``."""
        return worker.run.remote(table)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        """See ``pool.Crew``; also wakes when a new actor stands."""
        waiting = [*handles, *self._starting]
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        return [handle for handle in done if handle not in self._starting]

    def result(self, handle: Any) -> Done:
        """See ``pool.Crew``."""
        done: Done = self._result(handle)
        return done

    def _result(self, handle: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
            raise cause from error  # a bug's report needs the worker's own traceback
        except (errors.NodeDiedError, errors.ObjectLostError) as error:
            raise WorkerDied(str(error), innocent=True) from error
        except (errors.RayActorError, errors.OutOfMemoryError, errors.WorkerCrashedError) as error:
            raise WorkerDied(str(error).split("\n", 1)[0], bool(getattr(error, "preempted", False))) from error

    def replace(self, worker: Any) -> None:
        """See ``pool.Crew``."""
        if worker in self._ready:
            self._ready.remove(worker)
            self._start()

    def paces(self) -> list[Pace]:
        """Return how fast the Stages were when they last answered; asks them again without waiting."""
        if self._closed:
            return list(self._paces.values())
        for worker, handle in list(self._asked.items()):
            done, _ = self._ray.wait([handle], timeout=0)
            if done:
                del self._asked[worker]
                with contextlib.suppress(WorkerDied, CvjobsError):
                    self._paces[worker] = self._result(handle)
        for worker in self._ready:
            if worker not in self._asked:
                self._asked[worker] = worker.pace.remote()
        return list(self._paces.values())


def connect(address: str | None) -> None:
    """Connect to the Ray cluster at an address, or start a Ray on this machine that ends with this process."""
    if address and "://" in address and not address.startswith("ray://"):
        raise WrongUse(
            f"--address {address} is no host:port: give the address that `ray start` printed, or auto; "
            "http://HOST:8265 is for the command line."
        )
    ray = _ray()
    if not address:
        tokens.ensure()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if not address:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "address": "local"}
        options["num_cpus"] = devices.cpus()
    else:
        _knock(address)
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # one try, which takes 40 s, instead of 20
        options["address"] = address
    handler = signal.getsignal(signal.SIGTERM)
    let_print(ray, False)
    try:
        ray.init(**options)
    except SystemExit:  # Ray's own answer to SIGTERM, which it puts in place of ours
        raise KeyboardInterrupt from None
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise _no_answer(address or "this machine", str(error).strip().split("\n", 1)[0]) from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no kind of its own for it
            raise
        raise JobFailed(
            "Ray did not start in time, for this machine is too busy: run the same command again when it is less so."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected as ``connect`` does; a connection that was there before stays."""
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        connect(address)
    try:
        yield ray
    finally:
        if ours:
            disconnect()


def disconnect() -> None:
    """End a connection that ``connect`` made."""
    ray = _ray()
    ray.shutdown()
    let_print(ray, True)


def _knock(address: str) -> None:
    """Raise JobFailed where nobody listens at a ``host:port``: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or str(error)) from error


def _no_answer(where: str, reason: str) -> JobFailed:
    return JobFailed(f"Ray does not answer at {where} ({reason}): check --address and RAY_ADDRESS.")


def _share(nodes: list[dict[str, Any]], workers: int, gpu: bool) -> int:
    """Return how many cores each worker gets, so that all have room at once; raises WrongUse where they have none."""
    rooms = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [int(room.get("CPU", 0)) for room in rooms]
    limits = [int(room.get("GPU", 0)) if gpu else count for room, count in zip(rooms, cores, strict=True)]
    for share in range(max(cores, default=0), 0, -1):
        if sum(min(count // share, limit) for count, limit in zip(cores, limits, strict=True)) >= workers:
            return share
    raise WrongUse(
        f"--workers {workers} needs {workers} {'GPUs' if gpu else 'cores'} and the cluster has {sum(limits)}: "
        f"use at most --workers {sum(limits)}."
    )


def _ray() -> Any:
    """Import Ray, without metrics ports open to everybody, usage reports and errors nobody waits for."""
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    os.environ.setdefault("RAY_DISABLE_METRICS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What a worker says after nobody needs its answer any more is no news; every other error is raised here.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    return ray


def crew(
    spec: StageSpec, workers: int, distributed: bool, address: str | None, nursery: Nursery | None
) -> LocalCrew | RayCrew:
    """Return the crew for a run: Ray where there is something to distribute, else this process."""
    return RayCrew(spec, workers, address) if distributed else LocalCrew(spec, nursery)
