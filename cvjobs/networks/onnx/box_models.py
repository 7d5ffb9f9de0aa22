"""ONNX files that detect: the head that was recognised, how pictures get into the input, and the rules by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.networks import class_names
from cvjobs.networks.detection.detector_network import DetectorNetwork, Masks
from cvjobs.networks.detection.framing import Framing, Size
from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.detection.settings import Rules, Settings, chosen
from cvjobs.networks.onnx import box_heads, onnx_model
from cvjobs.networks.onnx.box_heads import FACE_POINTS
from cvjobs.networks.onnx.card_framing import CardFraming
from cvjobs.networks.onnx.onnx_model import GREYS, IMAGENET, PLAIN, OnnxModel
from cvjobs.networks.onnx.recognition import FACES, STRIDES, Recognised, recognised
from cvjobs.networks.onnx.session import ImageInput, Session

SIDE = 640  # in pixels, where neither the file nor the card says one
MERGING = 0.5  # the IoU by which tiles and second looks saw one object, of a head that needs no NMS
_KEYS = (
    *("size", "resize", "rounding", "padding", "place", "fill", "interpolation", "antialias", "channels"),
    *("scale", "mean", "std", "nms"),
)
_YOLO = {"resize": "letterbox", "place": "centre", "fill": 114.0, "antialias": False, **PLAIN}
_CORNER = {"resize": "letterbox", "place": "corner", "fill": 0.0, "antialias": False}
# What a kind's own programs do to pictures, and the rules that they have.
_USUAL: dict[str, dict[str, Any]] = {
    "torchvision": {"resize": "keep", **PLAIN, "nms": "inside", "conf": 0.05},
    "boxes": {"resize": "squash", **PLAIN, "iou": 0.45},
    "detr": {"resize": "squash", "nms": "inside", "conf": 0.3},
    "nms": {**_YOLO, "nms": "inside"},
    "rows": {**_YOLO, "nms": "inside"},
    "yolov5": {**_YOLO, "iou": 0.45},
    "yolov8": {**_YOLO, "iou": 0.7},
    "yolov10": {**_YOLO, "nms": "inside"},
    "yolox": {**_YOLO, "place": "corner", "channels": "BGR", **GREYS, "iou": 0.45},
    "ssd": {"resize": "squash", **PLAIN, "iou": 0.45},
    "retinaface": {**_CORNER, "channels": "BGR", **GREYS, "mean": (104.0, 117.0, 123.0), "fill": None, "iou": 0.4},
    "scrfd": {**_CORNER, **GREYS, "mean": (127.5,) * 3, "std": (128.0,) * 3, "conf": 0.5, "iou": 0.4},
    "yunet": {**_CORNER, "channels": "BGR", **GREYS, "conf": 0.6, "iou": 0.3},
}


@dataclass(frozen=True, kw_only=True)
class OnnxDetector:
    """An ONNX file as a detector, with its masks where they are asked for."""

    model: OnnxModel = field(repr=False)
    head: Recognised
    resolved: Mapping[str, Any]
    categories: list[Category]
    rules: Rules
    landmarks: tuple[str, ...] = ()
    masks: Masks = ""

    @property
    def name(self) -> str:
        """See ``Model``."""
        return self.model.name

    @property
    def file(self) -> str:
        """See ``Model``."""
        return str(self.model.file.path)

    @property
    def beside(self) -> tuple[str, ...]:
        """See ``OnnxModel``."""
        return self.model.beside

    @property
    def transform(self) -> Any:
        """See ``Model``: pictures come in their own size, and the framing makes the model's of it."""
        return self.model.transform(self.resolved, fit="native")

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``Model``."""
        task = common_categories.facts("instance" if self.masks else "detect", self.categories)
        points = {"landmarks": list(self.landmarks)} if self.landmarks and not self.masks else {}
        return {**self.model.facts(self.resolved), **task, **self.rules.facts, **points}

    def ruled(self, settings: Settings) -> OnnxDetector:
        """Return the detector as a user wants it; raises WrongUse for what it cannot do."""
        if settings.imgsz and self.resolved["resize"] == "keep":
            raise WrongUse(f"{self.name} takes pictures in their own size: leave out --imgsz.")
        return replace(self, rules=chosen(settings, self.rules, self.categories, self.name))

    @property
    def framing(self) -> CardFraming:
        """How pictures get into the input."""
        values = self.resolved
        return CardFraming(
            resize=values["resize"],
            centred=values["place"] == "centre",
            fill=values["fill"],
            interpolation=values["interpolation"],
            antialias=values["antialias"],
            bgr=values["channels"] == "BGR",
            down=values["rounding"] == "down",
            inside=values["padding"] == "inside" and not self.model.taken.size,
            multiple=1
            if self.head.kind == "torchvision" or values["resize"] == "squash"
            else max(self.head.options.get("strides", STRIDES)),
        )

    def load(self, device: str, precision: str) -> DetectorNetwork:
        """Return the model on a device; the file says in what it computes."""
        del precision
        taken = self.model.taken
        if box_heads.alone(self.head):
            taken = replace(taken, batch=1)
        architecture = OnnxArchitecture(self.model.on(device), taken, self.head, self.framing, bool(self.masks))
        return DetectorNetwork(
            architecture,
            self.transform,
            self.rules,
            [category.id for category in self.categories],
            masks=self.masks,
            framing=self.framing,
            merging=MERGING if self.rules.iou >= 1 else None,
        )


class OnnxArchitecture:
    """See ``Architecture``. Whatever the device of the session, tensors are on the CPU before and after."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, session: Session, taken: ImageInput, head: Recognised, framing: Framing, masks: bool) -> None:
        self._session, self._taken, self._head = session, taken, head
        self._framing, self._masks = framing, masks

    def candidates(self, images: Tensor, sizes: list[Size], conf: float) -> tuple[Candidates, dict[str, Tensor]]:
        """See ``Architecture``."""
        del sizes
        size = (images.shape[2], images.shape[3])
        found, masks, done = [], [], 0
        each = () if box_heads.alone(self._head) else box_heads.of_each(self._head, self._masks)
        for count, outputs in self._session.pieces(images, self._taken, each):
            run = self._taken.batch or count
            some = box_heads.candidates(self._head, outputs, size, conf, run)
            rows = some.only(some.image < count)
            found.append(replace(rows, image=rows.image + done, finite=some.finite[:count]))
            if self._masks:
                masks.append(box_heads.mask_features(self._head, outputs, count))
            done += count
        return _joined(found), {**box_heads.joined(masks), "canvas": torch.tensor(size)}

    def masks(self, features: dict[str, Tensor], found: list[Candidates], sizes: list[Size]) -> Tensor:
        """See ``Architecture``: values in cells of each image, above 0 on the object."""
        height, width = features["canvas"].tolist()
        places = [(*self._framing.origin(size, (height, width)), *size) for size in sizes]
        return box_heads.masks(self._head, features, found, places, (height, width))


