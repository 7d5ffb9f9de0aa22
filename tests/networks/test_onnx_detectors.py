"""ONNX detectors of each kind: boxes, scores and points are those of onnxruntime's outputs for each image alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
import torch
from commands import here, rows
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_files import Rows
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import batched_nms

from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import rle
from cvjobs.networks import registry
from cvjobs.networks.detection.framing import TorchvisionFraming
from cvjobs.networks.detection.settings import Rules, Settings
from cvjobs.networks.onnx.card_framing import CardFraming

pytestmark = pytest.mark.slow

SIZES = [(90, 120), (90, 120), (150, 70), (64, 64), (33, 200), (90, 120), (128, 128), (50, 50)]
Arrays = dict[str, NDArray[Any]]
Found = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # boxes x0 y0 x1 y1, scores, labels
CENTRES = (64.0, 64.0, 40.0, 40.0)
CARD = "labels: [ant, bee, cat]\nsize: 128\n"


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def corners(boxes: NDArray[Any]) -> NDArray[Any]:
    centre, size = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([centre - size / 2, centre + size / 2], 1)


def best(boxes: NDArray[Any], scores: NDArray[Any]) -> Found:
    return boxes, scores.max(1), scores.argmax(1)


def cells(shape: Sequence[int], strides: Sequence[int] = (8, 16, 32), each: int = 1) -> NDArray[Any]:
    """Column, row and stride of each cell."""
    return np.array(
        [
            (column, row, stride)
            for stride in strides
            for row in range(shape[0] // stride)
            for column in range(shape[1] // stride)
            for _ in range(each)
        ],
        np.float64,
    )


def yolov5(out: Arrays, shape: Sequence[int]) -> Found:
    del shape
    (rows,) = out["output0"]
    return best(corners(rows[:, :4]), rows[:, 5:] * rows[:, 4:5])


def yolov8(out: Arrays, shape: Sequence[int]) -> Found:
    del shape
    rows = out["output0"][0].T
    return best(corners(rows[:, :4]), rows[:, 4:])


def yolov10(out: Arrays, shape: Sequence[int]) -> Found:
    del shape
    (rows,) = out["output0"]
    return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)


def yolox(out: Arrays, shape: Sequence[int]) -> Found:
    (rows,) = out["output"]
    grid = cells(shape)
    boxes = np.concatenate([(rows[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(rows[:, 2:4]) * grid[:, 2:]], 1)
    return best(corners(boxes), rows[:, 5:] * rows[:, 4:5])


def counted(out: Arrays, shape: Sequence[int]) -> Found:
    del shape
    count = int(out["num_dets"][0].max())
    return out["det_boxes"][0][:count], out["det_scores"][0][:count], out["det_classes"][0][:count]


def scored(out: Arrays, shape: Sequence[int]) -> Found:
    boxes = out["boxes"][0] * np.array([shape[1], shape[0]] * 2)
    return best(boxes, out["scores"][0][:, 1:])


def detr(out: Arrays, shape: Sequence[int]) -> Found:
    (logits,), (boxes,) = out["logits"], out["pred_boxes"]
    likely = 1 / (1 + np.exp(-logits.astype(np.float64)))
    order = np.argsort(-likely.ravel(), kind="stable")[: len(logits)]
    query, label = np.divmod(order, logits.shape[1])
    return corners(boxes[query] * np.array([shape[1], shape[0]] * 2)), likely.ravel()[order], label


def deployed(out: Arrays, shape: Sequence[int]) -> Found:
    del shape
    return out["boxes"][0], out["scores"][0], out["labels"][0]


def yunet(out: Arrays, shape: Sequence[int]) -> Found:
    grid = cells(shape)
    part = {
        name: np.concatenate([out[f"{name}_{s}"][0] for s in (8, 16, 32)]) for name in ("cls", "obj", "bbox", "kps")
    }
    boxes = np.concatenate(
        [(part["bbox"][:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(part["bbox"][:, 2:]) * grid[:, 2:]], 1
    )
    score = np.sqrt(part["cls"][:, 0].clip(0, 1) * part["obj"][:, 0].clip(0, 1))
    return corners(boxes), score, np.zeros(len(score), np.int64)


@dataclass(frozen=True)
class Case:
    """A file, its card, what decodes its outputs, and how pictures get into it."""

    made: dict[str, Rows]
    decoded: Callable[[Arrays, Sequence[int]], Found]
    kind: str
    card: str = CARD
    letterbox: bool = True
    centred: bool = True
    fill: float = 114.0
    bgr: bool = False
    scale: float = 1.0
    iou: float = 0.45
    conf: float = 0.25
    more: dict[str, Any] = field(default_factory=dict)


BOX = {"bias": CENTRES, "grow": 8.0}
HEAT = {"bias": -1.0, "grow": 1.0}
CASES = {
    "yolov5": Case(
        {"output0": Rows(8, (*CENTRES, 0.5, 0, 0, 0), 6.0, "Sigmoid", 4)},
        yolov5,
        "yolov5",
        CARD + "output: yolov5\n",
    ),
    "yolov8": Case(
        {"output0": Rows(7, (*CENTRES, -1, -1, -1), 6.0, "Sigmoid", 4, first=True)}, yolov8, "yolov8", iou=0.7
    ),
    "yolox": Case(
        {"output": Rows(8, (0, 0, 1, 1, 0.5, 0, 0, 0), 0.5, "Sigmoid", 4)},
        yolox,
        "yolox",
        centred=False,
        bgr=True,
        scale=255.0,
    ),
    "nms": Case(
        {
            "num_dets": Rows(20, 0, 1.0, "Count"),
            "det_boxes": Rows(4, (30, 30, 90, 90), 8.0),
            "det_scores": Rows(3, -1, 1.0, "Score"),
            "det_classes": Rows(3, 0, 1.0, "ArgMax"),
        },
        counted,
        "nms",
        iou=1.0,
    ),
    "yolov10": Case(
        {"output0": Rows(6, (30, 30, 90, 90, 0.4, 1), (5, 5, 5, 5, 0.1, 0))},
        yolov10,
        "yolov10",
        iou=1.0,
        more={"strides": (16, 32)},
    ),
    "boxes": Case(
        {"boxes": Rows(4, (0.2, 0.2, 0.8, 0.8), 0.05), "scores": Rows(4, 0, 1.5, "Softmax")},
        scored,
        "boxes",
        letterbox=False,
    ),
    "detr": Case(
        {"logits": Rows(3, -2, 1.0), "pred_boxes": Rows(4, (0.5, 0.5, 0.3, 0.3), 0.1)},
        detr,
        "detr",
        CARD + "activation: sigmoid\n",
        letterbox=False,
        iou=1.0,
        conf=0.3,
    ),
    "deployed": Case(
        {
            "labels": Rows(3, 0, 1.0, "ArgMax"),
            "boxes": Rows(4, (30, 30, 90, 90), 8.0),
            "scores": Rows(3, -1, 1.0, "Score"),
        },
        deployed,
        "boxes",
        letterbox=False,
        iou=1.0,
        more={"inputs": {"orig_target_sizes": ["batch", 2]}},
    ),
    "yunet": Case(
        {
            "cls": Rows(1, 0.5, 0.3, apart=True),
            "obj": Rows(1, 0.5, 0.3, apart=True),
            "bbox": Rows(4, (0, 0, 1, 1), 0.4, apart=True),
            "kps": Rows(10, 0, 1.0, apart=True),
        },
        yunet,
        "yunet",
        "size: 128\n",
        centred=False,
        fill=0.0,
        bgr=True,
        scale=255.0,
        iou=0.3,
        conf=0.6,
    ),
}
# YuNet's and YOLOX's toys see values of 0 to 255.
for _name in ("yolox", "yunet"):
    for _key, _rows in CASES[_name].made.items():
        CASES[_name].made[_key] = Rows(**{**vars(_rows), "grow": np.asarray(_rows.grow) / 255})


def same(found: Any, expected: dict[str, Tensor]) -> None:
    """Every box has its counterpart of its class: within half a pixel, its score within a thousandth."""
    boxes, scores, labels = (expected[name].numpy() for name in ("boxes", "scores", "labels"))
    assert len(found.boxes) == len(boxes)
    if len(boxes):
        apart = np.abs(boxes[:, None] - found.boxes[None]).max(-1)
        apart += 1e3 * (labels[:, None] != found.classes[None])
        apart += 1e3 * (np.abs(scores[:, None] - found.scores[None]) > 1e-3)
        assert apart.min(0).max() < 0.5
        assert apart.min(1).max() < 0.5


def antialiased(image: NDArray[np.uint8], size: tuple[int, int], antialias: bool) -> Tensor:
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return interpolate(planes, size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def expected(case: Case, path: Path, image: NDArray[np.uint8], canvas: tuple[int, int] | None) -> dict[str, Tensor]:
    """What the file says of an image alone, framed, decoded and suppressed step by step."""
    height, width = image.shape[:2]
    if case.letterbox:
        ratio = min(128 / height, 128 / width)
        size = round(height * ratio), round(width * ratio)
        whole = canvas or (math.ceil(size[0] / 32) * 32, math.ceil(size[1] / 32) * 32)
    else:
        size = whole = (128, 128)
    top, left = ((whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2) if case.centred else (0, 0)
    given = torch.full((3, *whole), case.fill)
    place = given[:, top : top + size[0], left : left + size[1]]
    place.copy_(
        antialiased(image, size, not case.letterbox) if size != (height, width) else antialiased(image, size, False)
    )
    if case.bgr:
        given = given.flip(0)
    given = given / 255 * case.scale
    if case.kind == "detr":
        assert case.scale == 1
    feeds = {"images": given[None].numpy()}
    if "inputs" in case.more:
        feeds["orig_target_sizes"] = np.array([[whole[1], whole[0]]], np.int64)
    boxes, scores, labels = (
        torch.from_numpy(np.array(part)) for part in case.decoded(onnx_files.outputs(path, feeds), whole)
    )
    rows = scores > case.conf
    boxes, scores, labels = boxes[rows].float(), scores[rows].float(), labels[rows]
    order = batched_nms(boxes, scores, labels, case.iou)[:300]
    moved = (boxes[order] - torch.tensor([left, top] * 2)) * torch.tensor([width / size[1], height / size[0]] * 2)
    return {"boxes": moved, "scores": scores[order], "labels": labels[order]}


@pytest.mark.parametrize("fixed", [False, True], ids=["open", "fixed"])
@pytest.mark.parametrize("name", CASES)
def test_boxes_are_those_of_each_image_alone(
    tmp_path: Path, images: list[NDArray[np.uint8]], name: str, fixed: bool
) -> None:
    case = CASES[name]
    more: dict[str, Any] = {**case.more, **({"size": (128, 128), "batch": 3} if fixed else {})}
    if fixed and "inputs" in case.more:
        more["inputs"] = {"orig_target_sizes": [3, 2]}
    path = onnx_files.detector(tmp_path / "d.onnx", case.made, **more)
    alone = onnx_files.detector(tmp_path / "alone.onnx", case.made, **case.more)
    (tmp_path / "d.yaml").write_text(case.card)
    model: Any = registry.detector(f"onnx/{path}")
    assert model.facts["card"]["output"] == case.kind
    assert (model.rules.conf, model.rules.iou) == (case.conf, case.iou)
    network = model.load("cpu", "fp32")
    wanted = [expected(case, alone, image, (128, 128) if fixed else None) for image in images]
    assert sum(len(one["scores"]) for one in wanted) >= 15
    for found in (network(images), [network([image])[0] for image in images]):
        for one, other in zip(found, wanted, strict=True):
            same(one, other)


def listed(path: Path, masks: bool = False, sides: Sequence[int | str] = ("height", "width")) -> Path:
    """Write a file as torchvision's are exported: an image without a batch, lists of what is in it."""
    mean = helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)
    scaled = helper.make_node("Mul", ["likely", "mean"], ["scores"])
    nodes = [
        mean,
        scaled,
        helper.make_node("Identity", ["where"], ["boxes"]),
        helper.make_node("Identity", ["what"], ["labels"]),
    ]
    constants: Arrays = {
        "likely": np.array([1.8, 1.6, 0.05], np.float32),
        "where": np.array([[1, 2, 30, 40], [5, 5, 20.5, 20.5], [0, 0, 9, 9]], np.float32),
        "what": np.array([3, 1, 2], np.int64),
    }
    outputs: dict[str, Any] = {"boxes": ["n", 4], "labels": ["n"], "scores": ["n"]}
    if masks:
        nodes += [
            helper.make_node("ReduceMean", ["images"], ["grey"], axes=[0], keepdims=1),
            helper.make_node("Unsqueeze", ["grey", "axis"], ["one"]),
            helper.make_node("Concat", ["one", "one", "one"], ["masks"], axis=0),
        ]
        constants["axis"] = np.array([0], np.int64)
        outputs["masks"] = ["n", 1, "height", "width"]
    kinds = {"labels": TensorProto.INT64}
    return onnx_files.saved(path, nodes, {"images": [3, *sides]}, outputs, constants, kinds=kinds)


