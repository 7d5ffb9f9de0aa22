"""A loaded segmenter of transformers: pictures in, class maps or objects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.images.picture import Picture, Pixels
from cvjobs.networks import cpu_pieces
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.hf import mask_queries
from cvjobs.networks.hf.mask_queries import Said, Size
from cvjobs.networks.hf.processing import TOO_THIN, ImageProcessing
from cvjobs.networks.segmentation import outlines
from cvjobs.networks.torch_network import TYPES, Streams, out_of_memory

ClassMap = NDArray[np.uint8] | NDArray[np.uint16]
Found = TypeVar("Found")
_SHAPES = 4096
_FINDING = {
    "eomt": mask_queries.eomt,
    "eomt_dinov3": mask_queries.eomt,
    "mask2former": mask_queries.mask2former,
    "oneformer": mask_queries.oneformer,
}
_FRAMED = ("eomt", "eomt_dinov3")  # whose input holds the picture in a frame


@dataclass(frozen=True)
class ObjectChoice:
    """Which objects are kept: of the ``classes`` (numbers, all where empty) with a score of ``conf``, not too many."""

    conf: float
    max_det: int
    classes: tuple[int, ...] = ()


class HfNetwork:
    """A model on one device and what it is asked with; several threads may call it at once.

    ``architecture`` is what transformers calls it, ``more`` what it takes beside pictures, each for one of them;
    ``choice`` is of a model that finds objects.
    """

    def __init__(
        self,
        module: nn.Module,
        architecture: str,
        processing: ImageProcessing,
        *,
        device: torch.device,
        precision: str,
        more: Mapping[str, Sequence[int]],
        choice: ObjectChoice | None = None,
    ) -> None:
        self._device, self._type = device, TYPES[precision]
        self._module = module.eval().to(device, self._type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._architecture, self._processing, self._choice = architecture, processing, choice
        self._more = {name: torch.tensor(values, device=device) for name, values in more.items()}
        self._streams = Streams(device)
        self.shape = lru_cache(maxsize=_SHAPES)(processing.shape)

    def _each(self, pictures: Sequence[Pixels], read: Callable[[Said | Tensor, Size], Found]) -> list[Found | None]:
        """Return what is read of what the model says of each picture; None where it says NaN or infinity.

        Raises:
            MemoryError: they are too many for the device.
        """
        try:
            with torch.inference_mode(), self._streams.own():
                sizes = [(int(one.shape[0]), int(one.shape[1])) for one in pictures]
                said = self._asked(pictures)
                return [None if one is None else read(one, size) for one, size in zip(said, sizes, strict=True)]
        except RuntimeError as error:
            reason = out_of_memory(error)
            if not reason:
                raise
        # Raised out here because the traceback of the first error would keep the batch's tensors alive.
        raise MemoryError(reason)

    def _asked(self, pictures: Sequence[Pixels]) -> Iterator[Said | Tensor | None]:
        """Yield the logits (classes, h, w) of each picture, or what the queries say of it; None for no numbers."""
        given = self._processing(pictures, self._device)
        windows = given.pop("patch_offsets", None) or []
        given.pop("task_inputs", None)  # in words
        images = given.pop("pixel_values").to(self._type, memory_format=torch.channels_last)
        said = self._said(images, given)
        del images, given
        if self._architecture not in _FINDING:
            for logits in said:
                assert isinstance(logits, Tensor)
                yield logits if logits.isfinite().all() else None
            return
        if not windows:
            for one, picture in zip(said, pictures, strict=True):
                yield self._framed(one, picture.shape) if one.finite else None
            return
        for number, picture in enumerate(pictures):
            starts = [int(start) for owner, start, _ in windows if int(owner) == number]
            own = [next(said) for _ in starts]
            fine = all(one.finite for one in own)
            yield self._stitched(own, starts, picture.shape) if fine else None

    def _said(self, images: Tensor, given: Mapping[str, Tensor]) -> Iterator[Any]:
        """Yield the logits of each image, or what the queries say of it."""
        step, (height, width) = len(images), images.shape[2:]
        if self._device.type == "cpu":
            step = cpu_pieces.step(len(images), height, width, cpu_pieces.OF_SEGMENTERS)
        for start in range(0, len(images), step):
            some = images[start : start + step]
            own = {name: values[start : start + step] for name, values in given.items()}
            more = {name: values.expand(len(some), -1) for name, values in self._more.items()}
            outputs = self._module(pixel_values=some, **own, **more)
            if self._architecture not in _FINDING:
                yield from outputs.logits.float()
                continue
            for classes, masks in zip(outputs.class_queries_logits, outputs.masks_queries_logits, strict=True):
                yield Said(classes.float(), masks.float())

    def _framed(self, said: Said, shape: Sequence[int]) -> Said:
        """Return what is said of a picture of that shape without what is around it in the input."""
        if self._architecture not in _FRAMED:
            return said
        return said.to(self._canvas()).within(self._frame(shape))

    def _stitched(self, windows: Sequence[Said], starts: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Return the scores (classes, h, w) of a picture of that shape by what is said of windows of it."""
        upright = shape[0] > shape[1]
        return mask_queries.stitched(windows, starts, self._canvas(), self._frame(shape), upright=upright)

    def _canvas(self) -> Size:
        size = self._processing.size
        return size["shortest_edge"], size.get("longest_edge") or size["shortest_edge"]

    def _frame(self, shape: Sequence[int]) -> Size:
        """Return the size to which a picture is resized for its windows, or within the canvas."""
        from transformers.image_transforms import get_size_with_aspect_ratio

        size = self._processing.size
        height, width = get_size_with_aspect_ratio(shape[:2], size["shortest_edge"], size.get("longest_edge"))
        return int(height), int(width)


