"""What the end of an epoch leaves in the run's folder, each file whole or not at all: history, best model, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save
from torch import nn

from cvjobs.storage import LocalStore
from cvjobs.training.plan import HISTORY, MODEL, PREDICTIONS, Plan
from cvjobs.training.scoring import Scores


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A row of ``history.parquet``: the rate of the last step, losses, the metric (see ``scoring``), the pace."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    metric: float
    images_per_second: float
    seconds: float


def table(run: str, name: str, rows: pa.Table) -> None:
    """Write a Parquet file of the run."""
    LocalStore(run).write(name, lambda file: pq.write_table(rows, file))


def content(run: str, name: str, data: bytes) -> None:
    """Write a file of the run."""

    def fill(file: BinaryIO) -> None:
        file.write(data)

    LocalStore(run).write(name, fill)


def history(plan: Plan, rows: Sequence[dict[str, Any]]) -> None:
    """Write a row for each epoch so far."""
    table(plan.run, HISTORY, pa.Table.from_pylist(list(rows)))


def best(plan: Plan, network: nn.Module, epoch: int, found: Scores) -> None:
    """Write the model that scored best so far, and its scores of the validation images."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    table(plan.run, PREDICTIONS, predictions(plan, "val", plan.val.paths, plan.val.labels, found))
    content(plan.run, MODEL, save(tensors, plan.metadata(epoch, found.metric)))


def predictions(plan: Plan, split: str, paths: Sequence[str], labels: np.ndarray[Any, Any], found: Scores) -> pa.Table:
    """Return a row for each image: path, split, what it shows and what the model says, with its probability."""
    probabilities = found.probabilities
    first = probabilities.argmax(1)
    names = np.array(plan.classes, object)
    if plan.several:
        truth: list[Any] = [names[np.flatnonzero(row)].tolist() for row in labels]
        said: list[Any] = [names[np.flatnonzero(row > 0.5)].tolist() for row in probabilities]
    else:
        truth, said = names[labels].tolist(), names[first].tolist()
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "split": [split] * len(paths),
            "label": truth,
            "predicted": said,
            "score": probabilities[np.arange(len(first)), first],
        }
    )
