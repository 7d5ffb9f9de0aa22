"""Slow references for the heads of ONNX detectors, box by box, and outputs to read by each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads import (
    box_rows,
    counted_boxes,
    detr_queries,
    distance_cells,
    listed_boxes,
    prior_boxes,
    scored_boxes,
    yolo_boxes,
    yolox_cells,
    yunet_cells,
)
from cvjobs.networks.onnx.heads.yolo_boxes import YoloRow

V5, FACE = YoloRow(objectness=True), YoloRow(objectness=True, landmarks=5, values=2, landmarks_first=True)
SIZE = (64, 96)  # height, width
CONF = 0.6
Found = list[tuple[int, tuple[float, ...], float, int, tuple[float, ...]]]  # image, box, score, class, points
PRIORS = np.random.default_rng(5).uniform(0.1, 0.9, (30, 4)).astype(np.float32)
SQUARES = ((16, 24), (32, 48), (64, 80))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-float(x)))


def softmax(values: Any) -> list[float]:
    powers = [math.exp(float(v)) for v in values]
    return [p / sum(powers) for p in powers]


def centred(cx: float, cy: float, w: float, h: float) -> tuple[float, ...]:
    return float(cx - w / 2), float(cy - h / 2), float(cx + w / 2), float(cy + h / 2)


def cells(strides: tuple[int, ...] = (8, 16, 32), each: int = 1) -> list[tuple[int, int, int]]:
    """Column, row and stride of each."""
    return [
        (x, y, s)
        for s in strides
        for y in range(math.ceil(SIZE[0] / s))
        for x in range(math.ceil(SIZE[1] / s))
        for _ in range(each)
    ]


@dataclass(frozen=True)
class Case:
    """A kind of head: outputs for a batch, how we read them and how the reference does."""

    make: Callable[[np.random.Generator, int, int], dict[str, Any]]  # of a batch, with so many classes
    ours: Callable[[dict[str, Tensor], float, int], Candidates]
    slow: Callable[[dict[str, Any], int], Found]  # all, whatever they score
    classes: tuple[int, ...] = (4, 1)
    spoilt: str = ""  # the output that gets a NaN, the first where empty
    extra: dict[str, Any] = field(default_factory=dict)


def boxes(rng: np.random.Generator, *shape: int) -> Any:
    return rng.uniform(1, 60, (*shape, 4)).astype(np.float32)


def uniform(rng: np.random.Generator, *shape: int) -> Any:
    return rng.uniform(0, 1, shape).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.normal(0, 1, shape).astype(np.float32)


# --- the references


def best(scores: Any) -> tuple[float, int]:
    at = max(range(len(scores)), key=lambda c: float(scores[c]))
    return float(scores[at]), at


def slow_lists(outputs: dict[str, Any], count: int) -> Found:
    return [
        (i, tuple(box), float(score), int(label), ())
        for i in range(count)
        for box, score, label in zip(outputs[f"b{i}"], outputs[f"s{i}"], outputs[f"l{i}"], strict=True)
    ]


def slow_relative_labels(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for (cx, cy, w, h), score, label in zip(outputs["b"][i], outputs["s"][i], outputs["l"][i], strict=True):
            found.append((i, centred(cx * 96, cy * 64, w * 96, h * 64), float(score), int(label), ()))
    return found


def slow_every_sigmoid(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for (y0, x0, y1, x1), logits in zip(outputs["b"][i, :, 0], outputs["s"][i], strict=True):
            found += [(i, (x0, y0, x1, y1), sigmoid(logit), c, ()) for c, logit in enumerate(logits)]
    return found


def slow_background(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for box, logits, spots in zip(outputs["b"][i], outputs["s"][i], outputs["k"][i], strict=True):
            score, label = best(softmax(logits)[1:])
            points = tuple(v * (96, 64)[at % 2] for at, v in enumerate(spots))
            found.append((i, (box[0] * 96, box[1] * 64, box[2] * 96, box[3] * 64), score, label, points))
    return found


def slow_detr(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for (cx, cy, w, h), logits in zip(outputs["b"][i], outputs["logits"][i], strict=True):
            score, label = best(softmax(logits)[:-1])
            found.append((i, centred(cx * 96, cy * 64, w * 96, h * 64), score, label, ()))
    return found


def slow_focal(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        own: Found = []
        for (cx, cy, w, h), logits in zip(outputs["b"][i], outputs["logits"][i], strict=True):
            box = centred(cx * 96, cy * 64, w * 96, h * 64)
            own += [(i, box, sigmoid(logit), c, ()) for c, logit in enumerate(logits)]
        found += sorted(own, key=lambda one: -one[2])[: len(outputs["logits"][i])]
    return found


def slow_v5(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for row in outputs["o"][i]:
            score, label = best([row[4] * s for s in row[5:]])
            found.append((i, centred(*row[:4]), score, label, ()))
    return found


def slow_v5_face(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for row in outputs["o"][i]:
            score, label = best([row[4] * s for s in row[15:]])
            found.append((i, centred(*row[:4]), score, label, tuple(row[5:15])))
    return found


def slow_v8_pose(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for row in outputs["o"][i].T:
            score, label = best(row[4:-9])
            points = tuple(v for k in range(3) for v in row[-9:][3 * k : 3 * k + 2])
            found.append((i, centred(*row[:4]), score, label, points))
    return found


def slow_v8_seg(outputs: dict[str, Any], count: int) -> Found:
    return [(i, centred(*row[:4]), *best(row[4:-32]), ()) for i in range(count) for row in outputs["o"][i].T]


def slow_end_to_end(outputs: dict[str, Any], count: int) -> Found:
    return [(i, tuple(row[:4]), float(row[4]), int(row[5]), ()) for i in range(count) for row in outputs["o"][i]]


def slow_rows_pose(outputs: dict[str, Any], count: int) -> Found:
    return [
        (i, tuple(row[:4]), float(row[4]), int(row[5]), (row[6], row[7], row[9], row[10]))
        for i in range(count)
        for row in outputs["o"][i]
    ]


def slow_seven(outputs: dict[str, Any], count: int) -> Found:
    return [
        (int(row[0]), tuple(row[1:5]), float(row[6]), int(row[5]), ()) for row in outputs["o"] if 0 <= row[0] < count
    ]


def slow_output_layer(outputs: dict[str, Any], count: int) -> Found:
    del count
    return [
        (int(row[0]), (row[3] * 96, row[4] * 64, row[5] * 96, row[6] * 64), float(row[2]), int(row[1]), ())
        for row in outputs["o"][0, 0]
        if row[0] >= 0
    ]


def slow_yolox(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for (x, y, stride), row in zip(cells(), outputs["o"][i], strict=True):
            w, h = math.exp(row[2]) * stride, math.exp(row[3]) * stride
            score, label = best([row[4] * s for s in row[5:]])
            found.append((i, centred((row[0] + x) * stride, (row[1] + y) * stride, w, h), score, label, ()))
    return found


def slow_counted(outputs: dict[str, Any], count: int) -> Found:
    return [
        (i, tuple(outputs["b"][i, n]), float(outputs["s"][i, n]), int(outputs["c"][i, n]), ())
        for i in range(count)
        for n in range(int(outputs["n"].reshape(-1)[i]))
    ]


def slow_ssd(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for (px, py, pw, ph), d, logits in zip(PRIORS, outputs["b"][i], outputs["s"][i], strict=True):
            cx, cy = px + d[0] * 0.1 * pw, py + d[1] * 0.1 * ph
            w, h = pw * math.exp(d[2] * 0.2), ph * math.exp(d[3] * 0.2)
            box = centred(cx * 96, cy * 64, w * 96, h * 64)
            found += [(i, box, score, c, ()) for c, score in enumerate(softmax(logits)[1:])]
    return found


def slow_retina_face(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    squares = [
        (x, y, s, side)
        for s, sides in zip((8, 16, 32), SQUARES, strict=True)
        for x, y, _ in cells((s,))
        for side in sides
    ]
    for i in range(count):
        parts = zip(squares, outputs["b"][i], outputs["s"][i], outputs["k"][i], strict=True)
        for (x, y, s, side), d, scores, moved in parts:
            cx, cy = (x + 0.5) * s, (y + 0.5) * s
            w, h = side * math.exp(d[2] * 0.2), side * math.exp(d[3] * 0.2)
            points = tuple((cx, cy)[at % 2] + v * 0.1 * side for at, v in enumerate(moved))
            box = centred(cx + d[0] * 0.1 * side, cy + d[1] * 0.1 * side, w, h)
            found.append((i, box, float(scores[1]), 0, points))
    return found


def slow_yunet(outputs: dict[str, Any], count: int) -> Found:
    found: Found = []
    for i in range(count):
        for stride in (8, 16, 32):
            parts = [outputs[f"{part}_{stride}"][i] for part in ("cls", "obj", "bbox", "kps")]
            for (x, y, s), (cls,), (obj,), d, moved in zip(cells((stride,)), *parts, strict=True):
                score = math.sqrt(min(max(cls, 0), 1) * min(max(obj, 0), 1))
                box = centred((x + d[0]) * s, (y + d[1]) * s, math.exp(d[2]) * s, math.exp(d[3]) * s)
                points = tuple(((x, y)[at % 2] + v) * s for at, v in enumerate(moved))
                found.append((i, box, score, 0, points))
    return found


def slow_distances(outputs: dict[str, Any], count: int) -> Found:
    assert count == 1
    found: Found = []
    for stride in (8, 16, 32):
        parts = [outputs[f"{part}_{stride}"] for part in ("score", "bbox", "kps")]
        for (x, y, s), (score,), d, moved in zip(cells((stride,), 2), *parts, strict=True):
            box = (x * s - d[0] * s, y * s - d[1] * s, x * s + d[2] * s, y * s + d[3] * s)
            points = tuple((x * s, y * s)[at % 2] + v * s for at, v in enumerate(moved))
            found.append((0, box, float(score), 0, points))
    return found


# --- the outputs


def seven(rng: np.random.Generator, count: int, classes: int) -> dict[str, Any]:
    rows = 20 * count + 5
    image = rng.integers(-1, count, (rows, 1))
    table = [image, boxes(rng, rows), rng.integers(0, classes, (rows, 1)), uniform(rng, rows, 1)]
    return {"o": np.concatenate(table, 1).astype(np.float32)}


def output_layer(rng: np.random.Generator, count: int, classes: int) -> dict[str, Any]:
    rows = 20 * count
    image = np.sort(rng.integers(0, count, (rows, 1)), 0)
    image[-3:] = -1
    table = [image, rng.integers(0, classes, (rows, 1)), uniform(rng, rows, 1), uniform(rng, rows, 4)]
    return {"o": np.concatenate(table, 1).astype(np.float32)[None, None]}


def end_to_end(rng: np.random.Generator, count: int, classes: int, more: int = 0) -> dict[str, Any]:
    labels = rng.integers(0, classes, (count, 20, 1))
    table = [boxes(rng, count, 20), uniform(rng, count, 20, 1), labels, boxes(rng, count, 20, 5).reshape(count, 20, -1)]
    return {"o": np.concatenate(table, 2).astype(np.float32)[..., : 6 + more]}


def faces(rng: np.random.Generator, count: int, classes: int) -> dict[str, Any]:
    del classes
    widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    sizes = {stride: len(cells((stride,))) for stride in (8, 16, 32)}
    return {
        f"{part}_{stride}": (normal(rng, count, cells_, width) * 0.5 + (0.5 if width == 1 else 0)).astype(np.float32)
        for part, width in widths.items()
        for stride, cells_ in sizes.items()
    }


def distances(rng: np.random.Generator, count: int, classes: int) -> dict[str, Any]:
    del count, classes
    return {
        f"{part}_{stride}": uniform(rng, len(cells((stride,), 2)), width)
        for part, width in {"score": 1, "bbox": 4, "kps": 10}.items()
        for stride in (8, 16, 32)
    }


def rows(rng: np.random.Generator, count: int, *parts: Any) -> dict[str, Any]:
    return {"o": np.concatenate([boxes(rng, count, 25), *parts], 2)}


def turned(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.ascontiguousarray(found.transpose(0, 2, 1)) for name, found in outputs.items()}


CASES = {
    "lists": Case(
        lambda r, b, c: {
            f"{part}{i}": value
            for i in range(b)
            for part, value in (("b", boxes(r, 9 + i)), ("s", uniform(r, 9 + i)), ("l", r.integers(0, c, 9 + i)))
        },
        lambda o, conf, _: listed_boxes.candidates(o, SIZE, conf),
        slow_lists,
    ),
    "boxes with labels": Case(
        lambda r, b, c: {"b": uniform(r, b, 9, 4), "s": uniform(r, b, 9), "l": r.integers(0, c, (b, 9))},
        lambda o, conf, _: scored_boxes.candidates(o, SIZE, conf, style="cxcywh", relative=True),
        slow_relative_labels,
    ),
    "boxes with logits": Case(
        lambda r, b, c: {"b": boxes(r, b, 9, 1), "s": normal(r, b, 9, c) + 0.5},
        lambda o, conf, _: scored_boxes.candidates(o, SIZE, conf, style="yxyx", activation="sigmoid", every=True),
        slow_every_sigmoid,
    ),
    "boxes with a background": Case(
        lambda r, b, c: {"b": uniform(r, b, 9, 4), "s": 2 * normal(r, b, 9, c + 1), "k": uniform(r, b, 9, 6)},
        lambda o, conf, _: scored_boxes.candidates(
            o, SIZE, conf, relative=True, activation="softmax", background="first", landmarks=True
        ),
        slow_background,
        spoilt="k",
    ),
    "detr": Case(
        lambda r, b, c: {"logits": 3 * normal(r, b, 12, c + 1), "b": uniform(r, b, 12, 4)},
        lambda o, conf, _: detr_queries.candidates(o, SIZE, conf, activation="softmax"),
        slow_detr,
    ),
    "detr, sigmoid": Case(
        lambda r, b, c: {"logits": normal(r, b, 12, c) + 1, "b": uniform(r, b, 12, 4)},
        lambda o, conf, _: detr_queries.candidates(o, SIZE, conf, activation="sigmoid"),
        slow_focal,
    ),
    "yolo v5": Case(
        lambda r, b, c: rows(r, b, uniform(r, b, 25, 1) ** 0.2, uniform(r, b, 25, c)),
        lambda o, conf, _: yolo_boxes.candidates(o, SIZE, conf, row=V5, channels_first=False),
        slow_v5,
    ),
    "yolo v5 of faces": Case(
        lambda r, b, c: rows(r, b, uniform(r, b, 25, 1) ** 0.2, 60 * uniform(r, b, 25, 10), uniform(r, b, 25, c)),
        lambda o, conf, _: yolo_boxes.candidates(o, SIZE, conf, row=FACE, channels_first=False),
        slow_v5_face,
    ),
    "yolo v8 pose": Case(
        lambda r, b, c: turned(rows(r, b, uniform(r, b, 25, c), 60 * uniform(r, b, 25, 9))),
        lambda o, conf, _: yolo_boxes.candidates(o, SIZE, conf, row=YoloRow(landmarks=3), channels_first=True),
        slow_v8_pose,
    ),
    "yolo v8 seg": Case(
        lambda r, b, c: turned(rows(r, b, uniform(r, b, 25, c), normal(r, b, 25, 32))),
        lambda o, conf, _: yolo_boxes.candidates(o, SIZE, conf, row=YoloRow(coefficients=32), channels_first=True),
        slow_v8_seg,
    ),
    "yolo v10": Case(end_to_end, lambda o, conf, b: box_rows.candidates(o, SIZE, conf, count=b), slow_end_to_end),
    "yolo 26 pose": Case(
        lambda r, b, c: end_to_end(r, b, c, 6),
        lambda o, conf, b: box_rows.candidates(o, SIZE, conf, count=b, landmarks=2),
        slow_rows_pose,
    ),
    "yolo v7 with NMS": Case(
        seven,
        lambda o, conf, b: box_rows.candidates(o, SIZE, conf, count=b, columns=("image", "box", "class", "score")),
        slow_seven,
    ),
    "DetectionOutput": Case(
        output_layer,
        lambda o, conf, b: box_rows.candidates(
            o, SIZE, conf, count=b, columns=("image", "class", "score", "box"), relative=True
        ),
        slow_output_layer,
    ),
    "yolox": Case(
        lambda r, b, c: {
            "o": np.concatenate([normal(r, b, 126, 4), uniform(r, b, 126, 1) ** 0.2, uniform(r, b, 126, c)], 2).astype(
                np.float32
            )
        },
        lambda o, conf, _: yolox_cells.candidates(o, SIZE, conf),
        slow_yolox,
    ),
    "counted": Case(
        lambda r, b, c: {
            "n": r.integers(2, 9, (b, 1)).astype(np.int32),
            "b": boxes(r, b, 9),
            "s": uniform(r, b, 9),
            "c": r.integers(0, c, (b, 9)).astype(np.int32),
        },
        lambda o, conf, _: counted_boxes.candidates(o, SIZE, conf),
        slow_counted,
        spoilt="b",
    ),
    "ssd": Case(
        lambda r, b, c: {"b": normal(r, b, 30, 4), "s": 3 * normal(r, b, 30, c + 1)},
        lambda o, conf, _: prior_boxes.candidates(o, SIZE, conf, priors=torch.from_numpy(PRIORS)),
        slow_ssd,
    ),
    "ssd, priors in the file": Case(
        lambda r, b, c: {"b": normal(r, b, 30, 4), "s": 3 * normal(r, b, 30, c + 1), "p": PRIORS[None]},
        lambda o, conf, _: prior_boxes.candidates(o, SIZE, conf),
        slow_ssd,
    ),
    "retinaface": Case(
        lambda r, b, _: {
            "b": normal(r, b, 252, 4),
            "s": uniform(r, b, 252, 2),
            "k": normal(r, b, 252, 10),
        },
        lambda o, conf, _: prior_boxes.candidates(
            o,
            SIZE,
            conf,
            priors=prior_boxes.face_priors(SIZE, (8, 16, 32), SQUARES, torch.device("cpu")),
            activation="none",
            landmarks=True,
        ),
        slow_retina_face,
    ),
    "yunet": Case(faces, lambda o, conf, _: yunet_cells.candidates(o, SIZE, conf), slow_yunet, spoilt="kps_16"),
    "scrfd": Case(distances, lambda o, conf, _: distance_cells.candidates(o, SIZE, conf), slow_distances),
}
