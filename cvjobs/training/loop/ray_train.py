"""The loop on several workers of Ray Train: started, watched and stopped through the notes of a ``board``."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch

from cvjobs.clusters import ray
from cvjobs.clusters.placed import Placed
from cvjobs.common import devices, malloc
from cvjobs.common.errors import CvjobsError, JobFailed, Stopped, StoreUnreachable
from cvjobs.common.formatting import counted, duration
from cvjobs.dataset import lock, sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.networks import local_copies
from cvjobs.storage.store import Store
from cvjobs.training import conclusion
from cvjobs.training.data import outcomes
from cvjobs.training.loop import board
from cvjobs.training.loop.board import Board
from cvjobs.training.loop.loop import TOLD, Loop, State, Watch
from cvjobs.training.loop.machine_filling import MachineFilling
from cvjobs.training.loop.process_group import ProcessGroup, Together
from cvjobs.training.loop.resources import Resources
from cvjobs.training.plan import HISTORY, TrainPlan

FAILURES = 3  # a machine that is taken away with notice is none
RESIZE = 30.0  # seconds between two looks for machines that have come; a checkpoint is made about as often
PATIENCE = "20"  # seconds, instead of a minute, for workers on a machine that Ray has not yet found to be gone
PATIENT = 1800.0  # seconds that a training which has begun waits for machines in the place of some that are gone
POLL = 0.5
ANSWERED = 3.0  # seconds in which the command has heard where the workers are, and said whether to stop
RAY = "ray"

Waiting = Callable[[float | None], bool]


def train(
    plan: TrainPlan,
    resources: Resources,
    epoch: int,
    watch: Watch,
    warn: Callable[[str], None],
    waiting: Waiting = lambda _: False,
    *,
    heard: Callable[[dict[str, Any]], None] = lambda _: None,
) -> float | None:
    """Train with Ray Train; a worker that dies is replaced, and all go on from the newest checkpoint.

    Returns the metric of the best model on the test images of the plan, None without any.

    ``epoch`` is that of the lock on the run's folder; ``waiting`` is called while no worker tells where it is, with the
    seconds for which they have had no machines or None, returns whether to stop, and may raise; so may ``heard``, which
    is told of how far the first worker's machine has decoded. Raises:
        JobFailed: it cannot go on, workers died or did not reach the store too often, or no machine came in the place
            of one that is gone.
        WrongUse: a worker does not see the run's folder.
        Stopped: ``watch`` or ``waiting`` asked for it.
        OutputHeld: a later run has taken the folder over.
    """
    with (
        ray.connection(resources.address) as library,
        board.opened(plan.store(), epoch) as notes,
        closing(Placed(library)) if resources.address else nullcontext() as placed,
    ):
        failed: list[BaseException] = []
        fit = threading.Thread(target=_fit, args=(plan, resources, epoch, notes, failed), name="ray train", daemon=True)
        fit.start()
        follower = _Follower(notes, placed, watch, waiting, resources.least)
        while fit.is_alive():
            fit.join(POLL)
            _hear(notes, heard)
            follower.look()
        for line in notes.warnings():
            warn(line)
        ended = board.ended_by(notes)
        if ended is not None:
            raise ended
        if failed and (silent := unreached(failed[0])):
            raise silent from failed[0]
        if failed:
            raise JobFailed(
                f"The workers of this training failed {FAILURES + 1} times ({_last_line(failed[0])}): "
                "the same command continues from the last checkpoint."
            ) from failed[0]
        _hear(notes, heard)
        tested = notes.told(board.TESTED) or {}
        return tested.get("metric")


def _fit(plan: TrainPlan, resources: Resources, epoch: int, notes: Board, failed: list[BaseException]) -> None:
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    if not resources.address:  # this machine is not taken away with notice, and the actor that looks costs seconds
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from cvjobs.training.loop.one_machine import OneMachine

    gpu = resources.device != "cpu"
    torch_device = resources.first.torch_device if resources.first else devices.torch_name(resources.device)
    backend = "nccl" if torch_device == "cuda" else "gloo"
    elastic = resources.least < resources.most
    each = {"CPU": float(resources.cpus), **({"GPU": 1.0} if gpu else {})}
    scaling: dict[str, Any] = {"num_workers": resources.most, "placement_strategy": "PACK" if gpu else "SPREAD"}
    if elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PATIENCE)
        scaling |= {"num_workers": (resources.least, resources.most), "elastic_resize_monitor_interval_s": RESIZE}
    try:
        TorchTrainer(
            _work,
            # As bytes, for Ray Train's controller reads it, too, and need not take seconds to import what is in it.
            train_loop_config={
                "plan": pickle.dumps(plan),
                "notes": notes,
                "cpus": resources.cpus,
                "epoch": epoch,
            },
            scaling_config=ScalingConfig(use_gpu=gpu, resources_per_worker=each, **scaling),
            torch_config=OneMachine(backend, folder=str(notes.place)) if ray.alone() else TorchConfig(backend),
            run_config=RunConfig(  # type: ignore[call-arg]  # the types are those of its predecessor
                name=f"cvjobs-{os.getpid()}-{time.time_ns()}",
                storage_path=str(notes.place / RAY),
                failure_config=FailureConfig(max_failures=FAILURES),
                worker_runtime_env={} if gpu else {"env_vars": malloc.ENVIRONMENT},
            ),
        ).fit()
    except Exception as error:  # noqa: BLE001 - raised by ``train``, in the thread that waits
        failed.append(error)


def _work(config: dict[str, Any]) -> None:
    """Run the loop in a worker; what ends it for good is noted, for Ray tries again after any error."""
    from ray.train.torch import get_device

    plan: TrainPlan = pickle.loads(config["plan"])  # noqa: S301 - of the process that started this one
    notes: Board = config["notes"]
    if notes.ended() is not None:
        return
    device = torch.device("cpu") if devices.simulated() else get_device()
    assert isinstance(device, torch.device)
    torch.set_num_threads(config["cpus"])
    team = Together(device)
    try:
        notes.check()
        store, epoch = plan.store(), config["epoch"]
        hold = Hold(notes, store, epoch, team.rank)
        places = team.gathered(ray.library().get_runtime_context().get_node_id())
        guarded = plan.store(hold)
        with local_copies.reached_with(plan.storage), _images(plan, team, places, notes, guarded) as images:
            reporter = Reporter(notes, team.rank, lock.Glance(store, epoch), tuple(places), images)
            here, agree = (images.plan, images.agree) if images else (plan, None)
            trained = Loop(here, team, reporter, notes.warn, hold, reporter.report, agree=agree)
            trained.run()
            if images:
                images.finish()
                hold()
                _test(here, team, notes, reporter, trained, hold)
                images.clear()
    except StoreUnreachable:
        raise  # by this machine, for now: Ray starts workers again, perhaps on another one
    except CvjobsError as error:
        board.end_with(notes, error)
        if team.size > 1 and not isinstance(error, Stopped):
            raise  # or the others, which may not have met it, would wait for this one


@contextmanager
def _images(
    plan: TrainPlan, team: ProcessGroup, machines: list[str], notes: Board, store: Store
) -> Iterator[MachineFilling | None]:
    """Yield what decodes on this machine for its workers, None where the command's machine does for all."""
    if plan.decoding is None:
        yield None
        return
    try:
        epoch = sealed_table.read(store, HISTORY).num_rows
    except UnreadableTable:
        epoch = 0
    with MachineFilling(plan, team, machines, notes, store, epoch=epoch) as images:
        yield images


