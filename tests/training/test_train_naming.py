"""What names classes and splits: cells of any kind, folders, links to folders; and runs begun by the first rules."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training import folder

from cvjobs.common import class_labels
from cvjobs.common.errors import WrongUse
from cvjobs.sources.listing import list_source
from cvjobs.training.data import labels
from cvjobs.training.data.labels import LabelledImages

NAN = float("nan")


def images(place: Path, *names: str) -> Path:
    """Return a folder with these files, which nothing reads."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"never opened")
    return place


def listed(place: Path, cells: pa.Array, column: str = "label", **others: list[Any]) -> Path:
    """Return a Parquet list of as many images as there are cells."""
    names = [f"{number}.png" for number in range(len(cells))]
    images(place, *names)
    pq.write_table(pa.table({"path": names, column: cells, **others}), place / "list.parquet")
    return place / "list.parquet"


def named(source: Path, share: float = 0.5, rules: int = 2, **options: Any) -> LabelledImages:
    return labels.label(list_source(str(source), links=True, rules=rules, **options), share, rules)


@pytest.mark.parametrize(
    ("cells", "classes", "unlabelled"),
    [
        (pa.array(["cat", "cat ", "\tdog", "dog"] * 5), ("cat", "dog"), 0),
        (pa.array(["café", unicodedata.normalize("NFD", "café"), "dog", "dog"] * 5), ("café", "dog"), 0),
        (pa.array([b"cat", b"dog"] * 9), ("cat", "dog"), 0),
        (pa.array(["cat", "dog", None, "", "  ", "NaN", "<NA>"] * 5), ("cat", "dog"), 25),
        (pa.array([1.0, 2.0, NAN, None] * 5), ("1", "2"), 10),
        (pa.array(["1.0", "2", "1", "007"] * 5), ("007", "1", "2"), 0),
        (pa.array([1.5, 2.0] * 9), ("1.5", "2"), 0),
        (pa.array([True, False] * 9), ("False", "True"), 0),
        (pa.array(["cat", "dog", None] * 5).dictionary_encode(), ("cat", "dog"), 5),
        (pa.array([b"cat", b"dog"] * 9).dictionary_encode(), ("cat", "dog"), 0),
        (pa.array(["cat", "dog"] * 9, pa.large_string()), ("cat", "dog"), 0),
        (pa.array([b"cat", b"dog"] * 9, pa.large_binary()), ("cat", "dog"), 0),
        (pa.array([["cat"], ["dog"], []] * 6), ("cat", "dog"), 6),
        (pa.array(["Cat", "cat", "cat", "hot_dog", "Hot Dog", "hot_dog"] * 3), ("cat", "hot_dog"), 0),
        (pa.array(["a", "A"] * 9), ("A", "a"), 0),
        (pa.array(["\ufeffcat", "cat\u200b", "dog"] * 6), ("cat", "dog"), 0),
    ],
)
def test_a_label_of_any_cell(tmp_path: Path, cells: pa.Array, classes: tuple[str, ...], unlabelled: int) -> None:
    found = named(listed(tmp_path, cells))
    assert found.classes == classes
    assert found.unlabelled == unlabelled
    assert sum(map(len, found.splits.values())) + found.unlabelled == len(cells)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(["cat|dog", " cat ", None, "dog|", "Dog"] * 4),
        pa.array([["cat", "dog"], ["cat", None], None, [], ["dog ", ""]] * 4),
        pa.array([[b"cat", b"dog"], [b"cat"], [], None, [b"dog"]] * 4, pa.large_list(pa.large_binary())),
    ],
)
def test_several_labels_of_any_cell(tmp_path: Path, cells: pa.Array) -> None:
    found = named(listed(tmp_path, cells, "labels", split=(["train"] * 10 + ["val"] * 10)))
    assert found.multilabel
    assert found.classes == ("cat", "dog")


def test_numbers_are_several_labels_too(tmp_path: Path) -> None:
    assert named(listed(tmp_path, pa.array([1, 2, None] * 6), "labels")).classes == ("1", "2")
    assert named(listed(tmp_path, pa.array([[1.0, 2.0], [2.0, NAN]] * 6), "labels")).classes == ("1", "2")


@pytest.mark.parametrize("cells", [pa.array([["cat", "dog"], ["cat"]] * 4), pa.array([{"name": "cat"}] * 4)])
def test_cells_that_hold_no_label_are_refused_in_a_sentence(tmp_path: Path, cells: pa.Array) -> None:
    with pytest.raises(WrongUse, match=r"has no label for 0.png: write one text, or name the column `labels`\.$"):
        named(listed(tmp_path, cells))


