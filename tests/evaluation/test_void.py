"""Masks as tools write them, and pixels that do not count: how many is said, and which is asked where it is unclear."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from commands import here, sentence
from PIL import Image
from predictions import output

import cvjobs
from cvjobs.common import rules
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation import pixels as evaluation_pixels
from cvjobs.evaluation.ground_truth import masks as ground_truth_masks
from cvjobs.evaluation.predictions import EvaluatedOutput, open_predictions
from cvjobs.evaluation.void import Void
from cvjobs.images.masks import png
from cvjobs.prediction.side_folder.naming import file_name

Pixels = npt.NDArray[Any]
CATEGORIES = [Category(0, "background"), Category(1, "person"), Category(2, "dog")]
HEIGHT, WIDTH = 20, 30


def ids(seed: int, values: list[int]) -> Pixels:
    """Class ids in blocks of five pixels, all of ``values`` among them."""
    chosen = np.random.default_rng(seed).permutation(np.resize(values, HEIGHT * WIDTH // 25))
    return np.kron(chosen.reshape(HEIGHT // 5, WIDTH // 5), np.ones((5, 5), int)).astype(np.uint8)


def made(folder: Path, maps: dict[str, Pixels], categories: list[Category] = CATEGORIES) -> Path:
    rows = [
        {"path": f"{name}.jpg", "width": WIDTH, "height": HEIGHT, "class_map": png.encode(pixels), "classes": []}
        for name, pixels in maps.items()
    ]
    return output(folder, "semantic", categories, rows)


def put(folder: Path, maps: dict[str, Pixels], save: Callable[[Pixels, Path], None] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, pixels in maps.items():
        (save or plain)(pixels, folder / f"{name}.png")
    return folder


def plain(pixels: Pixels, file: Path) -> None:
    Image.fromarray(pixels).save(file)


def paletted(pixels: Pixels, file: Path) -> None:
    image = Image.fromarray(pixels, "P")
    image.putpalette([7 * i % 256 for i in range(768)])
    image.save(file)


def of_bits(bits: int) -> Callable[[Pixels, Path], None]:
    return lambda pixels, file: Image.fromarray(pixels).save(file, bits=bits)


def deep(pixels: Pixels, file: Path) -> None:
    Image.fromarray(pixels.astype(np.uint16)).save(file)


BLACK_AND_WHITE = {"a": ids(1, [0, 255]), "b": ids(2, [0, 0, 255])}
NOTHING = {"a": np.zeros((HEIGHT, WIDTH), np.uint8), "b": np.zeros((HEIGHT, WIDTH), np.uint8)}
RIGHT = {name: (pixels // 255).astype(np.uint8) for name, pixels in BLACK_AND_WHITE.items()}


def test_whether_white_is_a_class_is_asked(tmp_path: Path) -> None:
    """A model that finds nothing had an mIoU of 1 against it."""
    given, truth = made(tmp_path / "given", NOTHING), put(tmp_path / "truth", BLACK_AND_WHITE)
    said = sentence(here("eval", given, truth), 2)
    assert said.endswith(
        f"The masks, such as {truth}/a.png, have no values but 0 and 255: give --void none if 255 is a class, "
        "or --void 255 if these pixels do not count."
    )
    assert not (given / "eval" / "eval.json").exists()
    blind = cvjobs.eval(str(given), str(truth), void="none")
    assert blind.metrics["mIoU"] < 0.4
    assert blind.about == "2 images, 2 with predictions, 0% of the pixels ignored"
    assert "255 is the class 1: the masks hold nothing else but 0" in blind.notes
    assert [(c["name"], c["IoU"]) for c in blind.classes][1] == ("person", 0.0)
    seeing = cvjobs.eval(str(made(tmp_path / "seeing", RIGHT)), str(truth), void="none")
    assert seeing.metrics["mIoU"] == 1.0


@pytest.mark.parametrize("answer", [{"void": "255"}, {"ignore": 255}])
def test_the_share_of_ignored_pixels_is_said(tmp_path: Path, answer: dict[str, Any]) -> None:
    given, truth = made(tmp_path / "given", NOTHING), put(tmp_path / "truth", BLACK_AND_WHITE)
    got = cvjobs.eval(str(given), str(truth), **answer)
    white = sum(int((pixels == 255).sum()) for pixels in BLACK_AND_WHITE.values())
    share = white / (2 * HEIGHT * WIDTH)
    assert got.metrics["mIoU"] == 1.0
    line = f"2 images, 2 with predictions, {share:.1%} of the pixels ignored (255)"
    assert line in str(got).splitlines()
    record = json.loads((given / "eval" / "eval.json").read_text())
    assert record["ignored"] == {"value": 255, "pixels": white, "share": pytest.approx(share)}
    assert line in (given / "eval" / "eval.html").read_text()


def test_masks_of_more_classes_ask_nothing(tmp_path: Path) -> None:
    maps = {"a": ids(1, [0, 1, 255]), "b": ids(2, [2, 255])}
    found = {name: np.where(pixels == 255, 0, pixels).astype(np.uint8) for name, pixels in maps.items()}
    got = cvjobs.eval(str(made(tmp_path / "given", found)), str(put(tmp_path / "truth", maps)))
    assert got.metrics["mIoU"] == 1.0
    assert ", 41.7% of the pixels ignored (255)" in got.about
    assert cvjobs.eval(str(tmp_path / "given"), str(tmp_path / "truth"), void="0").metrics["mIoU"] < 1


def test_a_void_of_one_other_class_is_asked(tmp_path: Path) -> None:
    given, truth = made(tmp_path / "given", NOTHING), put(tmp_path / "truth", {"a": ids(1, [7, 255])})
    with pytest.raises(WrongUse, match="have no values but 7 and 255"):
        cvjobs.eval(str(given), str(truth))


def test_a_class_with_the_number_of_the_void_is_asked(tmp_path: Path) -> None:
    many = [Category(at, f"c{at}") for at in range(300)]
    maps = {"a": ids(1, [0, 1, 2, 255])}
    given, truth = made(tmp_path / "given", maps, many), put(tmp_path / "truth", maps)
    with pytest.raises(WrongUse, match="255 in the masks is the class 'c255' or stands for pixels that do not count"):
        cvjobs.eval(str(given), str(truth))
    assert [c["name"] for c in cvjobs.eval(str(given), str(truth), void="none").classes] == ["c0", "c1", "c2", "c255"]
    assert len(cvjobs.eval(str(given), str(truth), void="255").classes) == 3


def test_predictions_of_before_are_evaluated_as_before(tmp_path: Path) -> None:
    given, truth = made(tmp_path / "given", NOTHING), put(tmp_path / "truth", BLACK_AND_WHITE)
    newest = open_predictions(str(given), {})
    assert isinstance(newest, EvaluatedOutput)
    assert newest.rules == newest.reader.snapshot.listing_rules == rules.LABELS
    before, unsaid = replace(newest, rules=rules.FIRST), Void(value=255, chosen=False)
    known = ground_truth_masks.read(truth, False, ())
    got = evaluation_pixels.evaluate(known, before, unsaid)
    assert evaluation_pixels.metrics(got)["mIoU"] == 1.0
    assert got.share["share"] > 0.4
    with pytest.raises(WrongUse, match="--void"):
        evaluation_pixels.evaluate(known, newest, unsaid)


@pytest.mark.parametrize("void", ["", "black", "-1", "65536", "2.5", "²", "1e2"])
def test_a_void_that_is_none_is_one_sentence(tmp_path: Path, void: str) -> None:
    with pytest.raises(WrongUse, match="is no value of a pixel: give none, or a number from 0 to 65,535"):
        cvjobs.eval(str(tmp_path), str(tmp_path), void=void)
    with pytest.raises(WrongUse, match="both say which pixels do not count"):
        cvjobs.eval(str(tmp_path), str(tmp_path), void=void, ignore=3)


@pytest.mark.parametrize(
    "save", [plain, paletted, deep, of_bits(2), of_bits(4)], ids=["8", "palette", "16", "2 bits", "4 bits"]
)
def test_masks_of_any_depth_hold_the_same_ids(tmp_path: Path, save: Callable[[Pixels, Path], None]) -> None:
    maps = {"a": ids(1, [0, 1, 2]), "b": ids(2, [1, 2])}
    truth = put(tmp_path / "truth", maps, save)
    for name, pixels in maps.items():
        assert np.array_equal(ground_truth_masks.load(truth / f"{name}.png"), pixels)
    assert cvjobs.eval(str(made(tmp_path / "given", maps)), str(truth)).metrics["mIoU"] == 1.0


def test_the_largest_of_four_bits_is_no_void(tmp_path: Path) -> None:
    """Its shade is 255, so its pixels did not count, without a word."""
    many = [Category(at, f"c{at}") for at in range(16)]
    maps = {"a": ids(1, [0, 7, 15])}
    got = cvjobs.eval(str(made(tmp_path / "given", maps, many)), str(put(tmp_path / "truth", maps, of_bits(4))))
    assert [c["name"] for c in got.classes] == ["c0", "c7", "c15"]
    assert got.about.endswith(", 0% of the pixels ignored (255)")


def test_one_bit_is_the_classes_0_and_1(tmp_path: Path) -> None:
    truth = put(tmp_path / "truth", RIGHT, lambda pixels, file: Image.fromarray(pixels.astype(bool)).save(file))
    assert cvjobs.eval(str(made(tmp_path / "given", RIGHT)), str(truth)).metrics["mIoU"] == 1.0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_class_ids(tmp_path: Path, mode: str) -> None:
    truth = put(tmp_path / "truth", RIGHT, lambda pixels, file: Image.fromarray(pixels * 100).convert(mode).save(file))
    with pytest.raises(WrongUse, match=f"a.png has colours .mode {mode}.: write a class id in each pixel"):
        cvjobs.eval(str(made(tmp_path / "given", RIGHT)), str(truth))


def test_white_of_sixteen_bits_is_one_sentence(tmp_path: Path) -> None:
    def save(pixels: Pixels, file: Path) -> None:
        Image.fromarray(pixels.astype(np.uint16) * 65535).save(file)

    with pytest.raises(WrongUse, match="has a class id without a name, or over 255: see --labels, --void"):
        cvjobs.eval(str(made(tmp_path / "given", RIGHT)), str(put(tmp_path / "truth", RIGHT, save)))


def test_masks_of_segment_are_a_truth(tmp_path: Path) -> None:
    """As `segment --masks-dir` names them: the whole name of the image and .png."""
    names = ["a.jpg", "a.png", "deep/.b.JPG", "c\\x5cd.webp", "%2e.tif"]
    rows = [
        {"path": name, "width": WIDTH, "height": HEIGHT, "class_map": png.encode(ids(at, [0, 1, 2])), "classes": []}
        for at, name in enumerate(names)
    ]
    given = output(tmp_path / "given", "semantic", CATEGORIES, rows)
    truth = tmp_path / "masks"
    for at, name in enumerate(names):
        file = truth / file_name(name, ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png.encode(ids(at, [0, 1, 2])))
    (truth / ".cvjobs-masks").mkdir()
    got = cvjobs.eval(str(given), str(truth))
    assert got.images == {"truth": 5, "evaluated": 5, "failed": 0, "missing": 0, "unknown": 0}
    assert got.metrics["mIoU"] == 1.0
