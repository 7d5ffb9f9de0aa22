"""Which kind of detector the outputs of an ONNX file are of: by the card, else by their names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.networks.onnx.card import KINDS
from cvjobs.networks.onnx.heads.yunet_cells import PARTS
from cvjobs.networks.onnx.onnx_model import OnnxModel, listed

STRIDES = (8, 16, 32)
FACES = ("yunet", "retinaface", "scrfd")
QUERIES = 1000  # most rows of a head whose boxes need no NMS
LEAST = 5  # numbers of a row: a box and a class
PAIR = 2  # sides of the squares in a cell of RetinaFace and SCRFD
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recognised:
    """A kind of head, its outputs by name in the order that the head asks for, and what else the head is told.

    ``classes`` is how many it has, None where the outputs do not say; ``first`` is the number of the first one.
    ``masks`` is the output with masks or their prototypes, empty where there is none.
    """

    kind: str
    outputs: tuple[str, ...]
    classes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    masks: str = ""
    first: int = 0


class Look:
    """A model's outputs as they are looked at: what it is tried for is only done where a look needs it."""

    def __init__(self, model: OnnxModel, labels: int) -> None:
        """``labels`` is how many names of classes there are, 0 where they are not known."""
        self.model, self.card, self.labels = model, model.card, labels
        self.names = [value.name for value in model.file.outputs]
        self.ranks = {value.name: len(value.shape) for value in model.file.outputs}
        self.kinds = {value.name: value.kind for value in model.file.outputs}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the outputs for an image."""
        return self.model.shapes("detect")

    @cached_property
    def said(self) -> dict[str, Tensor]:
        """The outputs for an image of noise."""
        return {name: found.float() for name, found in self.model.tried("detect").items()}

    @cached_property
    def size(self) -> tuple[int, int]:
        """The (height, width) that it is looked at with."""
        return self.model.tried_size("detect")

    @property
    def landmarks(self) -> int:
        """How many points the card names."""
        return len(self.card.get("landmarks", ()))

    def role(self, role: str, *hints: str, rank: int = 0) -> str:
        """Return the output that the card names for a role, else the first with a hint in its name; or empty."""
        fitting = [name for name in self.names if not rank or self.ranks[name] in (rank, 0)]
        hinted = [name for hint in hints for name in fitting if hint in name.lower()]
        return self.model.named(role) or next(iter(hinted), "")

    def cells(self, *, strides: Sequence[int] = STRIDES) -> int:
        """Return how many cells the grids of an input have."""
        return sum(math.ceil(self.size[0] / stride) * math.ceil(self.size[1] / stride) for stride in strides)


def recognised(model: OnnxModel, labels: int) -> Recognised:
    """Return the kind of a model's head; ``labels`` is how many names of classes there are, 0 if that is not known.

    Raises:
        WrongUse: the outputs are of no kind, or not of the one that the card says, or the card must say more.
    """
    look = Look(model, labels)
    said = model.card.get("output", "")
    if said and said not in KINDS["detect"]:
        raise WrongUse(f"{model.card.file} says output: {said}, which is no detector's: write one of {_choices()}.")
    for kind, of in _KINDS.items():
        if said in ("", kind) and (found := of(look, bool(said))):
            return found
    what = f"are not those of {said}" if said else "tell cvjobs of no kind of detector"
    raise WrongUse(
        f"The outputs of {model.file.path} {what}: it has {listed(model.file.outputs)}; write `output:` with one of "
        f"{_choices()}, and `outputs:` with what each is, into {model.card.file}."
    )


def _choices() -> str:
    return ", ".join(KINDS["detect"])


def _yunet(look: Look, asked: bool) -> Recognised | None:
    del asked
    found = [re.fullmatch(r"(\w+?)_(\d+)", name) for name in look.names]
    strides = sorted({int(match[2]) for match in found if match and match[1] in PARTS})
    names = tuple(f"{part}_{stride}" for part in PARTS for stride in strides)
    if not strides or not set(names) <= set(look.names):
        return None
    return Recognised("yunet", names, 1, {"strides": tuple(strides)})


def _counted(look: Look, asked: bool) -> Recognised | None:
    del asked
    counts, boxes = look.role("num_dets", "num_det", "num"), look.role("boxes", "box")
    scores, classes = look.role("scores", "score"), look.role("classes", "class", "label", "cls")
    names = (counts, boxes, scores, classes)
    if "" in names or len(set(names)) < len(names):
        return None
    theirs = boxes.startswith("detection_")  # TensorFlow's
    style = look.card.get("boxes", "yxyx" if theirs else "xyxy")
    options = {"style": style, "relative": look.card.get("relative", theirs)}
    return Recognised("nms", names, None, options, first=int(theirs))


def _torchvision(look: Look, asked: bool) -> Recognised | None:
    if look.model.taken.batch != 1:
        return None
    ranked = {rank: [name for name in look.names if look.ranks[name] == rank] for rank in (1, 2, 4)}
    labels = [name for name in ranked[1] if look.kinds[name] in ("int64", "int32")]
    scores = [name for name in ranked[1] if name not in labels]
    names = (
        look.model.named("boxes") or next(iter(ranked[2]), ""),
        look.model.named("scores") or next(iter(scores), ""),
        look.model.named("labels") or next(iter(labels), ""),
    )
    alone = len(ranked[2]) == len(scores) == len(labels) == 1
    if "" in names or not (alone or asked):
        return None
    options = {"style": look.card.get("boxes", "xyxy"), "relative": look.card.get("relative", False)}
    masks = look.model.named("masks") or next(iter(ranked[4]), "")
    return Recognised("torchvision", names, None, options, masks=masks, first=1)


def _scrfd(look: Look, asked: bool) -> Recognised | None:
    del asked
    if len(look.names) not in (6, 9):
        return None
    by_width: dict[int, list[str]] = {}
    for name, shape in sorted(look.shapes.items(), key=lambda entry: -math.prod(entry[1][:-1])):
        by_width.setdefault(shape[-1], []).append(name)
    if set(by_width) not in ({1, 4}, {1, 4, 10}) or {len(names) for names in by_width.values()} != {len(STRIDES)}:
        return None
    rows = sum(math.prod(look.shapes[name][:-1]) for name in by_width[1])
    names = tuple(name for width in sorted(by_width) for name in by_width[width])
    return Recognised("scrfd", names, 1, {"each": max(rows // look.cells(), 1), "landmarks": 10 in by_width})


def _detr(look: Look, asked: bool) -> Recognised | None:
    boxes = look.role("boxes", "pred_boxes", "dets", "boxes")
    logits = look.role("logits", "logit") or (look.role("labels", "labels") if boxes == "dets" or asked else "")
    if not logits or not boxes or len(look.shapes[logits]) != 3 or len(look.shapes[boxes]) != 3:
        return None
    _, queries, classes = look.shapes[logits]
    # RT-DETR and its kin have 300 queries, DETR and YOLOS 100 and one class more for nothing.
    usual = "sigmoid" if boxes == "dets" or queries == 300 else "softmax" if queries == 100 else ""
    activation = look.card.get("activation", usual)
    if activation not in ("sigmoid", "softmax"):
        told = "whether its queries have one class each or several"
        raise look.card.ask(look.model.file.path, told, "activation", "softmax or sigmoid")
    options = {
        "activation": activation,
        "style": look.card.get("boxes", "cxcywh"),
        "relative": look.card.get("relative", True),
    }
    planes = [name for name in look.names if len(look.shapes[name]) == 4 and look.shapes[name][1] == queries]
    masks = look.model.named("masks") or next(iter(planes), "")
    return Recognised("detr", (logits, boxes), classes - (activation == "softmax"), options, masks=masks)


def _retinaface(look: Look, asked: bool) -> Recognised | None:
    del asked
    by_width = {shape[-1]: name for name, shape in look.shapes.items() if len(shape) == 3}
    if set(by_width) != {2, 4, 10} or look.shapes[by_width[4]][1] != PAIR * look.cells():
        return None
    activation = "none" if look.model.file.ends[by_width[2]] == "Softmax" else "softmax"
    names = (by_width[4], by_width[2], by_width[10])
    return Recognised("retinaface", names, 1, {"activation": activation, "landmarks": True})


def _rows(look: Look, asked: bool) -> Recognised | None:
    if found := _table_and_labels(look):
        return found
    name = look.role("rows") or next((each for each in look.names if look.ranks[each] in (2, 4)), "")
    if not name and asked:
        name = look.names[0]
    if not name or (len(look.names) > PAIR and not asked):
        return None
    shape = look.shapes[name]
    usual: dict[tuple[int, int], tuple[str, ...]] = {
        (2, 7): ("image", "box", "class", "score"),  # YOLOv7 with NMS inside
        (4, 7): ("image", "class", "score", "box"),  # DetectionOutput
        (2, 6): ("class", "score", "box"),  # PaddleDetection
    }
    columns = look.card.get("columns", usual.get((len(shape), shape[-1]), ("box", "score", "class") if asked else ()))
    if not columns or (len(shape) == 4 and shape[:2] != (1, 1)):
        return None
    relative = look.card.get("relative", len(shape) == 4)
    options = {"columns": columns, "relative": relative, "style": look.card.get("boxes", "xyxy")}
    return Recognised("rows", (name,), None, options)


def _table_and_labels(look: Look) -> Recognised | None:
    """Return what is of MMDetection: boxes with their scores (B, N, 5), and whole numbers (B, N)."""
    tables, labels = look.role("rows", "dets", rank=3), look.role("labels", "labels", rank=2)
    if not tables or not labels or not look.kinds[labels].startswith("int") or look.shapes[tables][-1] != LEAST:
        return None
    options = {
        "columns": ("box", "score", "class"),
        "relative": look.card.get("relative", False),
        "style": look.card.get("boxes", "xyxy"),
    }
    return Recognised("rows", (tables, labels), None, options)


def _yolo(look: Look, kind: str, asked: bool) -> Recognised | None:
    name = look.role("rows") or next((each for each in look.names if len(look.shapes[each]) == 3), "")
    if not name or sum(len(shape) == 3 for shape in look.shapes.values()) > 1 + 3 * asked:
        return None
    masks = look.role("protos") or next((each for each in look.names if len(look.shapes[each]) == 4), "")
    coefficients = look.shapes[masks][1] if masks else 0
    _, first, last = look.shapes[name]
    strides = look.card.get("strides", STRIDES)
    cells = look.cells(strides=strides)
    kinds = {
        "yolov8": last == cells or (first == cells and last == 4 + look.labels + coefficients > 4 + coefficients),
        "yolox": first == cells,
        "yolov5": first == 3 * cells,
        "yolov10": first <= QUERIES and last == 6 + coefficients + 3 * look.landmarks,
    }
    if not asked and next((each for each, fits in kinds.items() if fits), "") != kind:
        return None
    if not asked and min(first, last) < LEAST:
        return None
    if kind == "yolov10":
        options = {"landmarks": look.landmarks, "coefficients": coefficients}
        return Recognised(kind, (name,), None, options, masks=masks)
    objectness, channels_first = kind != "yolov8", kind == "yolov8" and first != cells and first < last
    row = first if channels_first else last
    before, points = 4 + objectness, look.landmarks
    values = (row - before - coefficients - look.labels) // points if points and look.labels else 3
    classes = row - before - coefficients - points * values
    if kind == "yolox" and not _decoded(look, name):
        return Recognised(kind, (name,), classes, {"strides": strides})
    options = {
        "objectness": objectness,
        "channels_first": channels_first,
        "landmarks": points,
        "values": values,
        "coefficients": coefficients,
    }
    return Recognised(kind, (name,), classes, options, masks=masks)


def _decoded(look: Look, name: str) -> bool:
    """Whether the centres of YOLOX's boxes are in pixels: then they are all over the input."""
    return float(look.said[name][..., 0].abs().median()) > look.size[1] / STRIDES[0]