def test_lists_of_an_image_without_a_batch(tmp_path: Path) -> None:
    path = listed(tmp_path / "d.onnx")
    with pytest.raises(WrongUse, match="does not tell the names of its classes: write `labels:`"):
        registry.detector(f"onnx/{path}")
    (tmp_path / "d.yaml").write_text("labels: [ant, bee, cat]\n")
    model: Any = registry.detector(f"onnx/{path}")
    assert [(one.id, one.name) for one in model.categories] == [(1, "ant"), (2, "bee"), (3, "cat")]
    found, other = model.load("cpu", "fp32")([np.full((50, 60, 3), 128, np.uint8), np.full((77, 31, 3), 255, np.uint8)])
    assert found.classes.tolist() == [3, 1]
    np.testing.assert_allclose(found.scores, np.array([1.8, 1.6]) * 128 / 255, rtol=1e-5)
    np.testing.assert_array_equal(found.boxes, [[1, 2, 30, 40], [5, 5, 20.5, 20.5]])
    np.testing.assert_allclose(other.scores[:2], [1.8, 1.6], rtol=1e-5)
    with pytest.raises(WrongUse, match="in their own size: leave out --imgsz"):
        model.ruled(Settings(imgsz=320))


def test_lists_of_an_image_of_one_size_are_of_squashed_pictures(tmp_path: Path) -> None:
    path = listed(tmp_path / "d.onnx", sides=(64, 32))
    model: Any = registry.detector(f"onnx/{path}", labels=["ant", "bee", "cat"])
    assert model.facts["card"]["resize"] == "squash"
    found = model.load("cpu", "fp32")([np.full((128, 96, 3), 128, np.uint8)])[0]
    np.testing.assert_allclose(found.boxes, np.array([[3, 4, 90, 80], [15, 10, 61.5, 41]]), rtol=1e-5)
    (tmp_path / "d.yaml").write_text("resize: keep\n")
    with pytest.raises(WrongUse, match=r"No output of .* is one vector an image"):
        registry.embedder(f"onnx/{path}")
    with pytest.raises(WrongUse, match="takes pictures of one size only"):
        registry.detector(f"onnx/{path}", labels=["ant", "bee", "cat"])


