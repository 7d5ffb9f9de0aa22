"""What the end of an epoch leaves in the run's folder, each file whole or not at all: history, best model, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
from safetensors.torch import save
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import sealed, sealed_table
from cvjobs.dataset.sealed_table import TableGone, UnreadableTable
from cvjobs.networks import local_copies, sealed_model
from cvjobs.networks.families import training_run
from cvjobs.storage.store import Store
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


def remedy(error: UnreadableTable) -> str:
    """Return how to have a table of a run that has ended written anew."""
    which = "" if isinstance(error, TableGone) else "it and "
    return f"delete {which}{SUMMARY}, and the same command writes both anew"


def rows(run: Store, name: str) -> pa.Table:
    """Return what ``sealed_table`` wrote; raises JobFailed where it is gone or damaged."""
    try:
        return sealed_table.read(run, name)
    except UnreadableTable as error:
        raise JobFailed(f"{run.place}/{name} {error.words}: {remedy(error)}.") from None


def record(run: Store, name: str, values: dict[str, Any]) -> None:
    """Write a JSON file of the run."""
    run.write_bytes(name, sealed.pack(values, in_order=False))


def history(run: Store, rows: Sequence[dict[str, Any]]) -> None:
    """Write a row for each epoch so far; what a task says more of one has a column of its own."""
    more = dict.fromkeys(name for row in rows for name in row if name not in _HISTORY.names)
    schema = pa.schema([*_HISTORY, *((name, pa.float64()) for name in more)])
    sealed_table.write(run, HISTORY, pa.Table.from_pylist(list(rows), schema))


def best(run: Store, plan: TrainPlan, task: TrainTask, network: nn.Module, epoch: int, found: TaskScores) -> None:
    """Write the model that scored best so far, and its scores of the validation images."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    sealed_table.write(run, task.file, task.table("val", plan.val, found))
    model(run, tensors, plan.metadata(epoch, found.metric))


def model(run: Store, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write the weights of a run's model, on the CPU."""
    run.write_bytes(MODEL, sealed_model.seal(save(dict(tensors), metadata)))


def model_fault(run: Store) -> str:
    """Return ``gone`` or ``damaged``, empty where a run's model is what was written."""
    file = local_copies.file(run, MODEL)
    if file is None:
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
