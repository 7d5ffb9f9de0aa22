"""Anchors that a detector has in place of its own, and what they reach on the boxes that they are fitted to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Levels = tuple[tuple[float, ...], ...]
AT = (0.5, 0.7)  # IoU from which on torchvision's RetinaNet and Faster R-CNN match an anchor


@dataclass(frozen=True, kw_only=True)
class DetectorAnchors:
    """Anchors of a detector, of each feature map a tuple, the finest first.

    ``sizes`` are square roots of areas in pixels and ``aspect_ratios`` heights by widths, as torchvision's
    ``AnchorGenerator`` takes them; of an SSD ``scales`` are shares of the side, one more than there are maps, and the
    ratios those of ``DefaultBoxGenerator``, each of which counts upright and across. ``recall`` is the share of the
    boxes that have an anchor with each IoU of ``AT`` where it lies best, ``default_recall`` that of the detector's own.
    """

    sizes: Levels = ()
    aspect_ratios: Levels
    scales: tuple[float, ...] = ()
    recall: tuple[float, ...] = ()
    default_recall: tuple[float, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        made: dict[str, Any] = json.loads(json.dumps(vars(self)))
        return made

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> DetectorAnchors | None:
        """Return those of a record, None of none."""
        return cls(**{name: _tuples(value) for name, value in record.items()}) if record else None

    @property
    def reached(self) -> str:
        """What they reach, in words."""
        first, second = AT
        own, fitted = ([f"{share:.1%}" for share in shares] for shares in (self.default_recall, self.recall))
        return (
            f"{fitted[0]} of the boxes can have an IoU of {first} with one, {fitted[1]} one of {second}; with the "
            f"detector's own {own[0]} and {own[1]}"
        )

    @property
    def words(self) -> str:
        """The anchors by level, as ``12.3 × 0.5, 1, 2``."""
        levels = self.sizes or tuple((scale,) for scale in self.scales[:-1])
        return "; ".join(
            f"{', '.join(f'{size:.3g}' for size in sizes)} × {', '.join(f'{ratio:.3g}' for ratio in ratios)}"
            for sizes, ratios in zip(levels, self.aspect_ratios, strict=True)
        )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
