"""What each data type's limit does: numbers on both sides of it are right, or refused by a sentence.

``pytest -s tests/test_number_limits.py`` prints the tables.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import here
from numpy.typing import NDArray
from PIL import Image
from predictions import detection, output
from torch import Tensor, nn

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import CvjobsError, WrongUse
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.html import overlays, palette
from cvjobs.images.masks import png, rle
from cvjobs.images.picture import Picture
from cvjobs.images.transform import Transform
from cvjobs.networks import weights
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.prediction.side_folder.mask_files import DEEPEST, instance_map
from cvjobs.prediction.tasks.class_map_step import ClassMaps
from cvjobs.prediction.tasks.classify import ClassifyStep
from cvjobs.sources.rows import IMAGES, Listing
from cvjobs.training.data import labels

COUNTS = (255, 256, 257, 65535, 65536, 65537)
NUMBERS = (2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)
RIGHT, REFUSED = "right", "refused: "
SIDE = 8


class Striped(nn.Module):
    """Logits (B, classes, 8, 8) that are highest for 0, the middle one, the last but one and the last, in stripes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_parameter("one", nn.Parameter(torch.ones(1)))

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.full((len(images), self.classes, SIDE, SIDE), -1.0)
        logits[:, list(stripes(self.classes))] = 0  # so that the others can win nowhere
        for at, one in enumerate(stripes(self.classes)):
            logits[:, one, :, 2 * at : 2 * at + 2] = 1
        return logits


def stripes(classes: int) -> tuple[int, ...]:
    return 0, classes // 2, classes - 2, classes - 1


def segmenter(classes: int) -> Segmenter:
    return Segmenter(
        name="toy",
        weights=weights.RANDOM,
        transform=Transform(fit="native"),
        categories=[Category(at, f"c{at}") for at in range(classes)],
        module=Striped(classes),
    )


def said(number: Callable[[], str]) -> str:
    """What comes of a case: ``right`` or what is wrong, or the sentence by which it is refused."""
    try:
        return number()
    except CvjobsError as error:
        return REFUSED + str(error)


def shown(title: str, rows: list[tuple[str, int, str]]) -> None:
    print(f"\n{title}")
    for what, number, outcome in rows:
        print(f"{what:32} {number:>32,}  {outcome[:110]}")


def segmented(classes: int) -> tuple[bytes, list[dict[str, Any]]]:
    """The class map of one image of 8 x 8 pixels, and its areas."""
    model = segmenter(classes)
    step = ClassMaps(model.load("cpu", "fp32"), model.categories)
    found = step([Picture(np.zeros((SIDE, SIDE, 3), np.uint8), SIDE, SIDE)])
    assert not found.failures, found.failures
    return found.arrays[0][0].as_py(), found.arrays[1][0].as_py()


def expected(classes: int) -> NDArray[np.int64]:
    return np.repeat(np.array(stripes(classes)), 2)[None].repeat(SIDE, 0)


@pytest.mark.parametrize("counts", [COUNTS[:3], pytest.param(COUNTS[3:], marks=pytest.mark.faults(minutes=3))])
def test_classes_of_class_maps(tmp_path: Path, counts: tuple[int, ...]) -> None:

    def right(classes: int) -> str:
        content, areas = segmented(classes)
        truth = expected(classes)
        assert np.array_equal(png.decode(content), truth)
        assert {area["label"]: area["pixels"] for area in areas} == {f"c{at}": 16 for at in stripes(classes)}
        folder = tmp_path / str(classes)
        (folder / "masks").mkdir(parents=True)
        (folder / "masks/a.png").write_bytes(content)
        row = {"path": "a.jpg", "width": SIDE, "height": SIDE, "class_map": content, "classes": areas}
        given = output(folder / "maps", "semantic", segmenter(classes).categories, [row])
        found = cvjobs.eval(str(given), str(folder / "masks"), void="none", out=str(folder / "eval"))
        assert found.metrics["mIoU"] == 1.0
        assert [c["id"] for c in found.classes] == list(stripes(classes))
        drawn = overlays.colour_map(content, range(classes), (SIDE, SIDE))
        assert drawn.mask == overlays.coloured(truth, range(classes), (SIDE, SIDE)).mask
        assert here("export", given, "--format", "jsonl", "-o", folder / "out.jsonl").code == 0
        assert json.loads((folder / "out.jsonl").read_text())["classes"][-1]["category_id"] in stripes(classes)
        return RIGHT

    rows = [("segment, masks, eval, page", classes, said(partial(right, classes))) for classes in counts]
    shown("Classes of class maps", rows)
    for _, classes, outcome in rows:
        most = classes <= 65536
        assert outcome.startswith(RIGHT if most else REFUSED + "toy has 65,537 classes with the background")


