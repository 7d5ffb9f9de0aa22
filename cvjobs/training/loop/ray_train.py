"""The loop on several workers of Ray Train: started, watched and stopped through small files in the run's folder."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cvjobs.clusters import ray
from cvjobs.common import devices, errors, malloc
from cvjobs.common.errors import CvjobsError, JobFailed, Stopped, WrongUse
from cvjobs.dataset import lock
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.loop.loop import TOLD, Loop, State, Watch
from cvjobs.training.loop.process_group import Together
from cvjobs.training.loop.resources import Resources
from cvjobs.training.plan import TrainPlan

FAILURES = 3  # a machine that is taken away with notice is none
RESIZE = 30.0  # seconds between two looks for machines that have come; a checkpoint is made about as often
PATIENCE = "20"  # seconds, instead of a minute, for workers on a machine that Ray has not yet found to be gone
POLL = 0.5
FOLDER, RAY = "_cvjobs/team", "ray"
_STATE, _STOP, _ENDED, _WARNINGS = "state.json", "stop", "ended.json", "warnings.txt"


def train(
    plan: TrainPlan,
    resources: Resources,
    epoch: int,
    watch: Watch,
    warn: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Train with Ray Train; a worker that dies is replaced, and all go on from the newest checkpoint.

    ``epoch`` is that of the lock on the run's folder; ``waiting`` is called while no worker tells where it is, and may
    raise. Raises:
        JobFailed: it cannot go on, or workers died too often.
        WrongUse: a worker does not see the run's folder.
        Stopped: ``watch`` asked for it.
        OutputHeld: a later run has taken the folder over.
    """
    with _board(plan.run, epoch) as board, ray.connection(resources.address):
        failed: list[BaseException] = []
        fit = threading.Thread(target=_fit, args=(plan, resources, epoch, board, failed), name="ray train", daemon=True)
        fit.start()
        while fit.is_alive():
            fit.join(POLL)
            _pass_on(board, watch, waiting)
        for line in _lines(board / _WARNINGS):
            warn(line)
        ended = _ended(board)
        if ended is not None:
            raise ended
        if failed:
            raise JobFailed(
                f"The workers of this training failed {FAILURES + 1} times ({_last_line(failed[0])}): "
                "the same command continues from the last checkpoint."
            ) from failed[0]


def _fit(plan: TrainPlan, resources: Resources, epoch: int, board: Path, failed: list[BaseException]) -> None:
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
    scaling: dict[str, Any] = {"num_workers": resources.most}
    if elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PATIENCE)
        scaling = {"num_workers": (resources.least, resources.most), "elastic_resize_monitor_interval_s": RESIZE}
    try:
        TorchTrainer(
            _work,
            # As bytes, for Ray Train's controller reads it, too, and need not take seconds to import what is in it.
            train_loop_config={"plan": pickle.dumps(plan), "board": str(board), "cpus": resources.cpus, "epoch": epoch},
            scaling_config=ScalingConfig(use_gpu=gpu, resources_per_worker=each, **scaling),
            torch_config=OneMachine(backend, folder=str(board)) if ray.alone() else TorchConfig(backend),
            run_config=RunConfig(  # type: ignore[call-arg]  # the types are those of its predecessor
                name=f"cvjobs-{os.getpid()}-{time.time_ns()}",
                storage_path=str(board / RAY),
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
    board = Path(config["board"])
    if (board / _ENDED).exists():
        return
    device = torch.device("cpu") if devices.simulated() else get_device()
    assert isinstance(device, torch.device)
    torch.set_num_threads(config["cpus"])
    team = Together(device)
    try:
        if not board.is_dir():
            raise WrongUse(f"A worker does not see {plan.run}: use an -o that every machine of the cluster shares.")
        store, epoch = LocalStore(plan.run), config["epoch"]
        places = team.gathered(ray.library().get_runtime_context().get_node_id())
        notes = Notes(board, team.rank, lock.Glance(store, epoch), tuple(places))
        warn = partial(_warn, board)
        Loop(plan, team, notes, warn, lambda: lock.check(store, epoch), notes.report).run()
    except CvjobsError as error:
        with contextlib.suppress(OSError):
            _put(board / _ENDED, {"kind": type(error).__name__, "sentence": str(error)})
        if team.size > 1 and not isinstance(error, Stopped):
            raise  # or the others, which may not have met it, would wait for this one


class Notes:
    """Tells the command where training is, and is told whether to stop; ``glance`` ends it at once.

    ``machines`` are the ids of Ray's machines that the workers are on.
    """

    def __init__(self, board: Path, rank: int, glance: Callable[[], None], machines: tuple[str, ...] = ()) -> None:
        self._board, self._rank, self._glance = board, rank, glance
        self._told, self._phase, self._machines = 0.0, "", machines

    def __call__(self, _: State) -> bool:
        """Return whether to stop; where training is was reported."""
        if self._rank:
            return False
        self._glance()
        return (self._board / _STOP).exists()

    def report(self, state: State) -> None:
        """Note where training is: each phase as it begins, and steps twice a second."""
        if self._rank or (state.phase == self._phase and time.monotonic() - self._told < TOLD):
            return
        self._told, self._phase = time.monotonic(), state.phase
        _put(self._board / _STATE, {**asdict(state), "machines": self._machines})


def read(board: Path) -> State | None:
    """Return the last note of where training is, None where there is none."""
    try:
        record = json.loads((board / _STATE).read_bytes())
        return State(**{**record, "machines": tuple(record["machines"])})
    except (OSError, ValueError):
        return None


@contextmanager
def _board(run: str, epoch: int) -> Iterator[Path]:
    """Yield a folder for notes between the command and the workers: a later run's notes go into another one."""
    boards = Path(run) / FOLDER
    board = boards / f"{epoch:06d}"
    board.mkdir(parents=True, exist_ok=True)
    try:
        yield board
    finally:
        with contextlib.suppress(OSError):
            for left in boards.iterdir():  # an earlier run's, which was killed, too
                if not left.is_dir():
                    left.unlink()
                elif left.name <= board.name:
                    shutil.rmtree(left, ignore_errors=True)
            boards.rmdir()


def _pass_on(board: Path, watch: Watch, waiting: Callable[[], None]) -> None:
    state = read(board)
    if state is None:
        waiting()
    elif watch(state):
        (board / _STOP).touch()


def _ended(board: Path) -> CvjobsError | None:
    try:
        record = json.loads((board / _ENDED).read_bytes())
    except (OSError, ValueError):
        return None
    kind = getattr(errors, record["kind"], JobFailed)
    return kind(record["sentence"])


def _put(file: Path, record: dict[str, Any]) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(file)


def _warn(board: Path, text: str) -> None:
    with (board / _WARNINGS).open("a") as file:
        print(text.replace("\n", " "), file=file)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
