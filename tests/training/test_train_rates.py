"""`cvjobs train --find-lr`: what it suggests and leaves, and that a training in the same folder knows nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from training import SIDE, folder, plan

import cvjobs
from cvjobs.common.errors import Stopped
from cvjobs.training.checks import lr_range

OPTIONS: dict[str, Any] = {
    "model": "small/cnn",
    "recipe": "quick",
    "epochs": 1,
    "img_size": str(SIDE),
    "batch_size": 16,
}


@pytest.mark.faults(minutes=0.2)
def test_a_rate_is_found_over_epochs_of_few_steps_and_in_parts(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", images=40, accumulate=2, ema=0.9)
    found = lr_range.find(made, torch.device("cpu"), lambda _: False)
    assert found.lr is not None
    assert 1e-5 < found.lr < 0.5
    assert f"--lr {found.lr:.2g} is where" in str(found)
    curve = pd.read_parquet(tmp_path / "run" / "find-lr.parquet")
    assert found.to_pandas().equals(curve)
    assert len(curve) == found.steps == found.as_dict()["steps"]
    assert curve["lr"].is_monotonic_increasing
    assert curve["loss"].min() < 0.9 * curve["loss"][0]
    assert f"--lr {found.lr:.2g}" in (tmp_path / "run" / "find-lr.html").read_text()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["find-lr.html", "find-lr.parquet"]


@pytest.mark.faults
def test_a_search_leaves_a_run_as_it_is(tmp_path: Path) -> None:
    images, out = folder(tmp_path / "images", 16), tmp_path / "run"
    found = cvjobs.train(images, out, find_lr=True, **OPTIONS)
    assert not {"config.json", "model.safetensors", "checkpoints"} & {path.name for path in out.iterdir()}
    assert cvjobs.train(images, out, **OPTIONS, lr=found.lr).epochs == 1
    again = cvjobs.train(images, out, find_lr=True, **OPTIONS)
    assert again.lr == found.lr, "from the beginning of a training, and not from where the run is"
    assert cvjobs.train(images, out, **OPTIONS, lr=found.lr).up_to_date


def test_a_search_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="starts the search"):
        lr_range.find(plan(tmp_path, "run"), torch.device("cpu"), lambda state: state.done == 3)


def test_where_no_rate_lowers_the_loss_the_user_is_told() -> None:
    assert "at no rate" in str(lr_range.LearningRate(lr=None, steps=9, out="run"))