@pytest.mark.slow
def test_classes_that_are_painted(tmp_path: Path) -> None:
    """COCO's annotations as class maps: 65,535 stands for what does not count."""
    content, _ = segmented(257)
    row = {"path": "a.jpg", "width": SIDE, "height": SIDE, "class_map": content, "classes": []}
    given = output(tmp_path / "maps", "semantic", segmenter(257).categories, [row])

    def right(classes: int) -> str:
        square = {"id": 1, "image_id": 1, "category_id": classes, "segmentation": [[0, 0, 8, 0, 8, 8, 0, 8]]}
        truth = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": SIDE, "height": SIDE}],
            "categories": [{"id": at, "name": f"c{at}"} for at in range(1, classes + 1)],
            "annotations": [{**square, "bbox": [0, 0, 8, 8]}],
        }
        (tmp_path / "t.json").write_text(json.dumps(truth))
        found = cvjobs.eval(str(given), str(tmp_path / "t.json"))
        assert {c["name"]: c["pixels"] for c in found.classes}[f"c{classes}"] == SIDE * SIDE
        return RIGHT

    rows = [("painted categories", classes, said(partial(right, classes))) for classes in (257, 65534, 65535)]
    shown("Classes that are painted", rows)
    assert [outcome for _, _, outcome in rows[:-1]] == [RIGHT] * 2
    assert rows[-1][2].startswith(REFUSED + "The truth has 65,535 classes, and class maps have at most 65,534")


class Known:
    """A classifier that is sure of the last class."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def batch(self, count: int) -> NDArray[np.uint8]:
        return np.zeros((count, 1, 1, 3), np.uint8)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = np.zeros((len(pixels), self.classes), np.float32)
        logits[:, -1], logits[:, -2] = 9, 8
        return logits


def listed(count: int, column: pa.Array, name: str) -> Listing:
    ids = np.random.default_rng(0).bytes(16 * count)
    columns = [
        pa.array([f"{at}.jpg" for at in range(count)]),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(ids)]),
        pa.array(np.ones(count, np.int64)),
        pa.array(np.ones(count, np.int64)).view(IMAGES.field("modified").type),
        pa.array(np.ones(count, np.uint64)),
    ]
    images = pa.table(columns, schema=IMAGES).append_column(name, column)
    empty = pa.schema([]).empty_table()
    return Listing(
        source="l.csv", root="", images=images, failures=empty, skipped={}, unreadable=(), started_ns=0, base=""
    )


@pytest.mark.faults(minutes=3)
def test_classes_of_labels(tmp_path: Path) -> None:
    rows: list[tuple[str, int, str]] = []
    for classes in (255, 256, 257, 65535, 65537):
        names = [f"c{at}" for at in range(classes)]
        found = ClassifyStep(Known(classes), names, 2, several=False)(np.zeros((3, 1, 1, 3), np.uint8))
        assert found.arrays[0].to_pylist() == [names[-1]] * 3
        top = [guess["label"] for guess in found.arrays[2][0].as_py()]
        assert top == [names[-1], names[-2]]
        row = {"path": "a.jpg", "width": 8, "height": 8, "label": names[-1], "score": 0.5, "top": []}
        row["top"] = [{"label": names[-1], "score": 0.5}]
        given = output(tmp_path / f"{classes}", "classify", [Category(at, n) for at, n in enumerate(names)], [row])
        (tmp_path / "t.csv").write_text(f"path,label\na.jpg,{names[-1]}\n")
        assert cvjobs.eval(str(given), str(tmp_path / "t.csv")).metrics["top-1"] == 1.0
        read = labels.label(listed(2 * classes, pa.array(names * 2), "label"), 0.5)
        assert len(read.classes) == classes
        for split in read.splits.values():
            told = [int(path.removesuffix(".jpg")) % classes for path in split.rows["path"].to_pylist()]
            assert [read.classes[at] for at in split.labels.tolist()] == [names[at] for at in told]
        rows.append(("classify, eval, labels to train", classes, RIGHT))
    shown("Classes of labels", rows)


@pytest.mark.faults(minutes=3)
def test_objects_of_instance_maps() -> None:
    """A pixel an object, from 1; what 16 bits cannot number is left out, the last and so the worst."""
    rows = []
    height, width = 256, 257
    one = np.ones((1, 1), np.uint8)
    texts = [rle.encode(one, (at % height, at // height), (height, width)) for at in range(COUNTS[-1])]
    for count in (255, 256, 257, COUNTS[-1]):
        found = instance_map(texts[:count], height, width)
        flat = found.T.ravel()[:count]
        assert np.array_equal(flat[:DEEPEST], np.arange(1, count + 1)[:DEEPEST])
        assert not flat[DEEPEST:].any()
        assert found.dtype == (np.uint8 if count < 256 else np.uint16)
        rows.append(("objects of an instance map", count, RIGHT if count <= DEEPEST else "the best 65,535"))
    shown("Objects", rows)


SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 20}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "segmentation": SQUARE}
    ],
}
# Where a number stands in the truth, and up to which it is right; from there on it is refused.
TRUTHS: dict[str, tuple[tuple[tuple[Any, ...], ...], int]] = {
    "image id": ((("images", 0, "id"), ("annotations", 0, "image_id")), 2**64),
    "annotation id": ((("annotations", 0, "id"),), 10**40),
    "category id": ((("categories", 0, "id"), ("annotations", 0, "category_id")), 2**62),
    "image width": ((("images", 0, "width"),), 2**62),
    "image height": ((("images", 0, "height"),), 2**62),
    "box x": ((("annotations", 0, "bbox", 0),), 0),
    "box width": ((("annotations", 0, "bbox", 2),), 0),
    "area": ((("annotations", 0, "area"),), 2**62),
    "polygon x": ((("annotations", 0, "segmentation", 0, 0),), 0),
    "run length": ((("annotations", 0, "segmentation"),), 0),
}
AS_COCO = 10**10  # the area from which on COCO's API counts no object


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Outputs of boxes, and of masks, that find one square."""
    one = detection(2, 2, 12, 12, 0.9)
    row = {"path": "a.jpg", "width": 20, "height": 20, "detections": [one]}
    output(tmp_path / "boxes", "detect", [Category(1, "cat")], [row])
    square = rle.encode(np.ones((10, 10), np.uint8), (2, 2), (20, 20))
    masked = {**row, "detections": [{**one, "rle": square}]}
    output(tmp_path / "masks", "instance", [Category(1, "cat")], [masked])
    return tmp_path


