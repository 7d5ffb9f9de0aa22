"""Which images validate where the data do not say it: a share of each class; runs of before go by the old rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import here
from training import SIDE, folder

import cvjobs
from cvjobs.dataset import sealed
from cvjobs.sources.listing import list_source
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import artifacts, identity
from cvjobs.training.data import labels
from cvjobs.training.data.stratified import held_out
from cvjobs.training.plan import HISTORY

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 1, "img_size": str(SIDE), "batch_size": 16, "workers": 1,
}  # fmt: skip


def digests(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def files(root: Path, counts: dict[str, int]) -> Path:
    """Return a folder of class folders with files that nothing reads."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(b"never opened")
    return root


@pytest.mark.parametrize(
    ("share", "counts"),
    [
        (0.2, {1: 0, 2: 1, 3: 1, 5: 1, 7: 1, 8: 2, 10: 2, 12: 2, 13: 3, 1000: 200}),
        (0.5, {1: 0, 2: 1, 3: 2, 4: 2}),
        (0.9, {1: 0, 2: 1, 3: 2, 10: 9}),
        (0.001, {1: 0, 2: 1, 1000: 1, 2000: 2}),
    ],
)
def test_of_each_class_the_share_validates(share: float, counts: dict[int, int]) -> None:
    for size, expected in counts.items():
        names = [("many",)] * 37 + [("own",)] * size
        chosen = held_out(digests(len(names)), names, share)
        assert chosen[37:].sum() == expected


def test_the_smallest_digests_validate() -> None:
    places = np.array([9, 1, 5, 2, 8, 3], np.uint64)
    names = [("a",), ("a",), ("b",), ("b",), ("b",), ("a",)]
    assert held_out(places, names, 0.3).tolist() == [False, True, False, True, False, False]


def test_the_order_of_the_images_changes_nothing() -> None:
    random = np.random.default_rng(0)
    places, names = digests(500), [tuple(f"c{n}" for n in range(3) if random.random() < 0.4) for _ in range(500)]
    chosen, order = held_out(places, names, 0.2), random.permutation(500)
    assert np.array_equal(held_out(places[order], [names[at] for at in order], 0.2), chosen[order])


def test_one_image_more_moves_at_most_one_of_its_class() -> None:
    names, places = [(f"c{number % 3}",) for number in range(150)], digests(151)
    before, moved = held_out(places[:3], names[:3], 0.2), []
    for count in range(4, 151):
        now = held_out(places[:count], names[:count], 0.2)
        changed = np.flatnonzero(now[:-1] != before)
        assert len(changed) <= 1
        assert all(names[at] == names[count - 1] for at in changed.tolist())
        moved.append(len(changed))
        before = now
    assert 0.1 < np.mean(moved) < 0.5  # 2 x 0.2 x 0.8 on average


def test_many_images_more_move_few_and_all_one_way() -> None:
    for seed in range(20):
        places = digests(1100, seed)
        before, now = held_out(places[:1000], [("a",)] * 1000, 0.2), held_out(places, [("a",)] * 1100, 0.2)[:1000]
        moved = np.flatnonzero(before != now)
        assert len(moved) <= 16  # four deviations of 4
        assert len(set(now[moved].tolist())) <= 1


def test_of_several_classes_the_rarest_counts() -> None:
    names = [("often",)] * 40 + [("often", "rare")] * 5 + [("once", "often"), ("once more",), (), ()]
    chosen = held_out(digests(49), names, 0.2)
    assert chosen[40:45].sum() == 1  # of `rare`
    assert chosen[[*range(40), 45]].sum() == 8  # `once` is in one image alone, which counts for `often`
    assert not chosen[46]
    assert chosen[47:].sum() == 1


def test_nothing_is_there() -> None:
    assert held_out(digests(0), [], 0.2).tolist() == []


# The first rule's choice among these, as the version of before made it.
FIRST = ["cat/0.png", "cat/5.png", "dog/6.png", "dog/0.png", "dog/1.png"]


def test_a_record_of_before_splits_as_ever(tmp_path: Path) -> None:
    listing = list_source(str(files(tmp_path / "data", {"cat": 8, "dog": 8})))
    by = identity.rules_of({"rules": {"listing": 2, "labels": 2, "team": 2, "pictures": 2}})
    assert by.record == {"listing": 2, "labels": 2, "team": 2, "pictures": 2}
    found = labels.label(listing, 0.25, by.labels, by.splits)
    assert found.splits["val"].rows["path"].to_pylist() == FIRST
    by = identity.rules_of({})
    found = labels.label(listing, 0.25, by.labels, by.splits)
    assert labels.counts(found.splits["val"].labels, 2).tolist() == [2, 2]
    assert identity.rules_of({"rules": by.record}) == by


def test_images_without_a_class_or_of_test_do_not_count(tmp_path: Path) -> None:
    files(tmp_path, {"all": 30})
    cells = [f"all/{number}.png,{'ab'[number % 2]},{'test' if number < 10 else ''}" for number in range(20)]
    cells += [f"all/{number}.png,," for number in range(20, 30)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *cells]))
    found = labels.label(list_source(str(tmp_path / "list.csv")), 0.2)
    assert {name: labels.counts(own.labels, 2).tolist() for name, own in found.splits.items()} == {
        "train": [4, 4],
        "val": [1, 1],
        "test": [5, 5],
    }
    assert found.unlabelled == 10


@pytest.mark.slow
def test_a_run_of_before_goes_on_with_its_split_and_check_shows_that_of_a_new_one(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 10)
    cvjobs.train(data, tmp_path / "new", **OPTIONS)
    record = sealed.unpack((tmp_path / "new" / identity.CONFIG).read_bytes()) or {}
    assert record["identity"]["rules"]["splits"] == 3
    looked = here("check", data, "-o", tmp_path / "look")
    shown = json.loads((tmp_path / "look" / "check.json").read_text())
    assert looked.code == 0, looked
    assert shown["images"] == {"train": 24, "val": 6}
    assert [own["images"]["val"] for own in shown["classes"]] == [2, 2, 2]
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert {name: summary["images"][name] for name in ("train", "val")} == shown["images"]

    # What the version of before leaves of a run that is killed at once, with the images that it chose.
    old = labels.label(list_source(str(data), links=True), 0.2, splits=1)
    assert len(old.splits["val"]) != 6
    del record["identity"]["rules"]["splits"]
    record["identity"]["data"] = old.identity
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / identity.CONFIG).write_text(json.dumps(record))
    summary = cvjobs.train(data, tmp_path / "old", **OPTIONS)
    assert summary.images["val"] == len(old.splits["val"])
    assert "splits" not in identity.earlier(LocalStore(str(tmp_path / "old")))["rules"]
    again = cvjobs.train(data, tmp_path / "old", **OPTIONS)
    assert again.images == summary.images
    assert artifacts.rows(LocalStore(str(tmp_path / "old")), HISTORY).num_rows == 1
