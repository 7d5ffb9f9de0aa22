"""A run that is asked for more epochs: what goes on, as if it had had them from the start, and what cannot."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import CLI, kill, started, until
from event_files import curves, expected
from training import SIDE, TIMED, copied, folder, loop, plan

import cvjobs
from cvjobs.common.errors import Stopped, WrongUse
from cvjobs.dataset import sealed
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.loop.checkpoints import Checkpoints
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe import recipe as recipe_recipe
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow
SHORT = pytest.mark.faults(minutes=0.2)

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "img_size": str(SIDE), "batch_size": 16, "sched": "constant",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number, split in enumerate(("train", "val", "test")):
        folder(root / split, 12 if split == "train" else 4, seed=number)
    return root


@pytest.fixture(scope="module")
def ended(images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A run of two epochs that has ended, with curves for TensorBoard."""
    out = tmp_path_factory.mktemp("runs") / "run"
    summary: TrainingSummary = cvjobs.train(images, out, **OPTIONS, epochs=2, tensorboard=True)
    return summary


@pytest.fixture
def run(ended: TrainingSummary, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ended.out, tmp_path / "run"))


def state(run: str | Path) -> Any:
    """Everything of the newest checkpoint that a training goes on from, in values that compare."""
    found = Checkpoints(LocalStore(run)).newest(print)
    assert found is not None
    rows = [{name: row[name] for name in row if name not in TIMED} for row in found.meta["history"]]
    tensors = {name: tensor.tolist() for part in (found.model, found.average) for name, tensor in part.items()}
    return tensors, json.dumps(found.optimizer, default=torch.Tensor.tolist), rows, found.meta["done"]


def longer(made: TrainPlan, epochs: int) -> TrainPlan:
    return replace(made, recipe=replace(made.recipe, epochs=epochs), begun_epochs=made.recipe.epochs)


def record(run: Path) -> dict[str, Any]:
    config = sealed.unpack((run / "config.json").read_bytes())
    assert config is not None
    return dict(config["identity"])


