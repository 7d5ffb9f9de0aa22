"""How pixels reach a model: the record that the decoders, the models and the fingerprints share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from cvjobs.common import fingerprint, rules

Truncated = Literal["fail", "use"]
Decoder = Literal["cpu", "gpu"]
Decode = Literal["auto", "cpu", "gpu"]

ALL_BITS = 16
LONGEST = 4  # times the shorter side that is asked for: no side of a whole picture is longer


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How pixels reach a model: decoded upright RGB, resized, cropped, uint8 (height, width, 3).

    ``resize`` is the target of the shorter side in pixels (``fit="short"``), or, with ``fit="exact"``,
    the image is squashed to ``size``, or, with ``fit="native"``, it keeps its own size, or, with ``fit="whole"``, it
    is as for ``short``, but never enlarged, and reduced further until no side is longer than ``LONGEST`` times
    ``resize``, or, with ``fit="square"``, it is squashed to a square of ``resize``. ``size`` is (height, width) of the
    centre crop handed to the model, padded with black where the resized image is smaller; without one every image has a
    size of its own. Where the crop is half a pixel off, ``crop`` says how its corner is rounded: to an even number, or
    to the left and up. ``mean`` and ``std`` are applied by the model, to
    values in 0..1. ``pixel_rules`` is the version of the rules by which a file becomes pixels; ``bits`` of 16 are used
    where a file does not say, 0 for all. ``truncated`` tells whether a picture that is cut short is an error, or used
    as far as it can be read. ``decoder`` is what decodes JPEGs that both do: the values of the two are not the same,
    but near. ``grey_bits`` are those of a resized grey value: 8, rounded to whole numbers, or 16, to 1/256 of one (see
    ``resizing.fit``), for models whose publishers resize numbers that are not rounded; JPEGs only decode on a CPU then.
    """

    size: tuple[int, int] | None = None
    resize: int = 0
    fit: Literal["short", "exact", "native", "whole", "square"] = "short"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel_rules: int = rules.PIXELS
    bits: int = 0
    truncated: Truncated = "fail"
    decoder: Decoder = "cpu"
    crop: Literal["even", "down"] = "even"
    grey_bits: Literal[8, 16] = 8

    @classmethod
    def load(cls, record: dict[str, Any]) -> Transform:
        """Return the transform that ``record`` made a JSON record of; raises TypeError for one of another shape."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record.items()}
        if not isinstance(values.setdefault("pixel_rules", rules.FIRST), int):
            raise TypeError("pixel_rules is no number")
        if not isinstance(values.get("bits", 0), int):
            raise TypeError("bits is no number")
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """Return the transform as JSON types; the form is kept, for what was made before holds it."""
        made = fingerprint.facts(self)
        if self.pixel_rules == rules.FIRST:
            del made["pixel_rules"]
        if not self.bits:
            del made["bits"]
        if self.truncated == "fail":
            del made["truncated"]
        if self.decoder == "cpu":
            del made["decoder"]
        if self.crop == "even":
            del made["crop"]
        if self.grey_bits == 8:
            del made["grey_bits"]
        return made

    def like(self, record: Any, bits: int | None = None) -> Transform:
        """Return this transform with the rules and the decoder of a record (as ``record`` made it), which may be bad.

        Its ``bits`` are those that are given, else those of the record; all 16 are what a record without any means.
        """
        try:
            then = Transform.load(record)
        except (TypeError, AttributeError):
            then = Transform(pixel_rules=rules.FIRST)
        given = 0 if bits == ALL_BITS and not then.bits else bits
        grey = min(self.grey_bits, then.grey_bits)
        return replace(
            self, pixel_rules=then.pixel_rules, bits=given or then.bits, decoder=then.decoder, grey_bits=grey
        )

    @property
    def target(self) -> int:
        """The length in pixels that the shorter side is resized to (at most), by which a decoder may scale down.

        It is 0 for images that keep a size of their own: their pixels have a place in the result.
        """
        if self.fit == "whole":
            return self.resize
        if self.size is None:
            return 0
        return self.resize if self.fit in ("short", "square") else max(self.size)

    @property
    def stored(self) -> tuple[int, int] | None:
        """The sides of the pixels that ``resizing.fit`` makes, of ``size`` and ``grey_bits``; None without a size."""
        return self.size and (self.size[0] * self.grey_bits // 8, self.size[1])

    @property
    def most(self) -> tuple[int, int] | None:
        """The sides of the largest result; None where only the source bounds it."""
        return (self.resize, LONGEST * self.resize) if self.fit == "whole" else self.stored