def _of_yolo(kind: str) -> Callable[[Look, bool], Recognised | None]:
    return lambda look, asked: _yolo(look, kind, asked)


def _ssd(look: Look, asked: bool) -> Recognised | None:
    if not asked:
        return None
    boxes, scores = look.role("boxes", "box", "loc"), look.role("scores", "score", "conf")
    landmarks, priors = look.role("landmarks", "landm"), look.role("priors", "prior", "anchor")
    if not boxes or not scores or not priors:
        return None
    options = {
        "relative": look.card.get("relative", True),
        "activation": look.card.get("activation", "none" if look.model.file.ends[scores] == "Softmax" else "softmax"),
        "background": _background(look, "first"),
        "landmarks": bool(landmarks),
    }
    names = tuple(name for name in (boxes, scores, landmarks, priors) if name)
    return Recognised("ssd", names, look.shapes[scores][2] - bool(options["background"]), options)


def _boxes(look: Look, asked: bool) -> Recognised | None:
    del asked
    shapes = look.shapes
    boxes = look.model.named("boxes") or next((name for name in look.names if _are_boxes(shapes[name])), "")
    rest = [name for name in look.names if name != boxes and len(shapes[name]) in (2, 3)] if boxes else []
    rest = [name for name in rest if shapes[name][1] == shapes[boxes][1]]
    whole = [name for name in rest if len(shapes[name]) == 2 and look.kinds[name].startswith("int")]
    labels = look.model.named("labels") or next(iter(whole), "")
    rest = [name for name in rest if name != labels]
    scores = look.model.named("scores") or next((name for name in rest if "score" in name.lower()), "")
    scores = scores or next(iter(rest), "")
    landmarks = look.role("landmarks", "landm", "keypoint", "kps")
    if not boxes or not scores or scores in (labels, boxes):
        return None
    many = len(shapes[scores]) == 3
    end = look.model.file.ends[scores]
    likely = look.said[scores]
    known = likely.numel() > 0 and 0 <= float(likely.min()) <= float(likely.max()) <= 1
    activation = look.card.get("activation", "none" if labels or known else "")
    if not activation:
        told = "what makes its scores probabilities"
        raise look.card.ask(look.model.file.path, told, "activation", "none, softmax or sigmoid")
    softmax = end == "Softmax" or activation == "softmax"
    background = _background(look, "first" if softmax and many and shapes[scores][2] != look.labels else "none")
    corners = look.said[boxes].reshape(-1, 4)
    likely_corners = len(corners) > 0 and bool((corners[:, 2:] >= corners[:, :2]).all())
    style = look.card.get("boxes", "xyxy" if labels or likely_corners else "")
    if not style:
        raise look.card.ask(look.model.file.path, "what the numbers of a box are", "boxes", "xyxy, xywh or cxcywh")
    relative = look.card.get("relative", None)
    if relative is None and len(corners):
        relative = bool(corners.abs().max() <= PAIR)
    elif relative is None and not look.model.taken.sizes:  # which boxes in pixels are for
        told = "whether its boxes are shares of the input's sides, for it finds nothing in noise"
        raise look.card.ask(look.model.file.path, told, "relative", "true or false")
    options = {
        "style": style,
        "relative": bool(relative),
        "activation": activation,
        "background": background,
        "landmarks": bool(landmarks),
    }
    classes = None if labels else (shapes[scores][2] - bool(background) if many else 1)
    names = tuple(name for name in (boxes, scores, labels, landmarks) if name)
    return Recognised("boxes", names, classes, options)


def _are_boxes(shape: Shape) -> bool:
    return shape[-1] == 4 and (len(shape) == 3 or (len(shape) == 4 and shape[2] == 1))


def _background(look: Look, usual: str) -> str:
    said: str = look.card.get("background", usual)
    return "" if said == "none" else said


# In the order in which they are looked for: the first ones are told by names, without trying the model.
_KINDS: dict[str, Callable[[Look, bool], Recognised | None]] = {
    "yunet": _yunet,
    "nms": _counted,
    "torchvision": _torchvision,
    "scrfd": _scrfd,
    "detr": _detr,
    "retinaface": _retinaface,
    "rows": _rows,
    "yolov8": _of_yolo("yolov8"),
    "yolox": _of_yolo("yolox"),
    "yolov5": _of_yolo("yolov5"),
    "yolov10": _of_yolo("yolov10"),
    "ssd": _ssd,
    "boxes": _boxes,
}
