"""Which images with boxes or masks validate where the data do not say it; runs of before go by the old rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import block_pictures
import masked
import numpy as np
import pytest
from PIL import Image

import cvjobs
from cvjobs.dataset import sealed
from cvjobs.evaluation.void import USUAL, Void
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import identity
from cvjobs.training.data import box_labels, mask_labels
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.data.stratified import held_out, held_out_of_each

BEFORE = {"rules": {"listing": 2, "labels": 2, "team": 2, "pictures": 2, "splits": 2, "canvases": 2}}

# The choices of the version of before.
BOXES_BEFORE = ["train/train007.png", "train/train003.png", "train/train011.png"]
MASKS_BEFORE = ["images/6.png", "images/9.png", "images/10.png"]


def boxes(data: Path, splits: int) -> LabelledImages:
    return box_labels.label(str(data), list_source(str(data), links=True), 0.2, splits)


def masks(data: Path, splits: int) -> LabelledImages:
    void = Void(value=USUAL, chosen=False)
    return mask_labels.masked(list_source(str(data), links=True), 0.2, void=void, splits=splits)


def digests(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def test_a_class_that_counts_for_no_image_is_on_both_sides() -> None:
    names = [("a", "b"), ("a", "c"), ("b",), ("c",), ("a", "once")]
    places = np.array([9, 8, 1, 2, 3], np.uint64)
    assert held_out(places, names, 0.3).tolist() == [False, False, True, True, False]
    # One with `a` validates: not the only one of `once`; of the others that with the smaller digest, as the only one
    # of `c` to learn it may not go.
    assert held_out_of_each(places, names, 0.3).tolist() == [False, False, True, True, True]
    names[2:4] = [("b",), ("b", "c")]
    assert held_out_of_each(places, names, 0.3).sum() >= 2


def test_each_class_of_two_images_is_on_both_sides_where_that_can_be() -> None:
    for seed in range(40):
        random = np.random.default_rng(seed)
        common = random.random(6) ** 2
        names = [tuple(f"c{n}" for n in range(6) if random.random() < common[n]) for _ in range(25)]
        chosen = held_out_of_each(digests(25, seed), names, 0.2)
        for name in {name for own in names for name in own}:
            rows = [row for row, own in enumerate(names) if name in own]
            lacking = [side for side in (True, False) if not (chosen[rows] == side).any()]
            if len(rows) < 2 or not lacking:
                continue
            for row in rows:  # each of them is the only one of another class on its side
                others = [[at for at, own in enumerate(names) if other in own] for other in names[row]]
                assert any(len(own) > 1 and (chosen[own] != lacking[0]).sum() == 1 for own in others)
        if all(len(own) < 2 for own in names):
            assert np.array_equal(chosen, held_out(digests(25, seed), names, 0.2))


def test_the_order_of_the_images_changes_nothing() -> None:
    random = np.random.default_rng(0)
    places, names = digests(300), [tuple(f"c{n}" for n in range(9) if random.random() < n / 40) for _ in range(300)]
    chosen, order = held_out_of_each(places, names, 0.2), random.permutation(300)
    assert np.array_equal(held_out_of_each(places[order], [names[at] for at in order], 0.2), chosen[order])


def test_boxes_of_a_rare_class_validate_and_a_record_of_before_splits_as_ever(tmp_path: Path) -> None:
    data = block_pictures.coco(tmp_path / "data", {"train": 12})
    whole = json.loads((data / "train.json").read_text())
    whole["categories"].append({"id": 3, "name": "rare"})
    for image in (1, 2):  # beside what else is in them
        whole["annotations"].append(
            {"id": 90 + image, "image_id": image, "category_id": 3, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
        )
    (data / "train.json").write_text(json.dumps(whole))
    found = boxes(data, identity.TrainRules().splits)
    assert found.splits["train"].labels.sum(0).min() == 1
    assert found.splits["val"].labels.any(0).all()
    by = identity.rules_of(BEFORE)
    assert by.record == BEFORE["rules"]
    old = boxes(data, by.splits)
    assert old.splits["val"].rows["path"].to_pylist() == BOXES_BEFORE


def test_masks_of_a_rare_class_validate_and_a_record_of_before_splits_as_ever(tmp_path: Path) -> None:
    data = masked.folder(tmp_path, 12, 0) / "train"
    for number in (1, 2):
        file = data / "masks" / f"{number}.png"
        mask = np.asarray(Image.open(file)).copy()
        mask[40:, 50:] = 3
        Image.fromarray(mask).save(file)
    found = masks(data, identity.TrainRules().splits)
    assert {name: own.labels[:, 3].sum() for name, own in found.splits.items()} == {"train": 1, "val": 1}
    old = masks(data, identity.rules_of(BEFORE).splits)
    assert old.splits["val"].rows["path"].to_pylist() == MASKS_BEFORE


@pytest.mark.faults(minutes=2)
def test_runs_of_before_go_on_with_their_split(tmp_path: Path) -> None:
    for task, model, read in (
        ("detect", "ssdlite320_mobilenet_v3_large", boxes),
        ("segment", "torchvision/lraspp+shufflenet_v2_x0_5", masks),
    ):
        place = tmp_path / task
        data = block_pictures.coco(place / "data", {"train": 12}) if task == "detect" else masked.folder(
            place / "data", 12, 0
        )  # fmt: skip
        if task == "segment":
            data = data / "train"
        old = read(data, 2)
        options: dict[str, Any] = {"task": task, "model": model, "weights": "random", "img_size": "64",
                                   "batch_size": 4, "epochs": 1}  # fmt: skip
        new = cvjobs.train(data, place / "new", **options)
        assert new.images["val"] == len(read(data, 3).splits["val"])
        # What the version of before leaves of a run that is killed at once.
        record = sealed.unpack((place / "new" / identity.CONFIG).read_bytes()) or {}
        assert record["identity"]["rules"]["splits"] == 3
        record["identity"]["rules"]["splits"] = 2
        record["identity"]["data"] = old.identity
        (place / "old").mkdir()
        (place / "old" / identity.CONFIG).write_text(json.dumps(record))
        ended = cvjobs.train(data, place / "old", **options)
        assert ended.images["val"] == len(old.splits["val"])
        assert identity.earlier(LocalStore(str(place / "old")))["rules"]["splits"] == 2
        assert cvjobs.train(data, place / "old", **options).up_to_date