def _test(plan: TrainPlan, team: ProcessGroup, notes: Board, reporter: Reporter, trained: Loop, hold: Hold) -> None:
    """Score the best model where its images are decoded: the first worker does, and the others wait for it.

    Raises Stopped where the command wants it before.
    """
    test = outcomes.known(plan.test) if plan.test is not None and team.rank == 0 else None
    if test is not None:
        reporter.report(trained.tests(len(test)))
    if any(team.gathered(team.rank == 0 and _stopping(notes, ANSWERED if plan.limited else 0.0))):
        raise Stopped("Stopped before the test and the page: the same command continues.")
    if team.rank == 0:
        conclusion.scored(replace(plan, val=outcomes.known(plan.val)), team.device, hold)
        if test is not None:
            notes.tell(board.TESTED, {"metric": conclusion.tested(plan, test, team.device, hold)})
    team.gathered(None)


def _stopping(notes: Board, seconds: float) -> bool:
    """Return whether the command wants the workers to stop, which it may take some seconds to say."""
    until = time.monotonic() + seconds
    while not notes.stopping():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL)
    return True


class Hold:
    """Called, raises where these workers may not write: another command has taken the run over, or another team.

    The first of them is a new team from then on that this is made.
    """

    def __init__(self, notes: Board, store: Store, epoch: int, rank: int) -> None:
        self._notes, self._store, self._epoch = notes, store, epoch
        self._team = None if rank else notes.join()

    def __call__(self) -> None:
        """Raise OutputHeld, or, in the first of them, Superseded."""
        lock.check(self._store, self._epoch)
        if self._team is not None:
            self._notes.check_team(self._team)