def test_masks_of_lists_are_outlined(tmp_path: Path) -> None:
    path = listed(tmp_path / "d.onnx", masks=True)
    (tmp_path / "d.yaml").write_text("labels: [ant, bee, cat]\n")
    image = np.zeros((40, 50, 3), np.uint8)
    image[5:30, 10:45] = 255
    (found,) = registry.segmenter(f"onnx/{path}").load("cpu", "fp32")([image])
    wanted = (image[..., 0] > 0).astype(np.uint8)
    np.testing.assert_array_equal(rle.decode(found.rles[0], 40, 50), wanted)


def test_a_detector_without_masks_does_not_segment(tmp_path: Path) -> None:
    path = listed(tmp_path / "d.onnx")
    (tmp_path / "d.yaml").write_text("labels: [ant, bee, cat]\ntask: instance\n")
    with pytest.raises(WrongUse, match="finds boxes without masks that cvjobs knows: give it to `cvjobs detect`"):
        registry.segmenter(f"onnx/{path}")


@pytest.mark.parametrize(
    ("made", "card", "words"),
    [
        ({"out": Rows(9, apart=True)}, "", "tell cvjobs of no kind of detector: it has out_8"),
        ({"out": Rows(9)}, "output: yunet\n", "are not those of yunet"),
        (
            {"pred_boxes": Rows(4), "logits": Rows(5)},
            "",
            "whether its queries have one class each or several: write",
        ),
        ({"boxes": Rows(4), "scores": Rows(5)}, "", "what makes its scores probabilities: write `activation:`"),
        ({"boxes": Rows(4), "scores": Rows(5, end="Sigmoid")}, "", "what the numbers of a box are: write `boxes:`"),
        ({"out": Rows(9, first=True)}, "labels: [a, b]\n", "2 names .* 5 classes"),
        ({"out": Rows(9, first=True)}, "", "5 classes that only you can name"),
    ],
)
def test_what_is_not_told_is_asked_in_a_sentence(tmp_path: Path, made: dict[str, Rows], card: str, words: str) -> None:
    path = onnx_files.detector(tmp_path / "d.onnx", made)
    (tmp_path / "d.yaml").write_text(f"size: 64\n{card}")
    with pytest.raises(WrongUse, match=words):
        registry.detector(f"onnx/{path}")