@pytest.mark.parametrize(
    "settings",
    [
        {"sched": "constant"},
        pytest.param({"sched": "step", "decay_epochs": 1.0, "decay_rate": 0.5, "ema": 0.9}, marks=SHORT),
        {"sched": "plateau", "decay_epochs": 1.0, "mixup": 0.2, "opt": "sgd"},
        pytest.param({"sched": "cyclic", "decay_epochs": 1.0, "warmup_epochs": 0.0}, marks=SHORT),
    ],
    ids=["constant", "step", "plateau", "cyclic"],
)
def test_it_ends_as_if_it_had_been_asked_from_the_start(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = plan(tmp_path, "whole", images=32, epochs=4, **settings)
    loop(whole).run()
    begun = replace(copied(whole, "begun"), recipe=replace(whole.recipe, epochs=2))
    loop(begun).run()
    more = longer(begun, 4)

    with pytest.raises(Stopped):
        loop(more, lambda state: state.epoch == 3).run()  # in the middle of what is added
    loop(more).run()
    assert state(whole.run) == state(begun.run)
    assert (Path(whole.run) / "model.safetensors").read_bytes() == (Path(begun.run) / "model.safetensors").read_bytes()


def test_all_that_a_run_has_shows_the_whole(images: Path, run: Path, tmp_path: Path) -> None:
    summary = cvjobs.train(images, run, **OPTIONS, epochs=4)
    whole = cvjobs.train(images, tmp_path / "whole", **OPTIONS, epochs=4)
    assert (summary.epochs, summary.up_to_date) == (4, False)
    assert (summary.metric, summary.test_metric, summary.final_loss) == (
        whole.metric, whole.test_metric, whole.final_loss,
    )  # fmt: skip
    assert state(run) == state(tmp_path / "whole")
    for name in ("model.safetensors", "predictions.parquet"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (record(run)["epochs"], record(run)["begun_epochs"]) == (4, 2)
    assert "begun_epochs" not in record(tmp_path / "whole")
    assert curves(str(run)) == expected(str(run))
    assert "of 4" in (run / "report.html").read_text()
    assert cvjobs.train(images, run, **OPTIONS, epochs=4).up_to_date
    assert cvjobs.verify(str(run)).exit_code == 0
    assert cvjobs.train(images, run, **OPTIONS, epochs=5).epochs == 5  # and again


def test_what_was_killed_before_its_first_new_step_goes_on(images: Path, run: Path) -> None:
    identity = {**record(run), "epochs": 3, "begun_epochs": 2}
    (run / "summary.json").unlink()
    (run / "config.json").write_bytes(sealed.pack({"identity": identity, "command": "train"}, in_order=False))
    assert cvjobs.train(images, run, **OPTIONS, epochs=3).epochs == 3


def test_without_its_record_the_same_command_goes_on_from_the_checkpoints(images: Path, run: Path) -> None:
    cvjobs.train(images, run, **OPTIONS, epochs=3)
    for name in ("config.json", "summary.json"):
        (run / name).unlink()
    assert cvjobs.train(images, run, **OPTIONS, epochs=3).epochs == 3
    assert record(run)["begun_epochs"] == 2


@pytest.mark.faults(minutes=0.2)
def test_a_warm_up_that_nobody_asked_for_stays_that_of_the_first_command(images: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "recipe": "finetune"}
    cvjobs.train(images, tmp_path / "run", **options, epochs=1)
    cvjobs.train(images, tmp_path / "run", **options, epochs=2)
    cvjobs.train(images, tmp_path / "whole", **options, epochs=2, warmup_epochs=0.1)
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    assert cvjobs.train(images, tmp_path / "run", **options, epochs=2).up_to_date
    with pytest.raises(WrongUse, match=r"begun with .*warmup-epochs 0.1, not 0.2: choose another -o"):
        cvjobs.train(images, tmp_path / "run", **options, epochs=3, warmup_epochs=0.2)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sched": "cosine"}, "the rates of --sched cosine follow from the number of epochs"),
        ({"sched": "onecycle"}, "the rates of --sched onecycle follow"),
        ({"sched": "linear"}, "the rates of --sched linear follow"),
        ({"sched": "constant", "swa": 0.5}, "which epochs --swa averages follows"),
        ({"sched": "constant", "img_size": (16, SIDE)}, "the sizes of --img-size follow"),
    ],
)
def test_what_follows_from_the_number_of_epochs_is_said(
    images: Path, run: Path, settings: dict[str, Any], why: str
) -> None:
    recipe = recipe_recipe.named("quick", **{"epochs": 2, "img_size": (SIDE,), **settings})
    identity = {**record(run), **json.loads(json.dumps(vars(recipe)))}
    (run / "config.json").write_bytes(sealed.pack({"identity": identity, "command": "train"}, in_order=False))
    given = {**OPTIONS, **settings}
    given["img_size"] = ":".join(map(str, recipe.img_size))
    with pytest.raises(WrongUse) as refused:
        cvjobs.train(images, run, **given, epochs=3)
    assert f"{run} was begun with --epochs 2, and {why}" in str(refused.value)
    assert f"--weights {run} -o NEW" in str(refused.value)
    assert (run / "summary.json").exists()


def test_fewer_epochs_are_refused_in_a_sentence(images: Path, run: Path) -> None:
    with pytest.raises(WrongUse, match=r"has --epochs 2, which do not become fewer: give --epochs 2 to go"):
        cvjobs.train(images, run, **OPTIONS, epochs=1)


def test_nothing_else_may_differ(images: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"begun with epochs 2, not 3; lr 0.001, not 0.5: choose another -o"):
        cvjobs.train(images, run, **OPTIONS, epochs=3, lr=0.5)
    with pytest.raises(WrongUse, match=r"begun with other images or labels; epochs 2, not 3: .*--weights .*run -o NEW"):
        cvjobs.train(folder(tmp_path / "others", 8), run, **OPTIONS, epochs=3)


def test_a_run_that_patience_ended_is_longer_for_nothing(images: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "patience": 1, "lr": 1e-9, "warmup_epochs": 0.0}
    summary = cvjobs.train(images, tmp_path / "run", **options, epochs=4)
    assert summary.stopped_early
    with pytest.raises(WrongUse, match=r"ended after 2 epochs for --patience 1, and more --epochs change nothing"):
        cvjobs.train(images, tmp_path / "run", **options, epochs=6)


@pytest.mark.faults
def test_a_run_that_is_killed_in_what_was_added_goes_on(images: Path, run: Path, tmp_path: Path) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    words = [*CLI, "train", str(images), "-o", str(run), *options, "--epochs", "30"]
    for _ in range(3):
        before = set(os.listdir(run / "checkpoints"))
        with started(words, OMP_NUM_THREADS="1") as process:
            until(lambda: set(os.listdir(run / "checkpoints")) != before or process.poll() is not None)  # noqa: B023
            kill(process, signal.SIGKILL)
            with contextlib.suppress(OSError):
                process.wait()
    assert cvjobs.train(images, run, **OPTIONS, epochs=30).epochs == 30
    cvjobs.train(images, tmp_path / "whole", **OPTIONS, epochs=30)
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
