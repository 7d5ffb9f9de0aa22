"""What the end of an epoch leaves in the run's folder, each file whole or not at all: history, best model, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import save
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import sealed, sealed_table
from cvjobs.dataset.sealed_table import TableGone, UnreadableTable
from cvjobs.networks import sealed_model
from cvjobs.networks.families import training_run
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.loop.training_task import TaskScores, TrainTask
from cvjobs.training.plan import HISTORY, MODEL, TrainPlan
from cvjobs.training.training_summary import FILE as SUMMARY


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A row of ``history.parquet``: the rate of the last step, losses, the metric (see ``TrainTask``), the pace.

    The last four are ``step_costs.StepCosts``, of the first worker; epochs of versions before have none.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    metric: float
    images_per_second: float
    seconds: float
    workers: int
    data_wait: float | None = None
    step_share: float | None = None
    gpu_busy: float | None = None
    gpu_memory: int | None = None


_HISTORY = pa.schema(
    [
        (field.name, pa.int64() if field.name in ("epoch", "workers", "gpu_memory") else pa.float64())
        for field in fields(Epoch)
    ]
)

Check = Callable[[], None]


def _unchecked() -> None:
    pass


def remedy(error: UnreadableTable) -> str:
    """Return how to have a table of a run that has ended written anew."""
    which = "" if isinstance(error, TableGone) else "it and "
    return f"delete {which}{SUMMARY}, and the same command writes both anew"


def table(run: str, name: str, rows: pa.Table, check: Check = _unchecked) -> None:
    """Write a Parquet file of the run, unless ``check`` refuses that by raising."""
    sealed_table.write(LocalStore(run, begun=True, guard=check), name, rows)


def rows(run: str, name: str) -> pa.Table:
    """Return what ``table`` wrote; raises JobFailed where it is gone or damaged."""
    try:
        return sealed_table.read(LocalStore(run), name)
    except UnreadableTable as error:
        raise JobFailed(f"{run}/{name} {error.words}: {remedy(error)}.") from None


def content(run: str, name: str, data: bytes, check: Check = _unchecked) -> None:
    """Write a file of the run, as ``table``."""
    LocalStore(run, begun=True, guard=check).write_bytes(name, data)


def record(run: str, name: str, values: dict[str, Any]) -> None:
    """Write a JSON file of the run."""
    content(run, name, sealed.pack(values, in_order=False))


def history(plan: TrainPlan, rows: Sequence[dict[str, Any]], check: Check) -> None:
    """Write a row for each epoch so far, as ``table``."""
    table(plan.run, HISTORY, pa.Table.from_pylist(list(rows), _HISTORY), check)


def best(plan: TrainPlan, task: TrainTask, network: nn.Module, epoch: int, found: TaskScores, check: Check) -> None:
    """Write the model that scored best so far, and its scores of the validation images, as ``table``."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    table(plan.run, task.file, task.table("val", plan.val, found), check)
    model(plan.run, tensors, plan.metadata(epoch, found.metric), check)


def model(run: str, tensors: Mapping[str, Tensor], metadata: dict[str, str], check: Check = _unchecked) -> None:
    """Write the weights of a run's model, on the CPU, as ``table``."""
    content(run, MODEL, sealed_model.seal(save(dict(tensors), metadata)), check)


def model_fault(run: str) -> str:
    """Return ``gone`` or ``damaged``, empty where a run's model is what was written."""
    file = Path(run) / MODEL
    if not file.exists():
        return "gone"
    try:
        if not file.is_file() or not sealed_model.hashed(file)[1]:
            return "damaged"
    except OSError as error:
        raise WrongUse(f"Cannot read {file} ({error.strerror}): fix its permissions.") from None
    try:
        training_run.about(file)
    except WrongUse:
        return "damaged"
    return ""
