"""What an image processor of transformers does to an image, as a transform: of images that all get one size."""

from __future__ import annotations

from typing import Any, Literal

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks.hf.image_processor import image_processor
from cvjobs.networks.hf.repository import Repository

_GREY = 1 / 255
Interpolation = Literal["lanczos", "bilinear", "bicubic"]
_FILTERS: dict[int, Interpolation] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # the numbers are Pillow's
_WARPED = 384  # pixels: from this size on ConvNeXt's processor squashes images instead of cropping them


def transform(repository: Repository) -> Transform:
    """Return the transform of a repository's image processor.

    Raises:
        WrongUse: it has none, its settings make no sense, or it does what a transform cannot say.
    """
    processor = image_processor(repository)
    try:
        made = _geometry(processor)
        mean, std = _scale(processor)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        made = None
    if made is None:
        raise WrongUse(
            f"{repository.said} wants images prepared in a way that cvjobs does not offer: choose a model whose images "
            "all get one size."
        )
    filter_ = _FILTERS[int(processor.resample)]
    # A bilinear filter stays within the values that there are, which 16 bits hold.
    bits: Literal[8, 16] = 16 if _scales_first(processor) and filter_ == "bilinear" else 8
    return Transform(**made, interpolation=filter_, mean=mean, std=std, crop="down", grey_bits=bits)


def _geometry(processor: Any) -> dict[str, Any] | None:
    """Return size, resize and fit of a transform; None where it has no words for what the processor does."""
    size = {side: int(length) for side, length in dict(processor.size or {}).items() if length}
    crop = dict(processor.crop_size or {}) if processor.do_center_crop else {}
    kept = (int(crop["height"]), int(crop["width"])) if crop else None
    if not processor.do_resize or getattr(processor, "do_pad", None) or int(processor.resample) not in _FILTERS:
        return None
    if type(processor).__name__.startswith("ConvNext"):
        return _convnext(size, float(processor.crop_pct)) if kept is None else None
    return _resized(size, kept) if _plain(processor) else None


def _resized(size: dict[str, int], kept: tuple[int, int] | None) -> dict[str, Any] | None:
    if set(size) == {"shortest_edge"}:
        return {"size": kept, "resize": size["shortest_edge"], "fit": "short"} if kept else None
    if set(size) != {"height", "width"}:
        return None
    height, width = size["height"], size["width"]
    if kept in (None, (height, width)):
        return {"size": (height, width), "fit": "exact"}
    return {"size": kept, "resize": height, "fit": "square"} if height == width else None


def _convnext(size: dict[str, int], share: float) -> dict[str, Any] | None:
    if set(size) != {"shortest_edge"}:
        return None
    side = size["shortest_edge"]
    if side >= _WARPED:
        return {"size": (side, side), "fit": "exact"}
    return {"size": (side, side), "resize": int(side / share), "fit": "short"}


def _plain(processor: Any) -> bool:
    """Whether a processor resizes, crops and scales as the library's base does, DINOv3's scaling before resizing."""
    from transformers.image_processing_backends import TorchvisionBackend

    kind = type(processor)
    same = all(
        getattr(kind, step) is getattr(TorchvisionBackend, step)
        for step in ("resize", "center_crop", "rescale", "normalize", "rescale_and_normalize")
    )
    return same and (kind._preprocess is TorchvisionBackend._preprocess or _scales_first(processor))


def _scales_first(processor: Any) -> bool:
    return type(processor).__name__.startswith("DINOv3")


def _scale(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation for values in 0..1 of the three colours."""
    factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    share = 1.0 if abs(factor / _GREY - 1) < 1e-6 else _GREY / factor
    both = []
    for values in (mean, std):
        three = [float(value) for value in (values if isinstance(values, (list, tuple)) else [values] * 3)]
        if len(three) != 3:
            raise ValueError("not three colours")
        both.append(tuple(value * share for value in three))
    if not all(both[1]):
        raise ValueError("a deviation of 0")
    return both[0], both[1]