class HfClassMaps(HfNetwork):
    """A model that gives every pixel a class."""

    def __call__(self, pictures: Sequence[Picture]) -> list[ClassMap | None]:
        """Return the class of each pixel of each picture, (height, width); None where the model's logits aren't finite.

        Raises:
            MemoryError: they are too many for the device.
        """
        return self._each([picture.pixels for picture in pictures], self._map)

    def _map(self, said: Said | Tensor, size: Size) -> ClassMap:
        if isinstance(said, Said):
            said = (said.to(mask_queries.GRID) if self._architecture == "mask2former" else said).scores
        found: ClassMap = (
            mask_queries.most_likely(said, size, antialias=self._architecture == "oneformer").cpu().numpy()
        )
        return found


class HfObjects(HfNetwork):
    """A model that outlines objects."""

    def __call__(self, pictures: Sequence[Pixels]) -> list[PictureDetections | None]:
        """Return the objects of each picture, uint8 (height, width, 3), best first; None as for class maps.

        Raises:
            MemoryError: they are too many for the device.
        """
        if self.shape(*pictures[0].shape[:2]) == TOO_THIN:
            return [_detections([], [], [], (1, 1)) for _ in pictures]
        return self._each(pictures, self._found)

    def _found(self, said: Said | Tensor, size: Size) -> PictureDetections:
        choice = self._choice
        assert isinstance(said, Said) and choice, "models with queries alone find objects"  # noqa: PT018
        found = _FINDING[self._architecture](said, size, choice.conf)
        scores, labels = found.scores.tolist(), found.labels.tolist()
        rows = [row for row, label in enumerate(labels) if not choice.classes or label in choice.classes]
        rows = sorted(rows, key=lambda row: -scores[row])[: choice.max_det]
        return _detections(
            [scores[row] for row in rows], [labels[row] for row in rows], [found.rles[row] for row in rows], size
        )


def _detections(scores: list[float], labels: list[int], rles: list[str], size: Size) -> PictureDetections:
    return PictureDetections(
        boxes=outlines.boxes(rles, size),
        scores=np.array(scores, np.float32),
        classes=np.array(labels, np.int64),
        rles=np.array([*rles, None], object)[:-1],
    )
