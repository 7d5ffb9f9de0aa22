"""Trainings that begin before all images are decoded: what they train on, and what is said when all are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from training import SIDE, TIMED, copied, folder, loop, plan

import cvjobs
from cvjobs.common.errors import JobFailed, Stopped, TooManyFailed
from cvjobs.training.data import prepare
from cvjobs.training.loop.loop import State
from cvjobs.training.plan import ERRORS, HISTORY, LEAKS
from cvjobs.training.recipe import sampling
from cvjobs.training.recipe.recipe import named

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 2, "img_size": str(SIDE), "batch_size": 16, "scale": "0.5:1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chunks to train on, of which five images fail, one is there twice and one leaks; one of val fails."""
    root = tmp_path_factory.mktemp("images")
    folder(root / "train", 60)
    folder(root / "val", 6, seed=1)
    for number in (3, 17, 18, 19, 44):
        (root / "train" / "red" / f"{number:03}.png").write_bytes(b"no image")
    (root / "val" / "red" / "002.png").write_bytes(b"no image")
    shutil.copy(root / "train" / "blue" / "004.png", root / "train" / "green" / "004.png")
    shutil.copy(root / "train" / "blue" / "005.png", root / "val" / "blue" / "005.png")
    return root


def history(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / HISTORY).drop(columns=list(TIMED))


def test_a_training_that_begins_early_ends_as_one_that_waits(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    waits = cvjobs.train(images, tmp_path / "waits", **OPTIONS)
    said = capfd.readouterr().err
    assert "175 to train, 17 to val; 3 classes" in said
    assert "6 failed, 1 leaked into train, 1 twice in train with different labels" in said
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    early = cvjobs.train(images, tmp_path / "early", **OPTIONS)
    said = capfd.readouterr().err
    assert "180 to train, 18 to val; 3 classes" in said
    assert "of 198: what fails, leaks or is there twice is said when all are decoded" in said
    assert said.index("what fails") < said.index("6 failed, 1 leaked into train, 1 twice in train")
    assert history(tmp_path / "early").equals(history(tmp_path / "waits"))
    for name in (ERRORS, LEAKS):
        tables = [pd.read_parquet(tmp_path / run / name).sort_values("path") for run in ("early", "waits")]
        assert len(tables[0]) == {ERRORS: 6, LEAKS: 1}[name]
        assert tables[0].reset_index(drop=True).equals(tables[1].reset_index(drop=True))
    for summary in (early, waits):
        assert (summary.images, summary.failed, summary.leaks) == ({"train": 175, "val": 17}, 6, 1)
    pages = [(tmp_path / run / "report.html").read_text() for run in ("early", "waits")]
    assert all("green/004.png" in page for page in pages)


def test_where_too_many_fail_the_folder_is_free_for_corrected_data(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    with pytest.raises(TooManyFailed, match="failed"):
        cvjobs.train(images, tmp_path / "run", **OPTIONS, max_error_rate=0.02)
    assert cvjobs.train(images / "train", tmp_path / "run", **OPTIONS).failed == 5


def test_where_none_can_be_decoded_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    root = folder(tmp_path / "images" / "train", 3).parent
    folder(root / "val", 2, seed=1)
    for file in (root / "train").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(JobFailed, match="None of the 9 images to train with could be decoded"):
        cvjobs.train(root, tmp_path / "run", **OPTIONS, max_error_rate=1.0)


def test_an_epoch_takes_each_image_once_and_the_first_one_chunk_by_chunk() -> None:
    labels, recipe = np.zeros(64 * 20 + 5, np.int64), named("quick")
    first = sampling.order(labels, recipe, 3, 0, 64)
    assert sorted(first.tolist()) == list(range(len(labels)))
    chunks = sampling.chunk_order(len(labels), 64, 3).tolist()
    places = np.cumsum([0, *(np.count_nonzero(np.arange(len(labels)) // 64 == chunk) for chunk in chunks)])
    for start, end in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 21)):
        assert set((first[places[start] : places[end]] // 64).tolist()) == set(chunks[start:end])
    assert first[:64].tolist() != sorted(first[:64].tolist())
    assert not np.array_equal(first, sampling.order(labels, recipe, 4, 0, 64))
    later = sampling.order(labels, recipe, 3, 1, 64)
    assert sorted(later.tolist()) == sorted(first.tolist())
    assert len(set((later[: 8 * 64 - 59] // 64).tolist())) == 8


def test_a_training_on_whole_pictures_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", images=300, whole=True, scale=(0.5, 1.0), aa="trivialaugment", vflip=0.5)
    loop(made).run()
    stopped = copied(made, "stopped")

    def watch(state: State) -> bool:
        return state.done >= 8

    for _ in range(2):  # within both epochs
        with pytest.raises(Stopped):
            loop(stopped, watch).run()
    loop(stopped).run()
    assert history(Path(stopped.run)).equals(history(Path(made.run)))
