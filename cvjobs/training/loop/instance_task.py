"""The task of finding objects by their masks: those on the canvases of a step, and COCO's AP of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.evaluation.ground_truth import coco_records
from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.objects import Detections, Truths
from cvjobs.html import drawn_boxes, drawn_masks
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.segmentation import outlines
from cvjobs.training.data.instance_store import ImageMasks, StoredInstances
from cvjobs.training.loop.tasks.detect import DetectTask, FoundScores, averages, detections, objects_of
from cvjobs.training.loop.training_task import TaskScores
from cvjobs.training.plan import SplitPart, TrainPlan
from cvjobs.training.recipe import copy_paste, packed_masks
from cvjobs.training.recipe.canvases import CanvasChanges, Canvases
from cvjobs.training.recipe.copy_paste import CanvasObjects
from cvjobs.training.recipe.packed_masks import Window


@dataclass(frozen=True, kw_only=True)
class DrawnInstances:
    """The objects on the canvases of a step: ``boxes`` (N, M, 4) in their pixels, ``labels`` (N, M), -1 for none.

    ``masks`` (K, side, bytes) are those of the objects that there are, image by image, as ``packed_masks`` has them.
    With copy-paste ``partners`` (N,) are the images whose pixels the ``cover`` (N, side, bytes) shows.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    partners: Tensor | None = None
    cover: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceInputs:
    """What a ``DetectionTrainee`` of a Mask R-CNN is given, in its order."""

    images: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor


