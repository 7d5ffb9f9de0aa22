"""A loaded detector: pictures in, boxes in their pixels out; batches of views, tiles and mirror images in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch

from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks.detection.nms import Architecture, kept, suppressed
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.detection.tile_merge import TileDetections, joined
from cvjobs.networks.detection.tiling import View, canvas, resized, tiles, views
from cvjobs.networks.torch_network import Normalizer, Streams, out_of_memory

# Pixels of tensors that go through the model together where a picture has many views.
TOGETHER = {"cpu": 2 << 20, "cuda": 8 << 20}


@dataclass(frozen=True)
class PictureDetections:
    """The detections of a picture, best first.

    ``boxes`` (N, 4) float32 x0, y0, x1, y1 in its pixels, ``scores`` (N,) float32, ``classes`` (N,) int64 the ids of
    the categories; ``masks`` (N, 28, 28) float32, where asked for: for each cell of a box the probability that it is
    of the object.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether the masks hold neither NaN nor infinity."""
        return self.masks is None or bool(np.isfinite(self.masks).all())

    def only(self, rows: npt.NDArray[np.int64]) -> PictureDetections:
        """Return some of them."""
        masks = None if self.masks is None else self.masks[rows]
        return PictureDetections(self.boxes[rows], self.scores[rows], self.classes[rows], masks)


class DetectorNetwork:
    """One detector on one device, with the rules it follows; several threads may call it at once."""

    def __init__(
        self,
        architecture: Architecture,
        transform: Transform,
        rules: Rules,
        classes: Sequence[int],
        masks: bool = False,
    ) -> None:
        weight = next(architecture.module.parameters())
        self._architecture, self._rules, self._masks = architecture, rules, masks
        self._device, self._type = weight.device, weight.dtype
        self._classes = torch.tensor(rules.classes or list(classes), device=self._device)
        self._normalizer = Normalizer(transform, self._device, self._type)
        self._together = TOGETHER[self._device.type]
        self._streams = Streams(self._device)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in which a picture, or a tile of it, goes through the model."""
        tile = tiles(height, width, self._rules.tile, self._rules.overlap)[0]
        return canvas(resized(tile.height, tile.width, self._rules), self._rules)

    def __call__(self, pictures: Sequence[Pixels]) -> list[PictureDetections | None]:
        """Return what is found in each picture, uint8 (height, width, 3); None where the model gave NaN or infinity.

        Raises:
            MemoryError: they are too many for the device, or one view is.
        """
        looks = [
            look
            for i, pixels in enumerate(pictures)
            for look in views(i, pixels.shape[0], pixels.shape[1], self._rules)
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
        sizes = [look.size for look in looks]
        for look, drawn, (height, width) in zip(looks, canvases, sizes, strict=True):
            look.draw(pictures[look.picture], drawn)
            self._normalizer.in_place(drawn[None, :, :height, :width])
        images = canvases.to(self._type, memory_format=torch.channels_last)
        found, features = self._architecture.candidates(images, sizes, self._rules.conf)
        rows = kept(found, len(looks), self._rules, self._classes)
        boxes = [found.boxes[some] for some in rows]
        labels = [found.labels[some] for some in rows]
        masks = self._architecture.masks(features, boxes, labels, sizes).cpu().numpy() if self._masks else None
        restored = torch.cat([look.restored(some) for look, some in zip(looks, boxes, strict=True)])
        best = torch.cat(rows)
        scores, classes = found.scores[best].cpu().numpy(), found.labels[best].cpu().numpy()
        every = PictureDetections(restored.cpu().numpy(), scores, classes, masks)
        ends = np.cumsum([0, *map(len, rows)])
        each = [every.only(np.arange(start, end)) for start, end in pairwise(ends)]
        return [some if fine and some.finite else None for some, fine in zip(each, found.finite.tolist(), strict=True)]

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
        rows, boxes = joined(places, TileDetections(every.boxes, every.scores, classes, tile_of), self._rules.iou)
        return replace(every.only(rows), boxes=boxes)

    def _merged(self, looks: list[PictureDetections]) -> PictureDetections:
        """Return what several looks at the same tile found, by NMS."""
        every = _concatenated(looks)
        if len(looks) == 1:
            return every
        boxes, scores, classes = map(torch.from_numpy, (every.boxes, every.scores, every.classes))
        return every.only(suppressed(boxes, scores, classes, self._rules)[: self._rules.max_det].numpy())


def _concatenated(found: Sequence[PictureDetections]) -> PictureDetections:
    masks = [some.masks for some in found if some.masks is not None]
    return PictureDetections(
        np.concatenate([some.boxes for some in found]),
        np.concatenate([some.scores for some in found]),
        np.concatenate([some.classes for some in found]),
        np.concatenate(masks) if masks else None,
    )
