"""What the number of classes does: on both sides of what 8 and 16 bits hold it is right, or refused by a sentence.

``pytest -s tests/test_class_limits.py`` prints the tables.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from commands import here
from limit_tables import REFUSED, RIGHT, said, shown
from numpy.typing import NDArray
from predictions import output
from torch import Tensor, nn

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.html import overlays
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


@pytest.mark.faults(minutes=0.2)
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
