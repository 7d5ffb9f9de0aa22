"""Detectors learn eight pictures by heart from random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from block_pictures import by_heart

import cvjobs

pytestmark = pytest.mark.faults(minutes=5)

OWN = None  # the backbone that a detector is made with


def history(data: Path, out: Path, model: str, backbone: str | None, **more: Any) -> list[dict[str, Any]]:
    """Return the epochs of a training, of the pictures as they are but for mirrored ones."""
    cvjobs.train(
        data, out, task="detect", model=model, backbone=backbone, weights="random", scale_jitter="1:1",
        color_jitter=0.0, recipe="detect", **more,
    )  # fmt: skip
    rows: list[dict[str, Any]] = pq.read_table(out / "history.parquet").to_pylist()
    return rows


# What each takes alone on one CPU: 65 and 116 s. ``times`` is how often a picture is in an epoch.
@pytest.mark.parametrize(
    ("model", "backbone", "side", "times"),
    [
        ("ssdlite320_mobilenet_v3_large", OWN, 96, 20),
        ("retinanet_resnet50_fpn", "mobilenet_v2", 64, 10),
    ],
)
def test_eight_pictures_are_learnt_by_heart(
    tmp_path: Path, model: str, backbone: str | None, side: int, times: int
) -> None:
    data = by_heart(tmp_path / "data", side, times)
    rows = history(data, tmp_path / "run", model, backbone, img_size=str(side), epochs=10, batch_size=4)
    assert max(row["AP50"] for row in rows) >= 0.95