class Reporter:
    """Tells the command where training is, and is told whether to stop; ``glance`` ends it at once.

    ``machines`` are the ids of Ray's machines that the workers are on, ``images`` what is told of every worker.
    """

    def __init__(
        self,
        notes: Board,
        rank: int,
        glance: Callable[[], None],
        machines: tuple[str, ...] = (),
        images: MachineFilling | None = None,
    ) -> None:
        self._notes, self._rank, self._glance = notes, rank, glance
        self._told, self._phase, self._machines, self._images = 0.0, "", machines, images

    def __call__(self, _: State) -> bool:
        """Return whether to stop; where training is was reported."""
        if self._rank:
            return False
        self._glance()
        return self._notes.stopping()

    def report(self, state: State) -> None:
        """Note where training is: each phase as it begins, and steps twice a second."""
        if self._images is not None:
            self._images.look(state)
        if self._rank or (state.phase == self._phase and time.monotonic() - self._told < TOLD):
            return
        self._told, self._phase = time.monotonic(), state.phase
        self._notes.report({**asdict(state), "machines": self._machines})


def read(notes: Board) -> State | None:
    """Return the last note of where the training is, None where there is none."""
    record = notes.reported()
    return None if record is None else State(**{**record, "machines": tuple(record["machines"])})


class _Follower:
    """Passes on where the workers are: to ``watch`` what they tell, and to ``waiting`` that they tell nothing."""

    def __init__(self, notes: Board, placed: Placed | None, watch: Watch, waiting: Waiting, least: int) -> None:
        self._notes, self._placed, self._watch, self._waiting, self._least = notes, placed, watch, waiting, least
        self._lost: State | None = None  # what they told last before they had no machines

    def look(self) -> None:
        """Ask the workers to stop where that is wanted; raises where there are none, and none may come any more."""
        state, waited = read(self._notes), self._placed.waited if self._placed else None
        if waited is not None:
            self._lost = state
            if self._waiting(waited):
                raise self._end(Stopped("Stopped: the same command continues."))
            if state is not None and waited > PATIENT:
                raise self._end(JobFailed(self._sentence()))
        elif state == self._lost:
            if self._waiting(None):
                self._notes.stop()
        elif state is not None and self._watch(state):
            self._notes.stop()

    def _end(self, error: CvjobsError) -> CvjobsError:
        """Return the error, of which workers that get machines all the same are told."""
        board.end_with(self._notes, error)
        return error

    def _sentence(self) -> str:
        team = counted(self._least, "workers")
        fewer = f", and with --workers 1:{self._least} on fewer" if self._least > 1 else ""
        return (
            f"A machine is gone, and for {duration(PATIENT)} the cluster had no room for {team}: "
            f"when it has, the same command continues from the last checkpoint{fewer}."
        )


def unreached(error: BaseException) -> StoreUnreachable | None:
    """Return why workers failed where their store did not answer one of them, given Ray's error; else None."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    return next((failure for failure in failures.values() if isinstance(failure, StoreUnreachable)), None)


def _hear(notes: Board, heard: Callable[[dict[str, Any]], None]) -> None:
    if (record := notes.told(board.DECODING)) is not None:
        heard(record)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
