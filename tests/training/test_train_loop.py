"""The loop of training without its data: it learns, continues from any position, and refuses what it should."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from training import TIMED, copied, loop, plan

from cvjobs.common.errors import JobFailed, Stopped, WrongUse
from cvjobs.common.fingerprint import digest
from cvjobs.evaluation.metrics.ranking import mean_average_precision
from cvjobs.networks import registry
from cvjobs.training.loop import checkpoints as saved
from cvjobs.training.loop import folder_shelf, resumption
from cvjobs.training.loop import loop as looping
from cvjobs.training.loop.checkpoints import Checkpoints
from cvjobs.training.loop.loop import State
from cvjobs.training.loop.tasks.classify import scores
from cvjobs.training.plan import TrainPlan

pytestmark = pytest.mark.slow

MIXED: dict[str, Any] = {
    "mixup": 0.2,
    "erasing": 0.2,
    "scale": (0.5, 1.0),
    "accumulate": 2,
    "ema": 0.9,
    "opt": "adamw",
}


class Killed(Exception):
    """What ends a loop in a test as a kill would: nothing is saved on its way out."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def history(plan: TrainPlan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(plan.run) / "history.parquet").to_pylist()
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def tensors(plan: TrainPlan) -> dict[str, torch.Tensor]:
    return load_file(Path(plan.run) / "model.safetensors")


def assert_same(one: TrainPlan, other: TrainPlan) -> None:
    assert history(one) == history(other)
    assert all(torch.equal(tensor, tensors(other)[name]) for name, tensor in tensors(one).items())


def broken_off(plan: TrainPlan, step: int, *, kill: bool) -> None:
    """Train until so many looks at the loss."""
    looks = 0

    def watch(_: State) -> bool:
        nonlocal looks
        looks += 1
        if kill and looks > step:
            raise Killed
        return looks > step

    with pytest.raises(Killed if kill else Stopped):
        loop(plan, watch).run()


def test_it_learns_and_the_run_is_a_model(tmp_path: Path) -> None:
    plan_ = plan(tmp_path, "run", epochs=6)
    loop(plan_).run()
    rows = history(plan_)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert max(row["metric"] for row in rows) > 0.8
    model = registry.classifier(plan_.run)
    assert model.labels == plan_.classes
    network = model.load("cpu", "fp32")
    val = np.load(tmp_path / "val" / "pixels.npy")
    right = float((network(val).argmax(1) == plan_.val.labels).mean())
    assert right == pytest.approx(max(row["metric"] for row in rows))
    assert registry.embedder(plan_.run).load("cpu", "fp32")(val).shape == (31, 128)


@pytest.mark.parametrize("multilabel", [pytest.param(False, marks=pytest.mark.faults), True])
def test_it_continues_to_the_same_end_from_any_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multilabel: bool
) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    whole = plan(tmp_path, "whole", multilabel=multilabel, **MIXED)
    loop(whole).run()
    stopped = copied(whole, "stopped")
    for step in (0, 1, 0, 1):  # after 1, 3, 4 and 6 of the 8 steps, 4 of them an epoch
        broken_off(stopped, step, kill=False)
    loop(stopped).run()
    assert_same(whole, stopped)


def test_a_kill_costs_no_more_than_the_steps_since_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    monkeypatch.setattr(resumption, "EVERY", 0.0)
    monkeypatch.setattr(resumption, "SHARE", 1e9)
    whole = plan(tmp_path, "whole", **MIXED)
    loop(whole).run()
    killed = copied(whole, "killed")
    broken_off(killed, 3, kill=True)
    broken_off(killed, 2, kill=True)
    found = Checkpoints(killed.store()).newest(print)
    assert found is not None
    assert found.meta["done"] >= 3
    loop(killed).run()
    assert_same(whole, killed)


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_none_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan(tmp_path, "run", epochs=5)

    def cut_short(folder: Path, ignore_errors: bool = False) -> None:  # noqa: ARG001
        next(file for file in Path(folder).iterdir() if file.name != "meta.json").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", cut_short)
        with pytest.raises(Killed):
            loop(run).run()
    assert set(saved.examined(run.store()).values()) == {""}
    loop(run).run()
    assert not list((Path(run.run) / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize(
    "file",
    [
        "optimizer.pt",
        *(pytest.param(f, marks=pytest.mark.faults) for f in ("model.safetensors", "average.safetensors", "meta.json")),
    ],
)
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    whole = plan(tmp_path, "whole", ema=0.9)
    loop(whole).run()
    cut = copied(whole, "cut")
    broken_off(cut, 2, kill=False)
    broken_off(cut, 1, kill=False)
    names = sorted(Path(cut.run, "checkpoints").iterdir())
    assert len(names) == 2
    damaged = names[-1] / file
    damaged.write_bytes(damaged.read_bytes()[:-7])
    said: list[str] = []
    loop(cut, warn=said.append).run()
    assert len(said) == 1
    assert names[-1].name in said[0]
    assert_same(whole, cut)


def test_nothing_starts_over_where_no_checkpoint_is_whole(tmp_path: Path) -> None:
    begun = plan(tmp_path, "run")
    loop(begun).run()
    for meta in Path(begun.run, "checkpoints").glob("*/meta.json"):
        meta.write_text("{}")
    with pytest.raises(WrongUse, match="does not silently start over"):
        loop(begun)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("went-off"),)


def test_a_pickle_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = plan(tmp_path, "run")
    loop(begun).run()
    newest = max(Path(begun.run, "checkpoints").iterdir())
    torch.save({"state": _Bomb()}, newest / "optimizer.pt")
    meta = json.loads((newest / "meta.json").read_text())["meta"]
    meta["files"]["optimizer.pt"] = folder_shelf._sha256(newest / "optimizer.pt")  # an attacker's are right, too
    (newest / "meta.json").write_text(json.dumps({"meta": meta, "sha256": digest(meta)}))
    with pytest.raises(WrongUse, match="holds more than tensors"):
        loop(begun)
    assert not Path("went-off").exists()
    pickle.loads(pickle.dumps(_Bomb()))
    assert Path("went-off").exists()  # so it is one


def test_checkpoints_of_other_images_or_settings_are_refused(tmp_path: Path) -> None:
    begun = plan(tmp_path, "run")
    loop(begun).run()
    other = plan(tmp_path, "run", images=61)
    with pytest.raises(WrongUse, match="other images or settings"):
        loop(other)


def test_a_loss_that_is_no_number_ends_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="lower --lr"):
        loop(plan(tmp_path, "run", opt="sgd", lr=1e30, clip_grad=0.0, warmup_epochs=0.0)).run()


