"""ONNX files that segment: class maps and masks are those of onnxruntime's outputs; and what was recognised is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_files import Rows
from PIL import Image
from torch.nn.functional import interpolate, max_pool2d

from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import rle
from cvjobs.images.picture import Picture
from cvjobs.networks import model_card, registry
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.families import onnx as family

pytestmark = pytest.mark.slow

EDGE = 2  # pixels, half a cell of the prototypes
FOUR = "labels: [road, tree, car, sky]\n"


def grid(path: Path, end: str = "", channels: int = 4, batch: int | str = "batch", size: Any = (64, 96)) -> Path:
    """A convolution of stride 8: logits, or with ``end`` a map of their ArgMax, or their Sigmoid."""
    random = np.random.default_rng(3)
    constants = {"w": random.normal(0, 0.3, (channels, 3, 8, 8)).astype("float32")}
    nodes = [helper.make_node("Conv", ["images", "w"], ["logits" if end else "out"], strides=[8, 8])]
    outputs: dict[str, Any] = {"out": [None, channels, None, None]}
    kinds = {}
    if end == "ArgMax":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["out"], axis=1, keepdims=0))
        outputs, kinds = {"out": [None, None, None]}, {"out": TensorProto.INT64}
    elif end:
        nodes.append(helper.make_node(end, ["logits"], ["out"]))
    return onnx_files.saved(path, nodes, {"images": [batch, 3, *size]}, outputs, constants, kinds=kinds)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    random = np.random.default_rng(0)
    sizes = [(64, 96), (130, 190), (40, 40), (300, 20), (64, 96)]
    return [Picture(random.integers(0, 256, (64, 96, 3), np.uint8), *size) for size in sizes]


def logits(path: Path, picture: Picture) -> NDArray[Any]:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    given = ((picture.pixels / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    return onnx_files.alone(path, given)[0]


@pytest.mark.parametrize("batch", ["batch", 2])
def test_class_maps_are_those_of_the_logits(tmp_path: Path, pictures: list[Picture], batch: int | str) -> None:
    path = grid(tmp_path / "s.onnx", batch=batch)
    (tmp_path / "s.yaml").write_text(FOUR)
    model: Any = registry.segmenter(f"onnx/{path}")
    assert model.transform.fit == "exact"
    assert [one.name for one in model.categories] == ["road", "tree", "car", "sky"]
    alone = grid(tmp_path / "alone.onnx")
    found = model.load("cpu", "fp32")(pictures)
    for one, picture in zip(found, pictures, strict=True):
        large = interpolate(torch.from_numpy(logits(alone, picture)), (64, 96), mode="bilinear")
        large = interpolate(large, (picture.height, picture.width), mode="bilinear")
        assert (one == large.argmax(1)[0].numpy()).mean() > 0.999


def test_a_map_of_classes_is_enlarged(tmp_path: Path, pictures: list[Picture]) -> None:
    path = grid(tmp_path / "s.onnx", "ArgMax")
    with pytest.raises(WrongUse, match="the names of its classes: write `labels:`"):
        registry.segmenter(f"onnx/{path}")
    (tmp_path / "s.yaml").write_text(FOUR)
    found = registry.segmenter(f"onnx/{path}").load("cpu", "fp32")(pictures[:2])
    for one, picture in zip(found, pictures, strict=False):
        classes = torch.from_numpy(logits(path, picture))[None].float()
        wanted = interpolate(classes, (picture.height, picture.width), mode="nearest-exact")[0, 0].numpy()
        np.testing.assert_array_equal(one, wanted)


def test_one_channel_is_something_against_nothing(tmp_path: Path, pictures: list[Picture]) -> None:
    path = grid(tmp_path / "s.onnx", "Sigmoid", channels=1)
    (tmp_path / "s.yaml").write_text("labels: [crack]\n")
    model: Any = registry.segmenter(f"onnx/{path}")
    assert [one.name for one in model.categories] == ["__background__", "crack"]
    (found,) = model.load("cpu", "fp32")(pictures[:1])
    large = interpolate(torch.from_numpy(logits(path, pictures[0])), (64, 96), mode="bilinear")
    assert (found == (large[0, 0] > 0.5).numpy()).mean() > 0.999
    with pytest.raises(WrongUse, match="--conf chooses among objects"):
        model.ruled(Settings(conf=0.5))


def test_masks_of_prototypes_are_those_of_the_pixels(tmp_path: Path) -> None:
    """YOLO-seg: the sum of prototypes by coefficients, interpolated to the image and cut to the box."""
    rows = Rows(4 + 2 + 8, (32.0, 32.0, 30.0, 30.0, *[0.0] * 10), (6, 6, 6, 6, *[1.0] * 10), first=True)
    path = onnx_files.detector(tmp_path / "d.onnx", {"output0": rows}, size=(64, 64), protos=8)
    (tmp_path / "d.yaml").write_text("labels: [ant, bee]\nconf: 0.6\niou: 0.3\n")
    model: Any = registry.segmenter(f"onnx/{path}")
    assert (model.head.kind, model.head.masks, model.masks) == ("yolov8", "output1", "image")
    coarse = np.random.default_rng(5).integers(0, 256, (4, 4, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)).copy()
    found, again = model.load("cpu", "fp32")([image, image])
    assert len(found.boxes) >= 3
    assert found.rles.tolist() == again.rles.tolist()
    out = onnx_files.outputs(path, {"images": (image / 255).transpose(2, 0, 1)[None].astype(np.float32)})
    said, protos = torch.from_numpy(out["output0"][0].T), torch.from_numpy(out["output1"])
    for box, text in zip(found.boxes, found.rles, strict=True):
        centre = torch.from_numpy((box[:2] + box[2:]) / 2)
        row = said[(said[:, :2] - centre).abs().sum(1).argmin()]
        large = interpolate((row[6:, None, None] * protos[0]).sum(0)[None, None], (64, 64), mode="bilinear")[0, 0]
        wanted = (large > 0).numpy()
        y, x = np.mgrid[:64, :64] + 0.5
        wanted &= (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
        mask = np.asarray(rle.decode(text, 64, 64))
        near = torch.from_numpy(np.stack([wanted, ~wanted])).float()[:, None]
        around, inverse = max_pool2d(near, 2 * EDGE + 1, 1, EDGE).bool()[:, 0].numpy()
        assert not (mask.astype(bool) & ~around).any()
        assert not (~mask.astype(bool) & ~inverse).any()


def test_what_was_recognised_is_told(tmp_path: Path) -> None:
    path = grid(tmp_path / "s.onnx")
    refused = {title: value for title, value in family.described(str(path)) if title.startswith("not")}
    assert "4 classes that only you can name" in refused["not segment"]
    assert list(refused) == ["not detect", "not segment", "not classify", "not embed"]
    with pytest.raises(WrongUse, match=r"; give it to the command that `cvjobs models onnx/.*/s\.onnx` names\."):
        registry.classifier(f"onnx/{path}")
    assert refused["not classify"].endswith("it has out (? × 4 × ? × ?).")
    assert "name one with --layer, to be pooled" in refused["not embed"]
    (tmp_path / "s.yaml").write_text(FOUR)
    told = dict(family.described(str(path)))
    assert told["for"] == "segment"
    assert told["output"] == "pixel-logits"
    assert told["classes"] == "4: road, tree, car, sky"
    path = onnx_files.detector(tmp_path / "d.onnx", {"output0": Rows(84, first=True)}, size=(64, 64))
    told = dict(family.described(str(path)))
    assert (told["for"], told["output"]) == ("detect", "yolov8")
    assert not told.keys() & {"coefficients", "landmarks", "objectness"}  # no words of the card's
    assert (told["resize"], told["fill"]) == ("letterbox", "114")
    assert told["classes"].startswith("80: person, bicycle")
    path = onnx_files.vectors(tmp_path / "v.onnx", dim=1000)
    told = dict(family.described(str(path)))
    assert (told["for"], told["output"], told["classes"][:5]) == ("classify, embed", "logits", "1000:")
    assert model_card.of(f"onnx/{path}", "embed").as_dict()["tasks"] == []
    path = onnx_files.vectors(tmp_path / "own.onnx", dim=5)
    told = dict(family.described(str(path)))
    assert told["for"] == "embed"
    assert "5 classes that only you can name" in told["not classify"]


def test_pictures_are_shrunk_as_the_card_says(tmp_path: Path) -> None:
    card = FOUR + "resize: shrink\nsize: 48\n"
    path = grid(tmp_path / "any.onnx", size=("height", "width"))
    path.with_suffix(".yaml").write_text(card)
    model: Any = registry.segmenter(f"onnx/{path}")
    assert (model.transform.fit, model.transform.resize, model.transform.size) == ("whole", 48, None)
    assert model.ruled(Settings(imgsz=64)).transform.resize == 64
    path = grid(tmp_path / "one.onnx")
    path.with_suffix(".yaml").write_text(FOUR + "resize: shrink\n")
    with pytest.raises(WrongUse, match="takes pictures of one size only: write resize: squash"):
        registry.segmenter(f"onnx/{path}")
