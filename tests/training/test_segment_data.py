"""Images with masks to train on: which mask is whose, what is left out and why, and what is one sentence."""

from __future__ import annotations

from pathlib import Path

import masked
import numpy as np
import pytest
from PIL import Image

from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.void import USUAL, Void
from cvjobs.sources.listing import list_source
from cvjobs.training.data import mask_labels
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.data.mask_labels import MaskTruth

UNSAID = Void(value=USUAL, chosen=False)


def read(root: Path, void: Void = UNSAID, **options: object) -> LabelledImages:
    """Read a folder as `cvjobs train` does."""
    return mask_labels.masked(list_source(str(root)), 0.2, void=void, **options)  # type: ignore[arg-type]


def test_masks_beside_images_have_their_splits_and_classes(tmp_path: Path) -> None:
    found = read(masked.folder(tmp_path))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 8, "val": 4}
    assert found.classes == ("class 0", "class 1", "class 2")
    assert found.splits["train"].labels.tolist() == [[1, 1, 1]] * 8
    assert isinstance(found.truth, MaskTruth)
    assert found.truth.classes("train/images/0.png")[0].tolist() == [-1] * masked.SIZE[1]


def test_splits_may_be_below_the_folders(tmp_path: Path) -> None:
    given = masked.folder(tmp_path / "given")
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for split in ("train", "val"):
            (given / split / kind).rename(tmp_path / "data" / kind / split)
    found = read(tmp_path / "data")
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 8, "val": 4}


def test_a_list_near_the_masks_names_the_classes(tmp_path: Path) -> None:
    masked.folder(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\nred\ngreen\nblue\n")
    assert read(tmp_path).classes == ("ground", "red", "green", "blue")


def test_other_masks_are_other_data(tmp_path: Path) -> None:
    before = read(masked.folder(tmp_path)).identity
    mask = np.asarray(Image.open(tmp_path / "train/masks/0.png")).copy()
    mask[5] = 2
    Image.fromarray(mask).save(tmp_path / "train/masks/0.png")
    assert read(tmp_path).identity != before


def test_what_is_wrong_with_a_mask_is_a_row(tmp_path: Path) -> None:
    masked.folder(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\nred\ngreen\n")
    masks = tmp_path / "train" / "masks"
    (masks / "0.png").unlink()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(masks / "1.png")
    (masks / "2.png").write_bytes(b"no PNG")
    Image.fromarray(np.full(masked.SIZE, 7, np.uint8)).save(masks / "3.png")
    Image.fromarray(np.zeros((*masked.SIZE, 3), np.uint8)).save(masks / "4.png")
    found = read(tmp_path)
    rows = dict(
        zip(found.listing.failures["path"].to_pylist(), found.listing.failures["code"].to_pylist(), strict=True)
    )
    assert rows == {
        "train/images/0.png": "mask_missing",
        "train/images/1.png": "mask_size",
        "train/images/2.png": "mask_bad",
        "train/images/3.png": "mask_values",
        "train/images/4.png": "mask_bad",
    }
    said = found.listing.failures["detail"].to_pylist()
    assert "its mask has 6 x 5 pixels, and the image 64 x 48" in said
    assert "its mask has 7, and the classes are 0 to 2" in said
    assert len(found.splits["train"]) == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("masks", "has no masks to train on"),
        ("train", "has no images to train on"),
        ("white", "have no values but 0 and 255: give --void none if 255 is a class"),
        ("one", "has one class, class 0: training needs masks with at least two"),
    ],
)
def test_what_cannot_be_trained_on_is_a_sentence(tmp_path: Path, spoil: str, said: str) -> None:
    masked.folder(tmp_path)
    if spoil == "masks":
        for split in ("train", "val"):
            (tmp_path / split / "masks").rename(tmp_path / split / "other")
    elif spoil == "train":
        for file in (tmp_path / "train" / "masks").iterdir():
            file.unlink()
        Image.fromarray(np.zeros(masked.SIZE, np.uint8)).save(tmp_path / "train" / "masks" / "99.png")
    else:
        for file in tmp_path.rglob("masks/*.png"):
            mask = np.zeros(masked.SIZE, np.uint8)
            mask[3:9] = 255 if spoil == "white" else 0
            Image.fromarray(mask).save(file)
    with pytest.raises(WrongUse, match=said):
        read(tmp_path)


def test_masks_of_black_and_white_have_two_classes_where_all_counts(tmp_path: Path) -> None:
    masked.folder(tmp_path)
    for file in tmp_path.rglob("masks/*.png"):
        mask = np.zeros(masked.SIZE, np.uint8)
        mask[3:9] = 255
        Image.fromarray(mask).save(file)
    found = read(tmp_path, Void(value=None))
    assert found.classes == ("class 0", "class 1")
    assert isinstance(found.truth, MaskTruth)
    assert np.unique(found.truth.classes("val/images/0.png")).tolist() == [0, 1]
