"""Trainings on whole pictures, and those that were begun with the squares in the middle, which go on with these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training import CLASSES, SIDE

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import sealed
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import artifacts, identity
from cvjobs.training.data import labels
from cvjobs.training.plan import HISTORY

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 2, "img_size": str(SIDE), "batch_size": 16, "scale": "0.5:1",
    "ratio": "0.75:1.33", "aa": "trivialaugment", "workers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide and high pictures, each with one channel that is brighter."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(20):
            size = (20, 12) if number % 2 else (12, 20)
            picture = random.integers(0, 120, (*size, 3))
            picture[..., 2 - label] += random.integers(10, 80)
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{number:03}.png")
    return root


def begun_before(run: Path, images: Path) -> None:
    """Make the folder of a run what a version without whole pictures leaves when it is killed at once."""
    cvjobs.train(images, run.parent / "like", **OPTIONS)
    record = sealed.unpack((run.parent / "like" / identity.CONFIG).read_bytes()) or {}
    del record["identity"]["cache_side"]
    for rule in ("pictures", "splits"):
        del record["identity"]["rules"][rule]
    record["identity"]["data"] = labels.label(list_source(str(images), links=True), 0.2, splits=1).identity
    run.mkdir()
    (run / identity.CONFIG).write_text(json.dumps(record))


def test_a_run_that_was_begun_before_goes_on_with_squares_and_the_numbers_of_then(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    begun_before(run, images)
    with pytest.raises(
        WrongUse, match="was begun with the squares in the middle of images, which have no --cache-side"
    ):
        cvjobs.train(images, run, **OPTIONS, cache_side=20)
    cvjobs.train(images, run, **OPTIONS, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/pixels.bin"))
    history = artifacts.rows(LocalStore(str(run)), HISTORY)
    # What the version of before made of these images.
    assert history["train_loss"].to_pylist() == pytest.approx([1.0461346626, 0.8339733505], rel=1e-3)
    assert "pictures" not in identity.earlier(LocalStore(str(run)))["rules"]


def test_a_run_keeps_whole_pictures_of_the_side_that_was_asked_for(tmp_path: Path, images: Path) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    cvjobs.train(images, run, **OPTIONS, cache=cache)
    chunks = list(cache.glob("*/pixels.bin"))
    assert [chunk.stat().st_size for chunk in chunks] == [3 * 12 * 20 * 48], "as they are, for none is enlarged"
    record = identity.earlier(LocalStore(str(run)))
    assert (record["cache_side"], record["rules"]["pictures"]) == (12, 2)
    summary = cvjobs.train(images, run, **OPTIONS, cache=cache)
    assert summary.epochs == 2
    with pytest.raises(WrongUse, match="was begun with cache-side 12, not 10: choose another -o"):
        cvjobs.train(images, run, **OPTIONS, cache=cache, cache_side=10)
    cvjobs.train(images, tmp_path / "smaller", **OPTIONS, cache=tmp_path / "other", cache_side=10)
    (smaller,) = (tmp_path / "other").glob("*/pixels.bin")
    assert smaller.stat().st_size == 3 * 10 * 17 * 48
    report = cvjobs.verify(str(run))
    assert not report.problems
