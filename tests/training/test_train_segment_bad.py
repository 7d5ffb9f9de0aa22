"""Masks that make no sense, or are odd: a row, a count that is said, or one sentence before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import masked
import numpy as np
import pytest
from commands import here
from PIL import Image

from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.void import USUAL, Void
from cvjobs.sources.listing import list_source
from cvjobs.training.data import mask_labels, omissions
from cvjobs.training.data.labels import LabelledImages

NAMES = ("ground", "red", "green")
Change = Callable[[Path], Any]


def read(root: Path, names: tuple[str, ...] = (), version: int = 3) -> LabelledImages:
    void = Void(value=USUAL, chosen=False)
    return mask_labels.masked(list_source(str(root)), 0.3, void=void, names=names, splits=version)


def put(value: int, *places: str, kind: type = np.uint8, size: tuple[int, ...] = masked.SIZE) -> Change:
    """A change of masks to one value."""

    def change(root: Path) -> None:
        for place in places:
            for file in root.glob(place):
                Image.fromarray(np.full(size, value, kind)).save(file)

    return change


def palette(root: Path) -> None:
    image = Image.fromarray(np.full(masked.SIZE, 9, np.uint8))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    image.save(root / "train/masks/0.png")


def cut(root: Path) -> None:
    file = root / "train/masks/0.png"
    file.write_bytes(file.read_bytes()[:80])


def folders(*names: str) -> Change:
    def change(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name)

    return change


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda root: (root / "train/masks/0.png").unlink(), "mask_missing", "there is no mask of its name"),
        (put(0, "train/masks/0.png", size=(5, 6)), "mask_size", "its mask has 6 x 5 pixels, and the image 64 x 48"),
        (put(3, "train/masks/0.png"), "mask_values", "its mask has 3, and the classes are 0 to 2"),
        (put(1000, "train/masks/0.png", kind=np.uint16), "mask_values", "has 1000, and the classes are 0 to 2"),
        (palette, "mask_values", "its mask has 9, and the classes are 0 to 2"),
        (put(0, "train/masks/0.png", size=(*masked.SIZE, 3)), "mask_bad", "its mask has colours"),
        (cut, "mask_bad", "its mask is damaged"),
    ],
)
def test_a_mask_that_is_wrong_is_a_row(tmp_path: Path, change: Change, code: str, said: str) -> None:
    change(masked.folder(tmp_path / "data", 6, 3))
    found = read(tmp_path / "data", NAMES)
    (row,) = found.listing.failures.to_pylist()
    assert (row["path"], row["code"]) == ("train/images/0.png", code)
    assert said in row["detail"]
    assert {name: len(own) for name, own in found.splits.items()} == {"train": 5, "val": 3}


@pytest.mark.parametrize(
    ("change", "names", "counts"),
    [
        (lambda _: None, NAMES, {}),
        (lambda root: (root / "train/images/0.png").unlink(), NAMES, {"missing": 1}),
        (lambda _: None, (*NAMES, "nobody"), {"unused": 1}),
        (put(7, "train/masks/0.png"), (), {"unused": 4}),  # 3 to 6
        (put(255, "train/masks/0.png"), NAMES, {}),
    ],
)
def test_what_is_odd_is_counted(tmp_path: Path, change: Change, names: tuple[str, ...], counts: dict[str, int]) -> None:
    change(masked.folder(tmp_path / "data", 6, 3))
    found = read(tmp_path / "data", names)
    assert {kind: own["count"] for kind, own in found.beside.items()} == counts
    assert len(omissions.lines(found.beside)) == len(counts)
    assert not found.listing.failures.num_rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (folders("train/masks", "val/masks"), "has no masks to train on"),
        (folders("train/images", "val/images"), "has no masks to train on"),
        (folders("train"), "has no images to train on: give it a folder `train` beside val"),
        (lambda root: [file.write_bytes(b"x") for file in root.glob("*/masks/*")],
         "None of the 9 images of .* has a mask to train on: of .*png its mask is no PNG"),
        (put(255, "*/masks/*.png"), "has no classes: training needs masks with at least two"),
        (put(0, "*/masks/*.png"), "has one class, class 0: training needs masks with at least two"),
        (put(255, "train/masks/*.png"), "The masks of the split train of .* are all void"),
        (put(255, "val/masks/*.png"), "The masks of the split val of .* are all void"),
        (put(40_000, "train/masks/0.png", kind=np.uint16), "at most 32,767 classes can be learnt"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path: Path, change: Change, said: str) -> None:
    change(masked.folder(tmp_path / "data", 6, 3))
    with pytest.raises(WrongUse, match=said) as told:
        read(tmp_path / "data")
    assert told.value.exit_code == 2
    assert "\n" not in str(told.value)


def test_a_run_of_before_goes_on_with_what_is_refused_now(tmp_path: Path) -> None:
    data = masked.folder(tmp_path / "data", 6, 3)
    put(255, "val/masks/*.png")(data)
    assert len(read(data, version=2).splits["val"]) == 3
    shutil.rmtree(data / "train")
    put(1, "val/masks/*.png")(data)
    put(0, "val/masks/0.png")(data)
    assert sum(map(len, read(data, version=2).splits.values())) == 3


def test_the_command_ends_with_the_sentence(tmp_path: Path) -> None:
    data = masked.folder(tmp_path / "data", 6, 3)
    folders("train")(data)
    ended = here("train", data, "-o", tmp_path / "run", "--task", "segment", "--weights", "random")
    assert ended.code == 2
    assert "has no images to train on" in ended.err
    assert not (tmp_path / "run").exists()
