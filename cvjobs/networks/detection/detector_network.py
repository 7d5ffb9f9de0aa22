"""A loaded detector: pictures in, boxes in their pixels out; batches of views, tiles and mirror images in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks.detection.framing import Framing, TorchvisionFraming
from cvjobs.networks.detection.nms import Architecture, Candidates, kept, suppressed
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.detection.tile_merge import TileDetections, joined
from cvjobs.networks.detection.tiling import View, tiles, views
from cvjobs.networks.segmentation import outlines
from cvjobs.networks.torch_network import Normalizer, Streams, out_of_memory

# Pixels of tensors that go through the model together where a picture has many views.
TOGETHER = {"cpu": 2 << 20, "cuda": 8 << 20}
Masks = Literal["", "box", "image"]  # whose cells an architecture's masks are, if it has any


@dataclass(frozen=True)
class PictureDetections:
    """The detections of a picture, best first.

    ``boxes`` (N, 4) float32 x0, y0, x1, y1 in its pixels, ``scores`` (N,) float32, ``classes`` (N,) int64 the ids of
    the categories; ``masks`` (N, 28, 28) float32, where asked for: for each cell of a box the probability that it is
    of the object, or ``rles`` (N,) their run-length strings. ``landmarks`` (N, K, 2) float32 are x and y of points of
    each object, of models that have them.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.float32] | None = None
    rles: npt.NDArray[np.object_] | None = None
    landmarks: npt.NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether the masks hold neither NaN nor infinity."""
        return self.masks is None or bool(np.isfinite(self.masks).all())

    def only(self, rows: npt.NDArray[np.int64]) -> PictureDetections:
        """Return some of them."""
        return replace(self, **{name: part[rows] for name, part in vars(self).items() if part is not None})


class DetectorNetwork:
    """One detector on one device, with the rules it follows; several threads may call it at once."""

    def __init__(
        self,
        architecture: Architecture,
        transform: Transform,
        rules: Rules,
        classes: Sequence[int],
        *,
        masks: Masks = "",
        framing: Framing | None = None,
        merging: float | None = None,
        mirrored: Sequence[int] = (),
    ) -> None:
        """See ``Detector``; ``merging`` is an IoU by which two looks saw one object, None for that of the rules.

        ``mirrored`` is for each landmark which one it is in a mirrored picture; empty where each is itself.
        """
        self._architecture, self._rules, self._masks = architecture, rules, masks
        self._merging = rules if merging is None else replace(rules, iou=merging)
        self._mirrored = list(mirrored)
        self._framing = framing or TorchvisionFraming()
        self._device, self._type = architecture.device, architecture.dtype
        self._classes = torch.tensor(rules.classes or list(classes), device=self._device)
        self._normalizer = Normalizer(transform, self._device, self._type)
        self._together = TOGETHER[self._device.type]
        self._streams = Streams(self._device)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in which a picture, or a tile of it, goes through the model."""
        tile = tiles(height, width, self._rules.tile, self._rules.overlap)[0]
        return self._framing.canvas(self._framing.size(tile.height, tile.width, self._rules), self._rules)

    def __call__(self, pictures: Sequence[Pixels]) -> list[PictureDetections | None]:
        """Return what is found in each picture, uint8 (height, width, 3); None where the model gave NaN or infinity.

        Raises:
            MemoryError: they are too many for the device, or one view is.
        """
        looks = [
            look
            for i, pixels in enumerate(pictures)
            for look in views(i, pixels.shape[0], pixels.shape[1], self._rules, self._framing)
        ]
        found: dict[View, PictureDetections | None] = {}
        for _, group in groupby(sorted(looks, key=lambda look: look.canvas), key=lambda look: look.canvas):
            found.update(self._looked(list(group), pictures))
        return [self._whole(list(group), found) for _, group in groupby(looks, key=lambda look: look.picture)]

    def _looked(self, looks: list[View], pictures: Sequence[Pixels]) -> dict[View, PictureDetections | None]:
        """Return what is found in views of one canvas, in batches of at most ``TOGETHER`` pixels."""
        found: dict[View, PictureDetections | None] = {}
        area = looks[0].canvas[0] * looks[0].canvas[1]
        while looks:
            count = max(self._together // area, len(pictures), 1)
            some, rest = looks[:count], looks[count:]
            try:
                with torch.inference_mode(), self._streams.own():
                    found.update(zip(some, self._batch(some, pictures), strict=True))
            except RuntimeError as error:
                reason = out_of_memory(error)
                if not reason:
                    raise
            else:
                looks = rest
                continue
            # Out here because the traceback of the first error would keep the batch's tensors alive.
            if len(pictures) > 1 or len(some) == 1:
                raise MemoryError(reason)
            self._together = len(some) // 2 * area
        return found

    def _batch(self, looks: list[View], pictures: Sequence[Pixels]) -> list[PictureDetections | None]:
        canvases = torch.zeros(len(looks), 3, *looks[0].canvas, device=self._device)
        if self._framing.grey is not None:
            canvases += self._framing.grey
            self._normalizer.in_place(canvases)
        sizes = [look.size for look in looks]
        for look, drawn in zip(looks, canvases, strict=True):
            look.draw(pictures[look.picture], drawn, self._framing)
            self._normalizer.in_place(look.place(drawn[None]))
        images = canvases.to(self._type, memory_format=torch.channels_last)
        found, features = self._architecture.candidates(images, sizes, self._rules.conf)
        each = [found.only(rows) for rows in kept(found, len(looks), self._rules, self._classes)]
        masks = self._architecture.masks(features, each, sizes) if self._masks else None
        every = PictureDetections(
            boxes=_numpy(torch.cat([look.restored_boxes(some.boxes) for look, some in zip(looks, each, strict=True)])),
            scores=_numpy(torch.cat([some.scores for some in each])),
            classes=_numpy(torch.cat([some.labels for some in each])),
            masks=None if masks is None else _numpy(masks),
            landmarks=self._landmarks(looks, each),
        )
        ends = np.cumsum([0, *(len(some.scores) for some in each)])
        parts = [every.only(np.arange(start, end)) for start, end in pairwise(ends)]
        fine = [
            part if finite and part.finite else None for part, finite in zip(parts, found.finite.tolist(), strict=True)
        ]
        if self._masks != "image":
            return fine
        return [part and _outlined(part, pictures[look.picture]) for part, look in zip(fine, looks, strict=True)]

    def _landmarks(self, looks: list[View], each: list[Candidates]) -> npt.NDArray[np.float32] | None:
        """Return the points of what was found in each view, in pixels of its picture; None where there are none."""
        found = []
        for look, some in zip(looks, each, strict=True):
            if some.landmarks is None:
                return None
            points = look.restored(some.landmarks)
            found.append(points[:, self._mirrored] if look.mirrored and self._mirrored else points)
        return _numpy(torch.cat(found))

    def _whole(self, looks: list[View], found: dict[View, PictureDetections | None]) -> PictureDetections | None:
        """Return what is found in a picture by all looks at it."""
        each = [some for look in looks if (some := found[look])]
        if len(each) < len(looks) or len(each) == 1:
            return each[0] if len(looks) == 1 and each else None
        places, merged = [], []
        for tile, group in groupby(looks, key=lambda look: look.tile):
            places.append(tile)
            merged.append(self._merged([some for look in group if (some := found[look])]))
        every = _concatenated(merged)
        if len(places) == 1:
            return every
        classes = every.classes if self._rules.per_class else np.zeros_like(every.classes)
        tile_of = np.repeat(np.arange(len(places)), [len(some.scores) for some in merged])
        rows, boxes = joined(places, TileDetections(every.boxes, every.scores, classes, tile_of), self._merging.iou)
        return replace(every.only(rows), boxes=boxes)

    def _merged(self, looks: list[PictureDetections]) -> PictureDetections:
        """Return what several looks at the same tile found, by NMS."""
        every = _concatenated(looks)
        if len(looks) == 1:
            return every
        boxes, scores, classes = map(torch.from_numpy, (every.boxes, every.scores, every.classes))
        return every.only(suppressed(boxes, scores, classes, self._merging)[: self._rules.max_det].numpy())


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = tensor.cpu().numpy()
    return found


def _outlined(found: PictureDetections, pixels: Pixels) -> PictureDetections:
    """Return detections with the run-length strings of their masks, whose cells are those of the whole image."""
    assert found.masks is not None
    rles = np.array([*outlines.of_image(found.masks, (pixels.shape[0], pixels.shape[1])), None], object)[:-1]
    return replace(found, masks=None, rles=rles)


def _concatenated(found: Sequence[PictureDetections]) -> PictureDetections:
    parts = {name: [vars(some)[name] for some in found] for name, part in vars(found[0]).items() if part is not None}
    return replace(found[0], **{name: np.concatenate(each) for name, each in parts.items()})
