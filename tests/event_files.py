"""What TensorBoard would read of a run's event files, without TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tensorboardX.proto.event_pb2 import Event

TAGS = {
    "train/loss": "train_loss",
    "val/loss": "val_loss",
    "val/top-1": "metric",
    "lr": "lr",
    "images_per_second": "images_per_second",
}


def records(run: str) -> Iterator[Any]:
    """The events of a run's files, each record (length, its checksum, data, their checksum) whole."""
    for file in sorted((Path(run) / "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert len(data) >= length + 16
            yield Event.FromString(data[12 : 12 + length])
            data = data[length + 16 :]


def curves(run: str) -> dict[str, list[tuple[int, float]]]:
    """The points of each curve."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in records(run):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def expected(run: str) -> dict[str, list[tuple[int, Any]]]:
    rows = pq.read_table(Path(run) / "history.parquet").to_pylist()
    return {tag: [(row["epoch"], pytest.approx(row[column])) for row in rows] for tag, column in TAGS.items()}
