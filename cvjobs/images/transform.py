"""How pixels reach a model: the record that the decoders, the models and the fingerprints share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How pixels reach a model: decoded upright RGB, resized, cropped, uint8 (height, width, 3).

    ``resize`` is the target of the shorter side in pixels (``fit="short"``), or, with ``fit="exact"``,
    the image is squashed to ``size``, or, with ``fit="native"``, it keeps its own size. ``size`` is (height, width)
    of the centre crop handed to the model, padded with black where the resized image is smaller; without one every
    image has a size of its own. ``mean`` and ``std`` are applied by the model, to values in 0..1.
    """

    size: tuple[int, int] | None = None
    resize: int = 0
    fit: Literal["short", "exact", "native"] = "short"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def load(cls, record: dict[str, Any]) -> Transform:
        """Return the transform that a JSON record (of ``facts``) describes."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record.items()}
        return cls(**values)

    @property
    def target(self) -> int:
        """The length in pixels that the shorter side is resized to (at most), by which a decoder may scale down.

        It is 0 for images that keep a size of their own: their pixels have a place in the result.
        """
        if self.size is None:
            return 0
        return self.resize if self.fit == "short" else max(self.size)