def ap(place: Path, truth: Path) -> Any:
    return cvjobs.eval(str(place), str(truth), out=str(truth.parent / "eval"))


@pytest.mark.slow
def test_numbers_of_a_coco_truth(found: Path) -> None:
    rows, wrong = [], []
    for what, (places, limit) in TRUTHS.items():
        for number in NUMBERS:
            truth = copy.deepcopy(COCO)
            for *way, key in places:
                inside: Any = truth
                for step in way:
                    inside = inside[step]
                inside[key] = {"size": [20, 20], "counts": [number, 5]} if what == "run length" else number
            (found / "t.json").write_text(json.dumps(truth))
            masked = "segmentation" in places[0]
            given = found / ("masks" if masked else "boxes")

            def right(given: Path = given, area: bool = what == "area", number: int = number) -> str:
                score = ap(given, found / "t.json").metrics["AP"]
                assert score == (-1 if area and number > AS_COCO else pytest.approx(1))
                return RIGHT

            outcome = said(right)
            rows.append((what, number, outcome))
            if outcome.startswith(RIGHT if number < limit else REFUSED) is False:
                wrong.append(rows[-1])
    shown("Numbers of COCO's JSON", rows)
    assert not wrong


def test_numbers_of_yolo_voc_and_masks(found: Path) -> None:
    rows, wrong = [], []

    def case(what: str, number: int, limit: int, right: Callable[[], str], words: str = "") -> None:
        outcome = said(right)
        rows.append((what, number, outcome))
        if not outcome.startswith(RIGHT if number < limit else REFUSED) or (number >= limit and words not in outcome):
            wrong.append(rows[-1])

    for folder in ("yolo", "voc"):
        (found / folder).mkdir()
    for number in NUMBERS:

        def classes(number: int = number) -> str:
            (found / "yolo/a.txt").write_text(f"1 0.35 0.35 0.5 0.5\n{number} 0.5 0.5 0.1 0.1\n")
            assert [c["id"] for c in ap(found / "boxes", found / "yolo").classes] == [1, number]
            return RIGHT

        def shares(number: int = number) -> str:
            (found / "yolo/a.txt").write_text(f"1 {number} 0.5 0.1 0.1\n")
            return RIGHT if ap(found / "boxes", found / "yolo") else ""

        def corners(number: int = number) -> str:
            box = f"<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>{number}</xmax><ymax>12</ymax></bndbox>"
            (found / "voc/a.xml").write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
            return RIGHT if ap(found / "boxes", found / "voc") else ""

        case("YOLO class", number, 2**31, classes, f"has the class {number}: write a number")
        case("YOLO centre", number, 0, shares)
        case("VOC corner", number, 0, corners)
    shown("Numbers of YOLO and VOC", rows)
    assert not wrong