class TestHalf:
    """Training in float16, whose gradients are scaled."""

    def test_it_learns_and_continues_to_the_same_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(looping, "LOOK", 1)
        whole = replace(plan(tmp_path, "whole", epochs=3, **MIXED), precision="fp16")
        loop(whole).run()
        rows = history(whole)
        assert rows[-1]["train_loss"] < rows[0]["train_loss"]
        stopped = copied(whole, "stopped")
        broken_off(stopped, 2, kill=False)
        found = Checkpoints(stopped.store()).newest(print)
        assert found is not None
        assert (found.meta["scaler"]["scale"], found.meta["scaler"]["_growth_tracker"]) == (65536.0, 3)
        loop(stopped).run()
        assert_same(whole, stopped)

    def test_it_computes_in_float16_and_scores_alike(self, tmp_path: Path) -> None:
        full = plan(tmp_path, "full")
        half = replace(copied(full, "half"), precision="fp16")
        for one in (full, half):
            loop(one).run()
        (before, *_), (after, *_) = history(full), history(half)
        assert before["train_loss"] != after["train_loss"] == pytest.approx(before["train_loss"], rel=0.01)

    def test_a_step_whose_gradients_overflow_is_skipped(self, tmp_path: Path) -> None:
        half = replace(plan(tmp_path, "run", ema=0.9), precision="fp16")
        made = loop(half)
        made._learner.scaler.load_state_dict({**made._learner.scaler.state_dict(), "scale": 2.0**120})
        made.run()
        found = Checkpoints(half.store()).newest(print)
        assert found is not None
        assert found.meta["done"] == 8
        assert found.meta["scaler"]["scale"] == 2.0**112  # halved by each of the steps, none of which was made
        begun = half.subject.trainable().module.state_dict()
        assert all(torch.equal(found.model[name], tensor) for name, tensor in begun.items() if name.endswith("weight"))
        assert all(np.isfinite(row["train_loss"]) for row in history(half))


def test_frozen_layers_do_not_move_and_patience_ends_a_run(tmp_path: Path) -> None:
    frozen = plan(tmp_path, "run", freeze_until="head", epochs=9, patience=2, lr=0.0000001)
    loop(frozen).run()
    assert len(history(frozen)) < 9
    begun = frozen.subject.trainable().module.state_dict()
    assert all(
        torch.equal(tensor, begun[name]) for name, tensor in tensors(frozen).items() if not name.startswith("head.")
    )


def test_accumulated_parts_make_the_step_that_the_whole_batch_makes(tmp_path: Path) -> None:
    # Only the head learns, from features in evaluation mode: batch norms depend on who is in a part.
    given: dict[str, Any] = {"freeze_until": "head", "opt": "sgd", "hflip": 0.0}
    whole, parts = plan(tmp_path, "whole", **given), plan(tmp_path, "parts", accumulate=3, **given)
    loop(whole).run()
    loop(parts).run()
    for one, other in zip(history(whole), history(parts), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)


def test_a_last_step_of_one_image_is_left_out(tmp_path: Path) -> None:
    odd = plan(tmp_path, "run", images=33, batch=16)
    loop(odd).run()
    found = Checkpoints(odd.store()).newest(print)
    assert found is not None
    assert found.meta["done"] == 2 * 2


def test_mean_average_precision_by_hand() -> None:
    # Of the first class the hits are 1st and 3rd: (1/1 + 2/3) / 2; of the second both are first, in a tie of three.
    scores_ = np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5], [0.1, 0.1]])
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], np.uint8)
    assert mean_average_precision(scores_, labels) == pytest.approx(((1 + 2 / 3) / 2 + 2 / 3) / 2)


def test_top_1_and_the_loss_are_those_of_every_image_once() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
    found = scores(logits, np.array([0, 1, 1]), multilabel=False)
    assert found.metric == pytest.approx(2 / 3)
    expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(3))])
    assert found.loss == pytest.approx(expected)


def test_what_a_killed_writer_left_is_cleaned_and_two_checkpoints_are_kept(tmp_path: Path) -> None:
    begun = plan(tmp_path, "run", epochs=4)
    left = Path(begun.run, "checkpoints", ".tmp-dead")
    left.mkdir(parents=True)
    loop(begun).run()
    assert [path.name for path in sorted(Path(begun.run, "checkpoints").iterdir())] == ["0000000012", "0000000016"]


def test_a_validation_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", images=20, batch=20, epochs=1, lr=1e9, opt="sgd", clip_grad=0.0)
    with pytest.raises(JobFailed, match=r"^The validation loss is no number any more in epoch 1: lower --lr"):
        loop(made).run()
    assert not (tmp_path / "run/model.safetensors").exists()
