"""Each kind of head against a slow reference, box by box: batches of 1 and 3, nothing found, NaN, wrong shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from slow_heads import CASES, CONF, SIZE, Found, boxes, normal, uniform
from torch import Tensor
from torchvision.ops import nms

from cvjobs.common.errors import WrongUse
from cvjobs.networks.detection.nms import Candidates, _all_at_once, kept
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.onnx.heads import (
    proto_masks,
    yolo_boxes,
    yolox_cells,
)
from cvjobs.networks.onnx.heads.yolo_boxes import YoloRow


def tensors(outputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(found)) for name, found in outputs.items()}


def same(found: Candidates, expected: Found) -> None:
    """They are the same candidates, in whatever order, in batches' order."""
    assert (found.image.diff() >= 0).all()
    ours = []
    for at in range(len(found.image)):
        points = () if found.landmarks is None else tuple(found.landmarks[at].flatten().tolist())
        box, score = tuple(found.boxes[at].tolist()), float(found.scores[at])
        ours.append((int(found.image[at]), box, score, int(found.labels[at]), points))
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    assert len(ours) == len(expected)
    key = lambda one: (one[0], one[3], round(one[2], 4), one[1][0])  # noqa: E731
    for mine, other in zip(sorted(ours, key=key), sorted(expected, key=key), strict=True):
        assert (mine[0], mine[3]) == (other[0], other[3])
        assert mine[2] == pytest.approx(other[2], abs=1e-5)
        assert mine[1] == pytest.approx(other[1], abs=1e-3)
        assert mine[4] == pytest.approx(other[4], abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_head_is_read_as_the_reference_reads_it(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(1)
    for classes in case.classes:
        for count in (1,) if name == "scrfd" else (1, 3):
            outputs = case.make(rng, count, classes)
            found = case.ours(tensors(outputs), CONF, count)
            every = case.slow(outputs, count)
            expected = [one for one in every if one[2] > CONF]
            assert expected
            assert len(expected) < len(every) or name == "detr, sigmoid"
            same(found, expected)
            assert found.finite.tolist() == [True] * count


@pytest.mark.parametrize("name", CASES)
def test_nothing_found_is_no_candidates(name: str) -> None:
    case, count = CASES[name], 1 if name == "scrfd" else 2
    outputs = case.make(np.random.default_rng(2), count, 3)
    found = case.ours(tensors(outputs), 1.01, count)
    assert found.boxes.shape == (0, 4)
    assert found.finite.tolist() == [True] * count
    assert found.landmarks is None or found.landmarks.shape[::2] == (0, 2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_image_of_which_nonsense_is_said_has_no_candidates(name: str, value: float) -> None:
    case, count = CASES[name], 1 if name == "scrfd" else 3
    outputs = case.make(np.random.default_rng(3), count, 3)
    good = case.ours(tensors(outputs), CONF, count)
    spoilt = case.spoilt or {"lists": "b1", "scrfd": "bbox_8"}.get(name) or next(iter(outputs))
    last = 0 if count == 1 else 1
    if name in ("yolo v7 with NMS", "DetectionOutput"):
        row = np.flatnonzero(outputs["o"].reshape(-1, 7)[:, 0] == last)[0]
        outputs["o"].reshape(-1, 7)[row, 3] = value
    elif name == "lists":
        outputs[spoilt][0, 2] = value
    else:
        outputs[spoilt][last].flat[0] = value
    found = case.ours(tensors(outputs), CONF, count)
    assert found.finite.tolist() == [image != last for image in range(count)]
    assert found.boxes.equal(good.only(good.image != last).boxes)


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_another_shape_are_one_sentence(name: str) -> None:
    case, count = CASES[name], 1 if name == "scrfd" else 2
    outputs = tensors(case.make(np.random.default_rng(4), count, 3))
    for wrong, found in outputs.items():
        for other in (found[..., None, None, None], found.flatten()[:1]):
            with pytest.raises(WrongUse, match=f"The output '{wrong}' of the shape .* kind .*: choose another") as said:
                case.ours({**outputs, wrong: other}, CONF, count)
            assert str(tuple(other.shape)) in str(said.value)
    with pytest.raises(WrongUse, match=r"has \d+ outputs? \(.*\), but the model has 0"):
        case.ours({}, CONF, count)


def test_half_precision_is_read_as_numbers() -> None:
    case = CASES["yolo v8 pose"]
    outputs = {name: found.half() for name, found in tensors(case.make(np.random.default_rng(6), 2, 3)).items()}
    every = case.slow({name: found.float().numpy() for name, found in outputs.items()}, 2)
    same(case.ours(outputs, CONF, 2), [one for one in every if one[2] > CONF])


def test_a_box_too_large_for_a_float_spoils_its_image_only_where_it_is_found() -> None:
    said = torch.zeros(2, 126, 6)
    said[:, 7, 2] = 200  # e ** 200 strides wide
    said[1, 7, 4:] = 1
    found = yolox_cells.candidates({"o": said}, SIZE, 0.5)
    assert found.finite.tolist() == [True, False]
    assert not len(found.boxes)


def test_masks_are_sums_of_prototypes_cut_to_their_boxes() -> None:
    """Where the reference, pixel by pixel of the input, has the object."""
    rng = np.random.default_rng(7)
    height, width, stride = 64, 96, 4
    coarse = torch.from_numpy(normal(rng, 3, 8, 4, 6))
    protos = torch.nn.functional.interpolate(coarse, (height // stride, width // stride), mode="bicubic")
    row = np.concatenate([boxes(rng, 3, 10), uniform(rng, 3, 10, 2), normal(rng, 3, 10, 8)], 2)
    row[..., 2:4] = rng.uniform(20, 40, (3, 10, 2))  # cx, cy, w, h
    outputs = {"o": torch.from_numpy(row.transpose(0, 2, 1).copy()), "p": protos}
    found = yolo_boxes.candidates(outputs, SIZE, 0.3, row=YoloRow(coefficients=8), channels_first=True)
    kept = [found.only(torch.where(found.image == image)[0]) for image in range(3)]
    features = proto_masks.features(outputs, channels_first=True)
    places = [(0, 0, 64, 96), (8, 0, 48, 96), (6, 10, 37, 51)]
    masks = proto_masks.masks(features, kept, places, SIZE)
    assert masks.shape == (len(found.image), 16, 24)
    at = wrong = pixels = 0
    for image, (some, (top, left, h, w)) in enumerate(zip(kept, places, strict=True)):
        assert some.query is not None
        assert len(some.query)
        large = torch.nn.functional.interpolate(protos[image : image + 1], (height, width), mode="bilinear")[0]
        for box, query in zip(some.boxes.tolist(), some.query.tolist(), strict=True):
            values = sum(float(row[image, query, 6 + p]) * large[p] for p in range(8))
            y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
            inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
            expected = (inside & (values > 0))[top : top + h, left : left + w]
            ours = torch.nn.functional.interpolate(masks[at][None, None], (h, w), mode="bilinear")[0, 0] > 0
            own = inside[top : top + h, left : left + w]
            beyond = torch.nn.functional.max_pool2d(own[None].float(), 5, 1, 2)[0] == 0
            assert not (ours & beyond).any()
            wrong, pixels = wrong + int((ours ^ expected).sum()), pixels + int(expected.sum())
            at += 1
    assert wrong < 0.12 * pixels


def test_features_of_another_shape_are_one_sentence() -> None:
    right = {"o": torch.zeros(2, 4 + 1 + 8, 50), "p": torch.zeros(2, 8, 16, 16)}
    assert proto_masks.features(right, channels_first=True)["coefficients"].shape == (2, 50, 8)
    for name, wrong in {"o": torch.zeros(2, 9, 50), "p": torch.zeros(8, 16, 16)}.items():
        with pytest.raises(WrongUse, match=f"The output '{name}'"):
            proto_masks.features({**right, name: wrong}, channels_first=True)


@pytest.mark.parametrize("rule", ["per-class", "all-classes"])
def test_boxes_beyond_their_image_leave_those_of_the_others_alone(rule: str) -> None:
    """Image by image, and of a batch by one NMS, as on a GPU, those remain that NMS of each image and class leaves."""
    rng = np.random.default_rng(8)
    corner = rng.uniform(-300, 100, (200, 2))
    table = np.concatenate([corner, corner + rng.uniform(20, 200, (200, 2))], 1).astype(np.float32)
    found = Candidates(
        torch.arange(200) // 50,
        torch.from_numpy(table),
        torch.from_numpy(uniform(rng, 200)),
        torch.from_numpy(rng.integers(0, 3, 200)),
        torch.ones(4, dtype=torch.bool),
    )
    rules = Rules(conf=0, iou=0.3, max_det=300, short=64, long=64, nms=rule)
    groups = found.image * 3 + (found.labels if rule == "per-class" else 0)
    each = [torch.where(groups == group)[0] for group in sorted(set(groups.tolist()))]
    remaining = [int(row) for rows in each for row in rows[nms(found.boxes[rows], found.scores[rows], 0.3)]]
    remaining.sort(key=lambda row: -float(found.scores[row]))
    expected = [[row for row in remaining if row // 50 == image] for image in range(4)]
    assert [rows.tolist() for rows in kept(found, 4, rules, torch.arange(3))] == expected
    together = _all_at_once(found, rules).tolist()
    assert [[row for row in together if row // 50 == image] for image in range(4)] == expected