def _joined(found: Sequence[Candidates]) -> Candidates:
    if len(found) == 1:
        return found[0]
    parts = {name: [vars(some)[name] for some in found] for name, part in vars(found[0]).items() if part is not None}
    return replace(found[0], **{name: torch.cat(each) for name, each in parts.items()})


def detector(name: str, weights: str, labels: Sequence[str], masks: bool = False) -> OnnxDetector:
    """Return a file as a detector with the classes in ``labels``, or those that it, its card or its kind names.

    Raises:
        WrongUse: see ``onnx_model.opened`` and ``recognised``; classes without names; no masks where they are wanted.
    """
    model = onnx_model.opened(name, weights, "instance", *([] if masks else ["detect"]))
    return of_model(model, labels, masks=masks)


def of_model(model: OnnxModel, labels: Sequence[str], *, masks: bool) -> OnnxDetector:
    """Return an opened file as a detector; arguments and errors as for ``detector``."""
    said = model.card.get("labels", ())
    head = recognised(model, len(labels or said))
    if masks and not head.masks:
        raise WrongUse(f"{model.file.path} finds boxes without masks that cvjobs knows: give it to `cvjobs detect`.")
    values = _resolved(model, head)
    face = FACE_POINTS if head.kind in FACES and head.options.get("landmarks", True) else ()
    usual = _USUAL[head.kind]
    side = model.side or SIDE
    height, width = values["size"] if isinstance(values["size"], tuple) else (side, side)
    rules = Rules(
        conf=model.card.get("conf", usual.get("conf", 0.25)),
        iou=1.0 if values["nms"] == "inside" else model.card.get("iou", usual.get("iou", 0.5)),
        max_det=model.card.get("max_det", 300),
        short=height,
        long=width,
        fixed=isinstance(values["size"], tuple),
    )
    return OnnxDetector(
        model=model,
        head=head,
        resolved={**values, "output": head.kind, "outputs": head.outputs, **head.options},
        categories=_categories(model, head, labels),
        rules=rules,
        landmarks=model.card.get("landmarks", face),
        masks="image" if masks else "",
    )


