"""What a person sees of a training before its first step and while it goes on, and the check that asks for more."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from page_parser import harmless
from safetensors.torch import load_file
from training import CLASSES, SIDE, copied, folder, loop, plan, reconstructing

import cvjobs
from cvjobs.clusters.machine_hours import MachineHours
from cvjobs.common.errors import JobFailed, Stopped
from cvjobs.config.spending import Prices
from cvjobs.html import render
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.checks import overfit
from cvjobs.training.data import labels as data_labels
from cvjobs.training.data.class_statistics import OPEN, Survey, survey
from cvjobs.training.loop.loop import State
from cvjobs.training.plan import ERRORS, TrainPlan
from cvjobs.training.report import live
from cvjobs.training.report.training_page import BegunRun

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 2, "img_size": str(SIDE), "batch_size": 16,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seen(place: Path, plan: TrainPlan) -> Survey:
    """Return the survey of a plan, with a double, a leak and an image that failed."""
    labelled = data_labels.label(list_source(str(folder(place / "images", 3))), 0.4)
    found = survey(labelled, {"train": plan.train, "val": plan.val}, [], [])
    return replace(
        found,
        failed=1,
        leaks=[("val", "val/<i>.png", "train/0.png", "00")],
        doubles=[("train/1.png", "train/2.png", True)],
    )


def begun(place: Path, **settings: Any) -> BegunRun:
    """Return a run that is about to begin."""
    made = plan(place, "run", **settings)
    nothing = pd.DataFrame({name: pd.Series(dtype=str) for name in ("path", "split", "stage", "code", "detail")})
    nothing.to_parquet(Path(made.run) / ERRORS)
    labelled = data_labels.label(list_source(str(folder(place / "listed", 3))), 0.4)
    return BegunRun(
        store=LocalStore(made.run),
        labelled=labelled,
        plan=made,
        trainable=made.subject.trainable(),
        survey=seen(place, made),
        samples=(),
        machines=MachineHours(Prices(), lambda: 0.0),
    )


class TestSurvey:
    """What is counted."""

    def test_in_one_line(self, tmp_path: Path) -> None:
        assert str(seen(tmp_path, plan(tmp_path, "run"))) == (
            "60 to train, 31 to val; 3 classes, 20 training images each; "
            "1 failed, 1 leaked into train, 1 twice in train with different labels"
        )

    def test_classes_that_are_missing_and_the_imbalance(self, tmp_path: Path) -> None:
        found = seen(tmp_path, plan(tmp_path, "run"))
        found = replace(found, counts={"train": np.array([40, 0, 4]), "val": np.array([0, 3, 3])})
        assert (found.without("train"), found.without("val")) == (["green"], ["blue"])
        assert found.imbalance == 10
        assert [(row.name, row.counts, row.share) for row in found.rows] == [
            ("green", [0, 3], 0.0),
            ("red", [4, 3], 0.1),
            ("blue", [40, 0], 1.0),
        ]

    def test_of_several_labels_every_one_counts(self, tmp_path: Path) -> None:
        labels = np.array([[1, 1, 0], [1, 0, 0]], np.uint8)
        made = plan(tmp_path, "run", multilabel=True)
        found = seen(tmp_path, replace(made, train=replace(made.train, labels=labels)))
        assert found.counts["train"].tolist() == [2, 1, 0]

    def test_doubles_are_known_by_content_and_whether_their_labels_differ(self) -> None:
        found = data_labels.doubles("abcde", [b"1", b"2", b"1", None, b"1"], np.array([0, 0, 0, 1, 1]))
        assert found == [("c", "a", False), ("e", "a", True)]
        several = data_labels.doubles("ab", [b"1", b"1"], np.array([[1, 0], [1, 1]]))
        assert several == [("b", "a", True)]

    def test_of_many_classes_the_rarest_are_shown(self, tmp_path: Path) -> None:
        found = replace(
            seen(tmp_path, plan(tmp_path, "run")),
            classes=tuple(f"class {number}" for number in range(300)),
            counts={"train": np.arange(300), "val": np.zeros(300, np.int64)},
        )
        page = render.render("train-data.html", survey=found, open_classes=OPEN, named=3)
        for text in ("class 2<", "and 297 more", "176 more classes", "and 100 classes with more images", "299 times"):
            assert text in page
        assert "class 250" not in page


class TestPage:
    """The page of a run that goes on."""

    def test_it_is_there_before_the_first_step_and_follows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "EVERY", 0.0)
        run = begun(tmp_path, epochs=3)
        file = Path(run.store.place) / "report.html"
        written: list[str] = []

        def watch(state: State) -> bool:
            page.look(state)
            written.append(file.read_text())
            return False

        with live.Live(run) as page:
            first = file.read_text()
            assert len(page.begun.samples) == 16
            loop(run.plan, watch).run()
        for text in ("in its first epoch", "as augmentation makes them", "images left out", "Doubles"):
            assert text in first
        assert "Epoch by epoch" not in first
        assert "<i>.png" not in first
        assert 'http-equiv="refresh"' in first
        assert len(set(written)) >= 2
        assert "after 2 of 3 epochs" in written[-1] or "after 1 of 3 epochs" in written[-1]
        for content in (first, written[-1]):
            harmless(content)

    def test_an_end_before_its_time_is_its_last_word(self, tmp_path: Path) -> None:
        run = begun(tmp_path)
        with pytest.raises(JobFailed), live.Live(run):
            raise JobFailed("There is no room.")
        page = (Path(run.store.place) / "report.html").read_text()
        assert "There is no room." in page
        assert "failed</span>" in page
        assert "refresh" not in page

    def test_whatever_goes_wrong_costs_the_page_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = begun(tmp_path)
        (Path(run.store.place) / ERRORS).unlink()
        with live.Live(run) as page:
            page.look(State(epoch=9, epochs=9, done=1, total=1, loss=1.0, metric=None, rate=1.0))
        assert capsys.readouterr().err.count("this run has no report.html") == 1


def check(plan: TrainPlan, parts: int = 1) -> overfit.Learnt:
    """Check a plan, without stopping."""
    return overfit.check(plan, CPU, parts, lambda *_: False)


class TestByHeart:
    """The first batch."""

    @pytest.mark.parametrize(
        "settings", [{"mixup": 1.0, "erasing": 0.5, "smoothing": 0.1, "ema": 0.9}, {"multilabel": True}]
    )
    def test_what_can_be_learnt_is(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        found = check(plan(tmp_path, "run", **settings))
        assert found.images == 16
        assert found.steps < overfit.STEPS
        assert found.after < found.before / 2
        assert str(found).startswith(f"the first 16 images are learnt by heart in {found.steps} steps: loss ")

    def test_in_parts_as_training_computes_them(self, tmp_path: Path) -> None:
        assert check(plan(tmp_path, "run"), parts=3).images == 16

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_in_other_precisions(self, tmp_path: Path, precision: str) -> None:
        assert check(replace(plan(tmp_path, "run"), precision=precision)).images == 16

    def test_an_autoencoder(self, tmp_path: Path) -> None:
        made = reconstructing(plan(tmp_path, "run", denoise=0.1), dim=24)
        pixels = np.load(tmp_path / "train60" / "pixels.npy")
        pixels[:] = pixels[:, :1, :1]  # noise is not learnt by heart so soon
        np.save(tmp_path / "train60" / "pixels.npy", pixels)
        found = check(made)
        assert found.after < found.before / 2

    def test_labels_that_contradict_each_other_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(overfit, "STEPS", 40)
        made = plan(tmp_path, "run")
        pixels = np.load(tmp_path / "train60" / "pixels.npy")
        pixels[:] = pixels[0]
        np.save(tmp_path / "train60" / "pixels.npy", pixels)
        said = (
            r"^The first 16 images are not learnt by heart in 40 steps \(loss .*, \d+ of them right\): look at the "
            r"labels of train60/\d+.png and train60/\d+.png, which are the same picture, --lr 0.001, or leave out "
            r"--overfit-check to train anyway.$"
        )
        with pytest.raises(JobFailed, match=said):
            check(made)

    def test_a_rate_that_is_far_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(overfit, "STEPS", 12)
        with pytest.raises(JobFailed, match="labels that contradict each other, --lr 1e-07, --freeze-until, or"):
            check(plan(tmp_path, "run", lr=1e-7, freeze_until="head"))

    def test_it_can_be_stopped(self, tmp_path: Path) -> None:
        with pytest.raises(Stopped):
            overfit.check(plan(tmp_path, "run"), CPU, 1, lambda done, total, _: done == 2 and total == 200)

    def test_random_generators_are_left_as_they_were(self, tmp_path: Path) -> None:
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        check(plan(tmp_path, "run", aa="trivialaugment"))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # type: ignore[index]


def test_a_training_after_the_check_is_the_same(tmp_path: Path) -> None:
    plain = plan(tmp_path, "plain", aa="trivialaugment", mixup=0.2)
    loop(plain).run()
    checked = copied(plain, "checked")
    check(checked)
    loop(checked).run()
    columns = ["epoch", "lr", "train_loss", "val_loss", "metric"]
    histories = [pd.read_parquet(Path(one.run) / "history.parquet")[columns] for one in (plain, checked)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    tensors = [load_file(Path(one.run) / "model.safetensors") for one in (plain, checked)]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_the_command_ends_where_the_check_fails_and_trains_where_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = folder(tmp_path / "images", 12), tmp_path / "run"
    shutil.copy(images / "red" / "000.png", images / "red" / "again.png")
    with monkeypatch.context() as patch:
        patch.setattr(overfit, "STEPS", 2)
        with pytest.raises(JobFailed, match="leave out --overfit-check"):
            cvjobs.train(images, out, **OPTIONS, overfit_check=True)
    assert "not learnt by heart" in (out / "report.html").read_text()
    capsys.readouterr()
    summary = cvjobs.train(images, out, **OPTIONS, overfit_check=True)
    said = capsys.readouterr().err
    assert f"train: {summary.images['train']} to train, {summary.images['val']} to val; 3 classes," in said
    assert "train: the first 16 images are learnt by heart in" in said
    page = (out / "report.html").read_text()
    for text in ("The images", "Images of each class", "there already under another name", *CLASSES):
        assert text in page
    assert "refresh" not in page
    assert cvjobs.train(images, out, **OPTIONS).up_to_date, "the check is no part of the identity"
