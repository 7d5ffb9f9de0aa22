"""The training images that a run's page shows: what augmentation and mixing made of them, and their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training import CLASSES, SIDE, plan

from cvjobs.training.report.samples import COUNT, TrainingSample, samples


def shown(place: Path, **settings: Any) -> list[TrainingSample]:
    found = samples(plan(place, "run", **{"hflip": 0.0, **settings}))
    assert all(sample.image.uri.startswith("data:image/jpeg;base64,") for sample in found)
    return found


def test_samples_are_images_of_the_train_split_with_their_class(tmp_path: Path) -> None:
    found = shown(tmp_path)
    assert len({sample.path for sample in found}) == COUNT
    for sample in found:
        number = int(Path(sample.path).stem)
        assert (sample.path, sample.shown) == (f"train60/{number}.png", CLASSES[number % len(CLASSES)])
        assert (sample.image.width, sample.image.height) == (SIDE, SIDE)


def test_mixed_samples_have_shares_of_two_classes(tmp_path: Path) -> None:
    names = [sample.shown for sample in shown(tmp_path, mixup=8.0)]
    pairs = [name.split(", ") for name in names if "," in name]
    assert len(pairs) > 4
    for pair in pairs:
        assert sum(float(part.split()[1]) for part in pair) == pytest.approx(1, abs=0.02)


def test_samples_of_several_labels_have_their_names(tmp_path: Path) -> None:
    assert {sample.shown for sample in shown(tmp_path, multilabel=True)} == set(CLASSES)


def test_there_may_be_fewer_images_than_the_page_has_room_for(tmp_path: Path) -> None:
    assert len(shown(tmp_path, images=4)) == 4
    assert shown(tmp_path, img_size=(8, 12))[0].image.width == 12, "the size of the last epoch"
