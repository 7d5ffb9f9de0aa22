"""How an image processor of transformers puts a picture into a detector: the size there, the filter, the padding.

The settings are those of transformers' own processor, sizes are by its own arithmetic, and torchvision resizes, as it
does there: what reaches the model is equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from cvjobs.common.errors import WrongUse
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks.detection.framing import Size
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.hf.image_processor import LARGEST
from cvjobs.networks.hf.repository import PROCESSOR, Repository

BOTH, FORMS = "height", (("height", "width"), ("shortest_edge", "longest_edge"), ("max_height", "max_width"))
_FILTERS = ("nearest-exact", "nearest", "bilinear", "bicubic")
_YOLOS, _RF_DETR = "YolosImageProcessor", "RfDetrImageProcessor"
_YOLOS_STRIDE = 16  # sides are multiples of it


@dataclass(frozen=True)
class ProcessorFraming:
    """As the processor of that class of transformers does it: resized bytes, antialiased, padded right and below.

    ``form`` is the first of the two words of its size: ``height`` squashes a picture, to multiples of ``stride``,
    ``shortest_edge`` and ``max_height`` keep its proportions. ``floats`` resizes numbers that are not rounded.
    ``padded`` is the (height, width) that every picture is padded to, None where its own will do.
    """

    processor: str
    form: str
    filter: functional.InterpolationMode
    antialias: bool = True
    floats: bool = False
    stride: int = 1
    padded: Size | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Framing``; its settings are in the digest of the model's."""
        return {"framing": self.processor}

    @property
    def grey(self) -> None:
        """See ``Framing``."""

    def size(self, height: int, width: int, rules: Rules, scale: float = 1.0) -> Size:
        """See ``Framing``."""
        from transformers.image_transforms import get_size_with_aspect_ratio
        from transformers.image_utils import get_image_size_for_max_height_width
        from transformers.models.yolos.image_processing_yolos import get_size_with_aspect_ratio_yolos

        first, second = round(rules.short * scale), round(rules.long * scale)
        if self.form == BOTH:
            return self._regular(first), self._regular(second)
        least = 1
        if self.form == "max_height":
            found = get_image_size_for_max_height_width((height, width), first, second)
        elif self.processor == _YOLOS:
            found, least = get_size_with_aspect_ratio_yolos((height, width), first, second), _YOLOS_STRIDE
        else:
            found = get_size_with_aspect_ratio((height, width), first, second)
        return max(found[0], least), max(found[1], least)

    def _regular(self, side: int) -> int:
        return max(round(side / self.stride), 1) * self.stride

    def canvas(self, size: Size, rules: Rules) -> Size:
        """See ``Framing``."""
        del rules
        if self.padded is None:
            return size
        return max(size[0], self.padded[0]), max(size[1], self.padded[1])

    def origin(self, size: Size, canvas: Size) -> Size:
        """See ``Framing``."""
        del size, canvas
        return 0, 0

    def draw(self, pixels: Pixels, place: Tensor) -> None:
        """See ``Framing``; floats channel by channel, for a picture of those has four times the bytes of its pixels."""
        source = torch.from_numpy(pixels).to(place.device).permute(2, 0, 1)[None]
        if not self.floats:
            place.copy_(self._resized(source, place)[0])
            return
        for channel in range(3):
            place[channel] = self._resized(source[:, channel, None].float(), place)[0, 0]

    def _resized(self, source: Tensor, place: Tensor) -> Tensor:
        size = [place.shape[1], place.shape[2]]
        resized: Tensor = functional.resize(source, size, interpolation=self.filter, antialias=self.antialias)
        return resized


def framing(repository: Repository, found: Any, stride: int) -> tuple[ProcessorFraming, Size]:
    """Return the framing of a processor, and the two numbers of its size.

    ``stride`` is what sides of a squashed picture must be multiples of, where the model takes other sizes as well.

    Raises:
        WrongUse: it has a setting that has no counterpart here.
    """
    from transformers.image_utils import pil_torch_interpolation_mapping

    name = type(found).__name__
    if not found.do_resize:
        raise _unknown(repository, "leave images as large as they are (do_resize)")
    sizes = {form: (getattr(found.size, form[0]), getattr(found.size, form[1])) for form in FORMS}
    forms = [form for form, values in sizes.items() if all(values)]
    if len(forms) != 1 or not 0 < min(sizes[forms[0]]) <= LARGEST:
        raise _unknown(repository, f"have the size {dict(found.size)}")
    interpolation = pil_torch_interpolation_mapping.get(found.resample)
    if interpolation is None or interpolation.value not in _FILTERS:
        raise _unknown(repository, f"have the filter {found.resample} (resample)")
    fixed = bool(found.do_pad and found.pad_size)
    framed = ProcessorFraming(
        processor=name,
        form=forms[0][0],
        filter=interpolation,
        antialias=name != _RF_DETR,
        floats=name == _RF_DETR and bool(found.do_rescale),
        stride=stride,
        padded=(found.pad_size.height, found.pad_size.width) if fixed else None,
    )
    return framed, sizes[forms[0]]


def transform(repository: Repository, found: Any) -> Transform:
    """Return how grey values reach the model of a processor; raises WrongUse where its numbers make no sense."""
    mean, std = (found.image_mean, found.image_std) if found.do_normalize else (0.0, 1.0)
    both = []
    try:
        factor = 255 * (float(found.rescale_factor) if found.do_rescale else 1.0)
        for values in (mean, std):
            three = [values] * 3 if isinstance(values, float | int) else list(values)
            both.append(tuple(float(value) / factor for value in three))
        right = {len(three) for three in both} == {3} and all(both[1]) and all(map(math.isfinite, both[0] + both[1]))
    except (TypeError, ValueError, ZeroDivisionError):
        right = False
    if not right:
        raise _unknown(repository, f"have the mean {mean}, the deviation {std} and the factor {found.rescale_factor}")
    return Transform(fit="native", mean=both[0], std=both[1])


def _unknown(repository: Repository, what: str) -> WrongUse:
    return WrongUse(
        f"The settings in {PROCESSOR} of {repository.said} {what}, which is not for this command: choose another model."
    )