@pytest.mark.slow
def test_numbers_of_predictions_of_other_tools(found: Path) -> None:
    """COCO results and tables of boxes: what is no number of its column is refused, never taken for another."""
    rows, wrong = [], []
    (found / "t.json").write_text(json.dumps(COCO))
    square = rle.encode(np.ones((10, 10), np.uint8), (2, 2), (20, 20))
    result = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "score": 0.5}
    box = {"x0": 2, "y0": 2, "x1": 12, "y1": 12, "score": 0.9, "category_id": 1}
    # Those whose number is right up to there; a class that the truth does not have is left out.
    limits = {"image_id": 2**64, "category_id": 2**62, "score": 2**62}
    tables = {"x0": 0, "x1": 0, "score": 10**40, "category_id": 2**53, "width": 10**40, "rle width": 0}
    for number in NUMBERS:
        for key, limit in {**limits, **{f"table {key}": at for key, at in tables.items()}}.items():

            def right(key: str = key, number: int = number) -> str:
                name = key.removeprefix("table ")
                if name == key:
                    file = found / "r.json"
                    file.write_text(json.dumps([{**result, "score": 0.9}, {**result, key: number}]))
                else:
                    file = found / "p.jsonl"
                    row: dict[str, Any] = {"path": "a.jpg", "width": 20, "height": 20}
                    if name == "rle width":
                        row |= {"width": number, "detections": [{**box, "rle": square}]}
                    else:
                        row |= {**box, name: number}
                    file.write_text(json.dumps(row))
                score = ap(file, found / "t.json").metrics["AP"]
                # The one detection of a table, of a class that the truth does not have, is left out.
                assert score == (0 if name != key and name == "category_id" else pytest.approx(1))
                return RIGHT

            outcome = said(right)
            rows.append((key, number, outcome))
            if not outcome.startswith(RIGHT if number < limit else REFUSED):
                wrong.append(rows[-1])
    shown("Numbers of predictions", rows)
    assert not wrong


def test_values_of_masks(found: Path) -> None:
    """A truth's PNG has at most 16 bits: 65,535 is a class, or by choice what does not count."""
    pixels = np.full((20, 20), 65535, np.uint16)
    pixels[10:] = 256
    (found / "pngs").mkdir()
    Image.fromarray(pixels).save(found / "pngs/a.png")
    truth = ground_truth_open.read(str(found / "pngs"), "semantic")
    row = {"path": "a.jpg", "width": 20, "height": 20, "class_map": png.encode(pixels), "classes": []}
    categories = [Category(at, f"c{at}") for at in (256, 65535)]
    output(found / "maps", "semantic", categories, [row])
    assert len(truth) == 1
    every = cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="none")
    assert {c["id"]: c["pixels"] for c in every.classes} == {256: 200, 65535: 200}
    some = cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="65535")
    assert some.as_dict()["ignored"] == {"value": 65535, "pixels": 200, "share": 0.5}
    with pytest.raises(WrongUse, match="a number from 0 to 65,535"):
        cvjobs.eval(str(found / "maps"), str(found / "pngs"), void="65536")
    assert palette.place(65535) == 65535 % len(palette.COLOURS)


@pytest.mark.slow
def test_own_columns_of_a_list_keep_their_numbers(tmp_path: Path) -> None:
    """What fits a column is carried; ``width``, ``height`` and ``bytes`` of a list are never taken for an image's."""
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    kinds = [pa.int64() if n < 2**63 else pa.uint64() if n < 2**64 else pa.decimal128(38) for n in NUMBERS]
    columns: dict[str, Any] = {"path": [str(tmp_path / "a.png")]}
    columns |= {f"n{at}": pa.array([n], kind) for at, (n, kind) in enumerate(zip(NUMBERS, kinds, strict=True))}
    columns |= {name: pa.array([2**63], pa.uint64()) for name in ("width", "height", "bytes", "frames")}
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    words = [f"n{at}" for at in range(len(NUMBERS))]
    line = ",".join([columns["path"][0], *map(str, NUMBERS), *["9" * 30] * 3])
    (tmp_path / "l.csv").write_text(",".join(["path", *words, "width", "height", "bytes"]) + f"\n{line}\n")
    rows = []
    for name in ("l.parquet", "l.csv"):
        out = tmp_path / f"{name}.out"
        ended = here("embed", tmp_path / name, "-o", out, "--model", "thumbnail/8")
        assert ended.code == 0, ended
        assert here("export", out, "--format", "jsonl", "-o", tmp_path / "x.jsonl").code == 0
        row = json.loads((tmp_path / "x.jsonl").read_text())
        assert [int(row[word]) for word in words] == list(NUMBERS)
        assert (row["width"], row["height"]) == (9, 7)
        assert row["bytes"] == (tmp_path / "a.png").stat().st_size
        rows += [(f"own column of {name}", number, RIGHT) for number in NUMBERS]
    shown("Own columns", rows)
