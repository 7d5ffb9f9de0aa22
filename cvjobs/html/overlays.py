"""What is drawn over a small picture: boxes as SVG, masks as a PNG with alpha, names and scores as tags.

Everything is reduced to the size of the picture first: a mask never has the size of its image in memory.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvjobs.common.formatting import shortened, visible
from cvjobs.html import palette
from cvjobs.images.masks import rle as masks_rle

MOST = 50  # boxes in one picture
LONGEST = 24  # characters of a tag
ACROSS, DOWN = 240.0, 280.0  # CSS pixels in which a picture is shown, about: the room that tags have
LINE, LETTER = 17.0, 6.8  # height of a tag and width of a letter, CSS pixels
COVERED = 0.2  # of a picture, by tags
MAX_PIXELS = 400_000_000
SMOOTH = 160  # pixels of the longer side that heat has at least, however small the picture
LEVELS = 96  # of heat
DENSEST, DARK = 190, 110  # how opaque the most of it is, and what is outside, of 255

Plane = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object in an image: ``box`` is (x0, y0, x1, y1) in pixels of the upright image.

    ``rle`` is COCO's compressed string of its mask, if it has one, and ``points`` are x and y of its landmarks. A
    ``dashed`` box is one to compare with.
    """

    category_id: int
    label: str
    box: tuple[float, float, float, float]
    score: float | None = None
    rle: str = ""
    dashed: bool = False
    points: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Shape:
        """Return a detection, as a row of an output has it, as a shape."""
        return cls(
            category_id=found["category_id"],
            label=found["label"],
            box=(found["x0"], found["y0"], found["x1"], found["y1"]),
            score=found["score"],
            rle=found.get("rle") or "",
            points=tuple((point["x"], point["y"]) for point in found.get("landmarks") or ()),
        )


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels of the picture; ``colour`` is a position in ``palette.COLOURS``."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    hint: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A landmark and how large it is drawn, in pixels of the picture; ``colour`` is as in ``Box``."""

    x: float
    y: float
    radius: float
    colour: int


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A name with its score; ``left`` and ``top`` are where it begins, in percent of the picture.

    ``colour`` is as in ``Box``; without one it is white.
    """

    left: float
    top: float
    colour: int | None
    text: str
    figure: str


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What lies over a picture of ``width`` x ``height`` pixels.

    ``mask`` is a PNG as a ``data:`` URI, ``more`` counts the shapes that are not drawn, ``dots`` are landmarks.
    """

    width: int
    height: int
    boxes: tuple[Box, ...] = ()
    tags: tuple[Tag, ...] = ()
    mask: str = ""
    more: int = 0
    dots: tuple[Dot, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the overlay as JSON types."""
        return asdict(self)

    @classmethod
    def load(cls, record: dict[str, Any]) -> Overlay:
        """Return the overlay that a JSON record describes; raises KeyError or TypeError where it describes none."""
        boxes = tuple(Box(**box) for box in record["boxes"])
        dots = tuple(Dot(**dot) for dot in record.get("dots", ()))
        return cls(**{**record, "boxes": boxes, "tags": tuple(Tag(**tag) for tag in record["tags"]), "dots": dots})


def draw(shapes: Sequence[Shape], image: tuple[int, int], picture: tuple[int, int], most: int = MOST) -> Overlay:
    """Return the overlay of shapes, the most important first, for a picture of an image; sizes are (height, width).

    The first ``most`` are drawn; tags that would cover one another are left out, and show as the box is pointed at.
    """
    height, width = picture
    scale_y, scale_x = height / image[0], width / image[1]
    shown = [shape for shape in shapes if np.isfinite(shape.box).all()][:most]
    boxes = []
    for shape in shown:
        x0, x1 = sorted(min(max(x * scale_x, 0.0), width) for x in shape.box[::2])
        y0, y1 = sorted(min(max(y * scale_y, 0.0), height) for y in shape.box[1::2])
        boxes.append(
            Box(
                x=round(x0, 1),
                y=round(y0, 1),
                # What is smaller than a line is still to be seen.
                width=round(max(x1 - x0, 1.0), 1),
                height=round(max(y1 - y0, 1.0), 1),
                colour=palette.place(shape.category_id),
                hint=f"{visible(shape.label)} {_figure(shape.score)}".strip(),
                dashed=shape.dashed,
            )
        )
    return Overlay(
        width=width,
        height=height,
        boxes=tuple(boxes),
        tags=_tags(shown, boxes, width, height),
        mask=_masks(shown, boxes, image, picture),
        more=len(shapes) - len(shown),
        dots=tuple(
            Dot(x=round(x * scale_x, 1), y=round(y * scale_y, 1), radius=_radius(box, picture), colour=box.colour)
            for shape, box in zip(shown, boxes, strict=True)
            for x, y in shape.points
            if 0 <= x <= image[1] and 0 <= y <= image[0]
        ),
    )


def colour_map(png: bytes, known: Sequence[int], picture: tuple[int, int]) -> Overlay:
    """Return the overlay of a class map (a PNG of one channel, a category id a pixel), (height, width) of the picture.

    Pixels of classes that are not ``known`` stay clear. Raises ValueError or OSError for what is no such PNG.
    """
    with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
        if opened.width * opened.height > MAX_PIXELS or opened.mode not in ("L", "P", "I;16", "I"):
            raise ValueError(f"a class map of {opened.width} x {opened.height} pixels, mode {opened.mode}")
        return coloured(np.asarray(opened), known, picture)


def coloured(ids: npt.NDArray[np.integer], known: Sequence[int], picture: tuple[int, int]) -> Overlay:
    """Return the overlay of category ids, (h, w) of any size, for a picture of (height, width); see ``colour_map``."""
    height, width = picture
    small = ids[np.ix_(_centres(ids.shape[0], height), _centres(ids.shape[1], width))].astype(np.int64)
    small[~np.isin(small, np.asarray(known, np.int64))] = -1
    colours = np.where(small < 0, 0, 1 + small % len(palette.COLOURS)).astype(np.uint8)
    return Overlay(width=width, height=height, mask=_png(colours, _edges(small)))


def heat_map(heat: npt.NDArray[np.float32], part: tuple[float, float], picture: tuple[int, int]) -> Overlay:
    """Return the overlay of heat, (h, w) from 0 to 1 and of any size, for a picture of (height, width).

    It lies over the ``part`` of the picture's height and width in its middle; what is outside is darkened.
    """
    zoom = max(SMOOTH / max(picture), 1.0)
    height, width = (max(round(side * zoom), 1) for side in picture)
    inside = max(round(part[0] * height), 1), max(round(part[1] * width), 1)
    smooth = Image.fromarray(heat.astype(np.float32)).resize((inside[1], inside[0]), Image.Resampling.BICUBIC)
    levels = (np.asarray(smooth).clip(0, 1) * (LEVELS - 1)).round().astype(np.uint8)
    top, left = (height - inside[0]) // 2, (width - inside[1]) // 2
    colours = np.full((height, width), LEVELS, np.uint8)
    colours[top : top + inside[0], left : left + inside[1]] = levels
    image = Image.fromarray(colours, "P")
    image.putpalette([*palette.heat(LEVELS).ravel().tolist(), 0, 0, 0])
    # The picture is to be seen below all but the most of it.
    opaque = [round(DENSEST * (level / (LEVELS - 1)) ** 1.5) for level in range(LEVELS)]
    return Overlay(width=width, height=height, mask=_uri(image, bytes([*opaque, DARK])))


def _radius(box: Box, picture: tuple[int, int]) -> float:
    """Return how large a landmark of a box is drawn: so that those of a small face are still apart."""
    return round(min(max(min(box.width, box.height) / 16, 0.6), max(picture) / 160), 1)


def _figure(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _tags(shapes: Sequence[Shape], boxes: Sequence[Box], width: int, height: int) -> tuple[Tag, ...]:
    """Place a tag above each box, else inside it, else below; one for which there is no room is left out."""
    zoom = min(ACROSS, DOWN * width / height) / width  # CSS pixels a pixel of the picture
    across, down = width * zoom, height * zoom
    taken: list[tuple[float, float, float, float]] = []
    tags: list[Tag] = []
    for shape, box in zip(shapes, boxes, strict=True):
        text, figure = shortened(shape.label, LONGEST), _figure(shape.score)
        long = LETTER * (len(text) + len(figure) + 1) + 8
        left = max(min(box.x * zoom, across - long), 0.0)
        top, bottom = box.y * zoom, (box.y + box.height) * zoom
        for y in (top - LINE, top, bottom - LINE, bottom):
            place = (left, y, left + long, y + LINE)
            if y < 0 or y + LINE > down or any(_overlap(place, other) for other in taken):
                continue
            taken.append(place)
            if tags and LINE * sum(right - left for left, _, right, _ in taken) > COVERED * across * down:
                return tuple(tags)
            at = {"left": round(100 * left / across, 1), "top": round(100 * y / down, 1)}
            tags.append(Tag(**at, colour=box.colour, text=text, figure=figure))
            break
    return tuple(tags)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _masks(shapes: Sequence[Shape], boxes: Sequence[Box], image: tuple[int, int], picture: tuple[int, int]) -> str:
    """Return the masks of shapes as one PNG, the first one on top; empty where none has a mask."""
    colours, owners = np.zeros(picture, np.uint8), np.zeros(picture, np.int64)
    rows, columns = _centres(image[0], picture[0]), _centres(image[1], picture[1])
    for number, (shape, box) in reversed(list(enumerate(zip(shapes, boxes, strict=True), start=1))):
        if not shape.rle:
            continue
        # A mask is inside its box, and pixels that are partly so belong to it.
        y = slice(int(box.y), int(box.y + box.height) + 1)
        x = slice(int(box.x), int(box.x + box.width) + 1)
        inside = _sampled(shape.rle, image, rows[y, None] + columns[None, x] * image[0])
        colours[y, x][inside] = 1 + box.colour
        owners[y, x][inside] = number
    return _png(colours, _edges(owners)) if owners.any() else ""


def _centres(length: int, count: int) -> Ints:
    """Return the pixels of a line of ``length`` that are in the middle of each of ``count`` equal pieces."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def _sampled(text: str, size: tuple[int, int], places: Ints) -> npt.NDArray[np.bool_]:
    """Return whether pixels, counted down the columns, are in a mask; none is where the string is no mask."""
    try:
        begins, ends = masks_rle.runs(text, *size)
    except ValueError:
        return np.zeros(places.shape, np.bool_)
    return np.searchsorted(begins, places, side="right") > np.searchsorted(ends, places, side="right")


def _edges(owners: Ints) -> npt.NDArray[np.bool_]:
    """Return the pixels that have a neighbour of another owner."""
    edges = np.zeros(owners.shape, np.bool_)
    edges[:, 1:] |= owners[:, 1:] != owners[:, :-1]
    edges[1:] |= owners[1:] != owners[:-1]
    return edges


def _png(colours: Plane, edges: npt.NDArray[np.bool_]) -> str:
    """Return positions in the palette, from 1 on, as a PNG; 0 is clear and edges are opaque."""
    count = len(palette.COLOURS)
    image = Image.fromarray(np.where(edges & (colours > 0), colours + count, colours).astype(np.uint8), "P")
    inks = [value for place in range(count) for value in palette.rgb(place)]
    image.putpalette([0, 0, 0, *inks, *inks])
    return _uri(image, bytes([0, *[120] * count, *[235] * count]))


def _uri(image: Image.Image, alphas: bytes) -> str:
    """Return an image with a palette, and how opaque each colour of it is, as the ``data:`` URI of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=alphas)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
