"""From the outputs of an ONNX detector to candidates and masks, by the head that was recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    proto_masks,
    scored_boxes,
    yolo_boxes,
    yolox_cells,
    yunet_cells,
)
from cvjobs.networks.onnx.heads.proto_masks import Place
from cvjobs.networks.onnx.heads.yolo_boxes import YoloRow
from cvjobs.networks.onnx.recognition import STRIDES, Recognised

FACE_POINTS = yunet_cells.LANDMARKS
# The squares in pixels of a cell of RetinaFace, by stride.
_SQUARES = ((16, 32), (64, 128), (256, 512))
Size = tuple[int, int]

_HEADS: dict[str, Callable[..., Candidates]] = {
    "torchvision": listed_boxes.candidates,
    "boxes": scored_boxes.candidates,
    "detr": detr_queries.candidates,
    "nms": counted_boxes.candidates,
    "rows": box_rows.candidates,
    "yolov5": yolo_boxes.candidates,
    "yolov8": yolo_boxes.candidates,
    "yolov10": box_rows.candidates,
    "yolox": yolox_cells.candidates,
    "ssd": prior_boxes.candidates,
    "retinaface": prior_boxes.candidates,
    "scrfd": distance_cells.candidates,
    "yunet": yunet_cells.candidates,
}


def alone(head: Recognised) -> bool:
    """Whether the outputs are about one image, however many the input takes."""
    table = head.kind == "rows" and "image" not in head.options["columns"] and len(head.outputs) == 1
    return head.kind == "torchvision" or table


def of_each(head: Recognised, masks: bool) -> tuple[str, ...]:
    """Return the outputs that have a row for each image of a batch."""
    if "image" in head.options.get("columns", ()):
        return ()
    names = head.outputs[:-1] if head.kind == "ssd" else head.outputs  # the last ones are its priors
    return (*names, head.masks) if masks else names


def candidates(head: Recognised, outputs: Mapping[str, Tensor], size: Size, conf: float, count: int) -> Candidates:
    """Return the candidates of ``count`` images; ``size`` is the (height, width) of the input."""
    wanted = {name: outputs[name] for name in head.outputs}
    options: dict[str, Any] = dict(head.options)
    found = _HEADS[head.kind]
    if "objectness" in options:  # also YOLOX's that is decoded
        first = options.pop("channels_first")
        return yolo_boxes.candidates(wanted, size, conf, row=YoloRow(**options), channels_first=first)
    if found is box_rows.candidates:
        if head.kind == "rows" and len(wanted) > 1:
            table, classes = wanted.values()
            wanted = {head.outputs[0]: torch.cat([table, classes[..., None].to(table)], -1)}
        if "image" not in options.get("columns", ()):
            wanted = {name: value[None] if value.dim() == 2 else value for name, value in wanted.items()}
        return box_rows.candidates(wanted, size, conf, count=count, **options)
    if head.kind == "retinaface":
        device = next(iter(wanted.values())).device
        options["priors"] = prior_boxes.face_priors(size, STRIDES, _SQUARES, device)
    return found(wanted, size, conf, **options)


def mask_features(head: Recognised, outputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return what ``masks`` needs of the first ``count`` images."""
    if head.kind == "torchvision":
        return {"masks": outputs[head.masks].float()}
    if head.kind == "detr":
        return {"planes": outputs[head.masks][:count].float()}
    wanted = {name: outputs[name] for name in (*head.outputs, head.masks)}
    found = proto_masks.features(wanted, channels_first=bool(head.options.get("channels_first")))
    return {name: value[:count] for name, value in found.items()}


def joined(features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the features of pieces as those of a batch; ``many`` are the rows of each, where they are lists."""
    found = {name: torch.cat([some[name] for some in features]) for name in (features[0] if features else {})}
    if "masks" in found:
        found["many"] = torch.tensor([len(some["masks"]) for some in features])
    return found


def masks(
    head: Recognised, features: dict[str, Tensor], found: Sequence[Candidates], places: Sequence[Place], size: Size
) -> Tensor:
    """Return the masks of what was kept, values in cells of each image that are above 0 on the object."""
    if head.kind == "detr":
        parts = zip(features["planes"], found, places, strict=True)
        return torch.cat([proto_masks.of_place(planes[some.query], place, size) for planes, some, place in parts])
    if head.kind != "torchvision":
        return proto_masks.masks(features, found, places, size)
    each = []
    for some, masks_of, (top, left, height, width) in zip(
        found, torch.split(features["masks"], features["many"].tolist()), places, strict=True
    ):
        assert some.query is not None
        chosen = masks_of[some.query].reshape(len(some.query), *masks_of.shape[-2:])
        each.append(chosen[:, top : top + height, left : left + width] - 0.5)
    return torch.cat(each)