class InstanceTask(DetectTask):
    """See ``training_task.TrainTask`` and ``DetectTask``.

    The metric is COCO's AP of masks, of what ``cvjobs segment --model RUN`` says of the images as they are.
    """

    metric = "mask_AP"
    file = "instances.parquet"
    masked = True

    def __init__(self, plan: TrainPlan) -> None:
        super().__init__(plan)
        self.masks = StoredInstances(plan.store())

    def drawn(
        self, which: NDArray[np.int64], side: int, random: torch.Generator, changes: CanvasChanges
    ) -> DrawnInstances:
        """See ``training_task.TrainTask``."""
        share = self._plan.recipe.copy_paste
        each = self._seen(self._plan.train, which, side, changes)
        if not share:
            return _together(each)
        pasted = copy_paste.paste(each, share, random)
        return replace(
            _together(pasted.objects),
            partners=torch.from_numpy(pasted.partners),
            cover=torch.from_numpy(pasted.cover),
        )

    def _objects(self, part: SplitPart, which: NDArray[np.int64], side: int, changes: CanvasChanges) -> DrawnInstances:
        return _together(self._seen(part, which, side, changes))

    def _seen(
        self, part: SplitPart, which: NDArray[np.int64], side: int, changes: CanvasChanges
    ) -> list[CanvasObjects]:
        """Return the objects that are seen on the canvases of some images of a split."""
        objects = objects_of(part)
        shares, labels = objects.padded(which)
        place = Canvases(images=torch.empty(0), places=changes.places, ends=changes.sizes.flip(1).float())
        boxes, kept = (found.numpy() for found in place.moved(torch.from_numpy(shares), torch.from_numpy(labels)))
        own = objects.take(which)
        usable = own.usable
        load = self.masks.to_train if part is self._plan.train else self.masks.whole
        found = []
        for at, number in enumerate(which.tolist()):
            known = load(part.paths[number])
            rows = np.flatnonzero(usable[own.ends[at] : own.ends[at + 1]])
            there = kept[at, : len(rows)] >= 0
            texts = [known.texts[row] for row in rows[there].tolist()]
            masks = packed_masks.placed(texts, (known.height, known.width), window(changes, at), side)
            some = CanvasObjects(boxes=boxes[at, : len(rows)][there], labels=kept[at, : len(rows)][there], masks=masks)
            found.append(some.only(packed_masks.areas(masks) > 0))
        return found

    def prepared(self, images: Any, drawn: DrawnInstances) -> tuple[Any, Tensor]:
        """See ``training_task.TrainTask``; images are ``Canvases``, the inputs ``InstanceInputs``, targets labels."""
        pixels: Tensor = images.images
        size = pixels.shape[-2], pixels.shape[-1]
        if drawn.partners is not None and drawn.cover is not None:
            cover = packed_masks.unpacked(drawn.cover, *size).unsqueeze(1) > 0
            pixels = torch.where(cover, pixels[drawn.partners], pixels)
        masks = packed_masks.unpacked(drawn.masks, *size)
        return InstanceInputs(images=pixels, boxes=drawn.boxes, labels=drawn.labels, masks=masks), drawn.labels

    def _kept(self, found: PictureDetections, picture: NDArray[np.uint8]) -> PictureDetections:
        """Return what was found with masks as run lengths, as `cvjobs segment` has them."""
        assert found.masks is not None
        texts = outlines.of_boxes(found.masks, found.boxes, (picture.shape[0], picture.shape[1]))
        return replace(found, masks=None, rles=np.array([*texts, None], object)[:-1])

    def _figures(
        self, part: SplitPart, found: Sequence[PictureDetections], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> dict[str, float]:
        truths, seen = self.truths(part, heights, widths), masked(found, heights, widths)
        classes = len(self._plan.classes)
        of_boxes = coco_ap.evaluate(replace(truths, masks=None), detections(found), classes)
        return averages(coco_ap.evaluate(truths, seen, classes), "mask_") | averages(of_boxes, "box_")

    def truths(self, part: SplitPart, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> Truths:
        """Return the objects in images of these sizes, (n,) each, with their masks, as an evaluation takes them."""
        sizes = zip(part.paths, heights.tolist(), widths.tolist(), strict=True)
        masks = [mask for path, height, width in sizes for mask in self._whole(path, height, width).rles]
        return replace(objects_of(part).truths(heights, widths), masks=masks)

    def _whole(self, path: str, height: int, width: int) -> ImageMasks:
        return self.masks.whole(path).resized(height, width)

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """See ``training_task.TrainTask``: as a detector's, with the size of each image and COCO's run lengths."""
        assert isinstance(found, FoundScores)
        table = super().table(split, part, found)
        masks = [one.rles.tolist() for one in found.found if one.rles is not None]
        return (
            table.append_column("height", pa.array(found.heights, pa.int64()))
            .append_column("width", pa.array(found.widths, pa.int64()))
            .append_column("masks", pa.array(masks, pa.list_(pa.string())))
        )

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:
        """See ``training_task.TrainTask``: the masks over the pictures, and boxes around them."""
        masks = iter(inputs.masks.numpy())
        found = []
        for picture, boxes, labels in zip(pictures, inputs.boxes.tolist(), targets.tolist(), strict=True):
            own = [next(masks) for label in labels if label >= 0]
            image = drawn_masks.painted(picture, own, [label for label in labels if label >= 0])
            drawn_boxes.draw(image, boxes, labels, width=1)
            found.append(np.asarray(image))
        return np.stack(found)


def masked(found: Sequence[PictureDetections], heights: NDArray[np.int64], widths: NDArray[np.int64]) -> Detections:
    """Return what was found in images of these sizes as an evaluation of masks takes it."""
    sizes = zip(found, heights.tolist(), widths.tolist(), strict=True)
    masks = [
        {"size": [height, width], "counts": text.encode()}
        for one, height, width in sizes
        if one.rles is not None
        for text in one.rles.tolist()
    ]
    return replace(detections(found), masks=masks, area=coco_records.sizes(masks))


def window(changes: CanvasChanges, at: int) -> Window:
    """Return what is seen of the picture of a canvas."""
    top, bottom, left, right = changes.parts[at].tolist()
    rows, columns = changes.sizes[at].tolist()
    wide, high, _, _, mirrored, upturned = changes.places[at].tolist()
    return Window(
        top=top,
        bottom=bottom,
        left=left,
        right=right,
        # A place has the size of the whole picture on the canvas.
        height=round(high * (bottom - top) / rows),
        width=round(wide * (right - left) / columns),
        rows=rows,
        columns=columns,
        mirrored=mirrored > 0,
        upturned=upturned > 0,
    )


def _together(each: Sequence[CanvasObjects]) -> DrawnInstances:
    most = max(1, *(len(one.labels) for one in each))
    boxes = np.zeros((len(each), most, 4), np.float32)
    labels = np.full((len(each), most), -1, np.int64)
    for at, one in enumerate(each):
        boxes[at, : len(one.labels)], labels[at, : len(one.labels)] = one.boxes, one.labels
    masks = np.concatenate([one.masks for one in each])
    return DrawnInstances(boxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels), masks=torch.from_numpy(masks))