def test_faces_have_landmarks_night_after_night(tmp_path: Path, images: list[NDArray[np.uint8]]) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(source / f"{number}.png")
    path = onnx_files.detector(tmp_path / "faces.onnx", CASES["yunet"].made)
    line = ("detect", source, "-o", out, "--model", f"onnx/{path}", "--imgsz", "128", "--json")
    first = here(*line)
    assert first.code == 0, first
    assert '"computed": 8' in first.out
    found = rows(out)["detections"].to_pylist()
    for row, image in zip(found, images, strict=True):
        wanted = expected(CASES["yunet"], path, image, None)
        assert len(row) == len(wanted["boxes"])
        assert all(one["label"] == "face" and len(one["landmarks"]) == 5 for one in row)
    assert '"computed": 0' in here(*line).out
    moved = path.rename(tmp_path / "photos" / "faces.onnx")
    assert '"computed": 0' in here(*line[:5], f"onnx/{moved}", *line[6:]).out


def test_sides_that_are_rounded_down_are_torchvisions() -> None:
    rules = Rules(conf=0.05, iou=0.5, max_det=100, short=320, long=320)
    framing = CardFraming(
        resize="letterbox",
        centred=False,
        fill=None,
        interpolation="bilinear",
        antialias=False,
        bgr=False,
        multiple=1,
        down=True,
        inside=True,
    )
    random = np.random.default_rng(0)
    for height, width in random.integers(1, 2000, (300, 2)).tolist():
        for scale in (1.0, 0.7):
            size = framing.size(height, width, rules, scale)
            assert size == TorchvisionFraming().size(height, width, rules, scale)
            assert framing.canvas(size, rules) == size