def test_a_class_whose_name_has_two_lines_is_refused_in_one(tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as refused:
        named(images(tmp_path, "A\nB/1.png", "A\nB/2.png"))
    assert "has one class, A\\x0aB: training needs" in str(refused.value)


def test_spellings_of_a_class_are_said(tmp_path: Path) -> None:
    found = named(
        images(tmp_path, *(f"{name}/{n}.png" for name in ("Cat", "cat", "dog ") for n in range(6 + len(name))))
    )
    assert found.classes == ("Cat", "dog")
    assert found.respelt == ("cat: Cat",)


def test_runs_that_were_begun_before_keep_their_labels(tmp_path: Path) -> None:
    cells = pa.array(["cat", "cat ", "Cat", unicodedata.normalize("NFD", "café"), "1.0", "nan"] * 4)
    source = listed(tmp_path, cells)
    before = named(source, rules=1)
    assert before.classes == tuple(sorted(set(cells.to_pylist())))
    assert before.unlabelled == 0
    assert before.identity != named(source).identity
    assert named(listed(tmp_path / "bytes", pa.array([b"cat", b"dog"] * 9)), rules=1).classes == ("b'cat'", "b'dog'")


class TestSplits:
    """Folders that may be splits."""

    def test_splits_beside_classes_are_a_question(self, tmp_path: Path) -> None:
        source = images(
            tmp_path, *(f"{name}/{n}.png" for name in ("train/a", "train/b", "boat", "car") for n in range(9))
        )
        with pytest.raises(WrongUse, match="a split or a class, as it is beside `boat`, `car`: if a split, move"):
            named(source)
        before = named(source, rules=1)
        assert before.classes == ("a", "b")
        assert before.unlabelled == 18

    def test_where_all_are_splits_the_folders_below_are_classes(self, tmp_path: Path) -> None:
        names = ("Training/a", "Training/b", "valid/a", "TEST/b", "val ")
        found = named(images(tmp_path, *(f"{name}/{n}.png" for name in names for n in range(2))))
        assert found.classes == ("a", "b")
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 4, "val": 2, "test": 2}
        assert found.unlabelled == 2

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        names = ("train", "boat", "test")
        found = named(images(tmp_path, *(f"{name}/{n}.png" for name in names for n in range(9))))
        assert found.classes == ("boat", "test", "train")

    def test_splits_without_classes_are_refused(self, tmp_path: Path) -> None:
        source = images(tmp_path, *(f"{name}/{n}.png" for name in ("train", "val") for n in range(9)))
        with pytest.raises(WrongUse, match="has the splits `train`, `val` without folders in `train`: give each class"):
            named(source)
        assert named(source, rules=1).classes == ("train", "val")


class TestLinks:
    """Folders of classes that are links."""

    def test_they_are_followed(self, tmp_path: Path) -> None:
        folder(tmp_path / "all", 9)
        (tmp_path / "all/red").rename(tmp_path / "red")
        (tmp_path / "all/red").symlink_to("../red")
        found = named(tmp_path / "all")
        assert found.classes == ("blue", "green", "red")
        assert found.listing.followed == ("red",)
        assert named(tmp_path / "all", rules=1).classes == ("blue", "green")
        assert named(tmp_path / "all" / "**").classes == ("blue", "green", "red")

    def test_splits_that_are_links_are_followed(self, tmp_path: Path) -> None:
        folder(tmp_path / "images", 4)
        (tmp_path / "all").mkdir()
        for name in ("train", "val"):
            (tmp_path / "all" / name).symlink_to(tmp_path / "images")
        found = named(tmp_path / "all")
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 12, "val": 12}

    def test_loops_and_links_to_nowhere_are_errors(self, tmp_path: Path) -> None:
        source = images(tmp_path / "all", *(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(9)))
        (source / "cat/all").symlink_to(source)
        (source / "cat/self").symlink_to(".")
        (source / "cow").symlink_to("gone")
        os.mkdir(tmp_path / "out")
        (tmp_path / "out/back").symlink_to(tmp_path / "out")
        (source / "dog/out").symlink_to(tmp_path / "out")
        found = named(source)
        failures = {row["path"]: row["code"] for row in found.listing.failures.to_pylist()}
        expected = {"cat/all": "refused", "cat/self": "refused", "dog/out/back": "refused", "cow": "list_vanished"}
        assert failures == expected
        assert found.listing.images.num_rows == 18

    def test_links_that_lead_outside_are_refused_where_that_was_asked_for(self, tmp_path: Path) -> None:
        source = images(tmp_path / "all", *(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(9)))
        images(tmp_path / "cow", "1.png")
        (source / "cow").symlink_to(tmp_path / "cow")
        (source / "kitten").symlink_to("cat")
        found = named(source, confine=True)
        assert found.classes == ("cat", "dog", "kitten")
        assert found.listing.failures["path"].to_pylist() == ["cow"]


def test_labels_of_single_cells() -> None:
    cells = [1, 1.0, "1", " 1.0 ", b"1", [1], ("1.0",), True, 1.25, "01", "-0.0", -0.0, 2**70, 1e22, float("inf"), "|"]
    said = ["1", "1", "1", "1", "1", "1", "1", "True", "1.25", "01", "0", "0", str(2**70), str(10**22), "inf", "|"]
    assert [class_labels.label(cell) for cell in cells] == said
    assert class_labels.label("9" * 5000 + ".0") == "9" * 5000
    assert class_labels.label(b"caf\xe9") == "caf\\xe9"
    for cell in ([1, 2], {"a": 1}, {"a", "b"}):
        with pytest.raises(TypeError):
            class_labels.label(cell)
