"""What the end of an epoch leaves in the run's folder, each file whole or not at all: history, best model, scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save
from torch import nn

from cvjobs.storage.local_store import LocalStore
from cvjobs.training.loop.training_task import TaskScores, TrainTask
from cvjobs.training.plan import HISTORY, MODEL, TrainPlan


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A row of ``history.parquet``: the rate of the last step, losses, the metric (see ``TrainTask``), the pace."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    metric: float
    images_per_second: float
    seconds: float
    workers: int


def table(run: str, name: str, rows: pa.Table) -> None:
    """Write a Parquet file of the run."""
    LocalStore(run, begun=True).write(name, lambda file: pq.write_table(rows, file))


def content(run: str, name: str, data: bytes) -> None:
    """Write a file of the run."""
    LocalStore(run, begun=True).write_bytes(name, data)


def record(run: str, name: str, values: dict[str, Any]) -> None:
    """Write a JSON file of the run."""
    content(run, name, (json.dumps(values, indent=1) + "\n").encode())


def history(plan: TrainPlan, rows: Sequence[dict[str, Any]]) -> None:
    """Write a row for each epoch so far."""
    table(plan.run, HISTORY, pa.Table.from_pylist(list(rows)))


def best(plan: TrainPlan, task: TrainTask, network: nn.Module, epoch: int, found: TaskScores) -> None:
    """Write the model that scored best so far, and its scores of the validation images."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    table(plan.run, task.file, task.table("val", plan.val, found))
    content(plan.run, MODEL, _canonical(save(tensors, plan.metadata(epoch, found.metric))))


def _canonical(model: bytes) -> bytes:
    """Return a safetensors file with its metadata in order: the library's own order differs from process to process."""
    end = 8 + int.from_bytes(model[:8], "little")
    header = json.loads(model[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + model[end:]
