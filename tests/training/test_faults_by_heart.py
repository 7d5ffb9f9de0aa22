"""Detectors learn eight pictures by heart from random weights."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from block_pictures import by_heart

import cvjobs

pytestmark = pytest.mark.faults(minutes=5)

OWN = None  # the backbone that a detector is made with


# They take 65 and 116 s of CPU. ``times`` is how often a picture is in an epoch.
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
    cvjobs.train(
        data, tmp_path / "run", task="detect", model=model, backbone=backbone, weights="random", recipe="detect",
        img_size=str(side), epochs=10, batch_size=4, scale_jitter="1:1", color_jitter=0.0,
    )  # fmt: skip
    rows = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert max(row["AP50"] for row in rows) >= 0.95
