"""What the columns of other tools' tables are called: images, labels, scores and boxes, in pixels or in shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# In small letters, without what stands between them: `Image Name`, `image_name` and `ImageName` are one.
IMAGES = (
    *("path", "filepath", "imagepath", "imgpath", "uri", "url", "file", "filename", "fname"),
    *("image", "imagename", "imagefile", "img", "imgname"),
)
IDS = ("imageid", "imgid")
PREDICTED = ("predictedlabel", "predlabel", "predictedclass", "predclass", "prediction", "predicted", "pred")
NAMES = (*PREDICTED, "labelname", "classname", "categoryname", "label", "name", "category", "class", "cls")
NUMBERS = ("categoryid", "classid", "labelid", "classindex", "class", "cls", "category", "label")
SCORES = ("score", "confidence", "conf", "probability", "prob")

Kind = Literal["corners", "corner and size", "centre and size"]
_CORNERS = (
    *(("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy")),
    *(("x1", "y1", "x2", "y2"), ("xtl", "ytl", "xbr", "ybr"), ("left", "top", "right", "bottom")),
)
_SIZES = (("w", "h"), ("width", "height"))
_FIRST = (("x", "y"), ("left", "top"), ("xmin", "ymin"), ("x0", "y0"), ("x1", "y1"))
_CENTRES = (("cx", "cy"), ("xc", "yc"), ("xcenter", "ycenter"), ("centerx", "centery"), ("xcentre", "ycentre"))
_SETS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    *(("corners", names) for names in _CORNERS),
    *(("centre and size", (*first, *size)) for first in _CENTRES for size in _SIZES),
    *(("corner and size", (*first, *size)) for first in _FIRST for size in _SIZES),
)
_LISTS: dict[str, Kind] = {
    **dict.fromkeys(("bbox", "bboxxywh"), "corner and size"),
    **dict.fromkeys(("xyxy", "bboxxyxy", "boxxyxy"), "corners"),
    **dict.fromkeys(("cxcywh", "bboxcxcywh", "boxcxcywh"), "centre and size"),
}
_BASES = sorted({name for _, names in _SETS for name in names} | set(_LISTS), key=len, reverse=True)
_SHARES = "norm|normalized|normalised|rel|relative"
_BOX = re.compile(rf"(?:bbox|box)?({_SHARES})?(?:bbox|box)?({'|'.join(_BASES)})({_SHARES}|n)?")
_OPENIMAGES = ("XMin", "YMin", "XMax", "YMax")  # shares, by these letters alone


@dataclass(frozen=True, kw_only=True)
class BoxColumns:
    """The columns of boxes: four, or one of lists; ``shares`` of the image, or pixels."""

    kind: Kind
    names: tuple[str, ...]
    shares: bool

    def __str__(self) -> str:
        """Return how they are read, in words."""
        unit = "shares of the image" if self.shares else "pixels"
        return f"boxes are read from {', '.join(self.names)}: {self.kind}, in {unit}"


def plain(name: str) -> str:
    """Return the name of a column in small letters, without blanks and signs."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def first(columns: Sequence[str], choices: Sequence[str]) -> str:
    """Return the column that is the first of some choices in any spelling, empty for none."""
    known = {plain(name): name for name in reversed(columns)}
    return next((known[choice] for choice in choices if choice in known), "")


def boxes(columns: Sequence[str]) -> BoxColumns | None:
    """Return the columns of boxes, those in pixels where there are both, and None where there are none."""
    if set(_OPENIMAGES) <= set(columns):
        return BoxColumns(kind="corners", names=_OPENIMAGES, shares=True)
    found: dict[tuple[bool, str], str] = {}
    for name in reversed(columns):
        if match := _parsed(plain(name)):
            found[match] = name
    for shares in (False, True):
        for kind, names in _SETS:
            if all((shares, name) in found for name in names):
                return BoxColumns(kind=kind, names=tuple(found[shares, name] for name in names), shares=shares)
        for name, kind in _LISTS.items():
            if (shares, name) in found:
                return BoxColumns(kind=kind, names=(found[shares, name],), shares=shares)
    return None


def _parsed(name: str) -> tuple[bool, str] | None:
    """Return whether a column holds shares, and what it is called without saying so; None where it is none of these."""
    if name in _BASES:
        return False, name
    match = _BOX.fullmatch(name)
    return (bool(match[1] or match[3]), match[2]) if match else None