def _resolved(model: OnnxModel, head: Recognised) -> dict[str, Any]:
    usual = _USUAL[head.kind]
    if head.kind == "detr":  # RT-DETR's kin take plain values, DETR and RF-DETR's ImageNet's
        plain = head.options["activation"] == "sigmoid" and head.outputs[1] != "dets"
        usual = {**usual, **(PLAIN if plain else IMAGENET)}
    if head.kind == "rows" and len(head.outputs) > 1:  # most of MMDetection's
        usual = {**usual, **_CORNER, **IMAGENET, "fill": None}
    if head.kind == "boxes" and len(head.outputs) > 2 and head.classes is None:
        usual = {**usual, "nms": "inside"}
    if usual["resize"] == "keep" and model.size:  # exported in one size
        usual = {**usual, "resize": "squash"}
    if head.options.get("style") == "yxyx":  # TensorFlow's
        usual = {**usual, "resize": "squash", "fill": None}
    default = {
        "place": "corner",
        "fill": None,
        "interpolation": "bilinear",
        "antialias": usual["resize"] == "squash",
        "channels": "RGB",
        "nms": "outside",
        **usual,
        **({"scale": 255.0, "mean": (0.0,) * 3, "std": (1.0,) * 3} if model.taken.kind == "uint8" else {}),
    }
    values = onnx_model.resolved(model.card, _KEYS, default)
    values["size"] = None if values["resize"] == "keep" else model.size
    if values["resize"] == "keep" and model.size:
        raise WrongUse(
            f"{model.file.path} takes pictures of one size only: write resize: squash into {model.card.file}."
        )
    if values["resize"] in ("crop", "shrink") or values["interpolation"] == "lanczos":
        key = "resize" if values["resize"] in ("crop", "shrink") else "interpolation"
        raise WrongUse(f"{model.card.file} says {key}: {values[key]}, which detectors do not have: write another.")
    if not model.size and not model.side and values["resize"] != "keep":
        values["size"] = SIDE
    elif model.side and not model.size:
        values["size"] = model.side
    return values


def _categories(model: OnnxModel, head: Recognised, given: Sequence[str]) -> list[Category]:
    said = model.card.get("labels", ())
    if isinstance(said, Mapping) and not given:
        if head.classes is not None and max(said) >= head.first + head.classes:
            raise WrongUse(
                f"{model.card.file} has a label of the number {max(said)}, and there are {head.classes} classes."
            )
        return [Category(number, name) for number, name in said.items()]
    names = list(given or said)
    if head.kind in FACES and not names:
        return [Category(0, "face")]
    coco = class_names.coco()
    if not names and head.classes == len(coco):  # by COCO's own numbers
        return [Category(number, name) for number, name in enumerate(coco) if name not in class_names.NONE]
    if not names and head.classes is None:
        raise model.card.ask(
            model.file.path, "the names of its classes", "labels", "a list of names, or a file of them"
        )
    things = [name for name in coco if name not in class_names.NONE]
    published = things if head.classes == len(things) else []
    classes = head.classes if head.classes is not None else len(names)
    by = "--labels" if given else str(model.card.file)
    named = class_names.for_head(classes, names, published, str(model.file.path), by)
    return [Category(number, name) for number, name in enumerate(named, head.first)]


def shown(values: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Return values as people read them, without those that are not there."""
    return [(key, _words(value)) for key, value in values if value is not None and value not in ("", ())]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(_words(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
