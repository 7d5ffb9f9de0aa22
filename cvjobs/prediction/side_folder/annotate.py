"""An image with what was found in it: boxes with names and scores, masks, and below them what the colours mean."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cvjobs.common.categories import Category
from cvjobs.common.formatting import percent, shortened
from cvjobs.html import overlays, palette
from cvjobs.html.overlays import Shape
from cvjobs.images.picture import Pixels

LONGEST = 2048  # pixels of a picture's longer side
MOST = 1000  # boxes that are drawn
NAMED = 40  # characters of a name
QUALITY = 90
INK, PAPER = (17, 17, 17), (255, 255, 255)
Entry = tuple[int, str]  # a category id and what the legend says of it


def opened(pixels: Pixels) -> Image.Image:
    """Return pixels, uint8 (height, width, 3), as an image of at most LONGEST pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > LONGEST:
        scale = LONGEST / max(image.size)
        image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    return image


def objects(image: Image.Image, shapes: Sequence[Shape], size: tuple[int, int]) -> Image.Image:
    """Return an image with the shapes found in it, the most important on top; ``size`` is (height, width) of theirs."""
    over = overlays.draw(shapes, size, (image.height, image.width), most=MOST)
    image = _covered(image, over.mask)
    draw, font = ImageDraw.Draw(image), _font(image)
    line = max(round(max(image.size) / 400), 2)
    shown = [shape for shape in shapes if np.isfinite(shape.box).all()][:MOST]
    for box in reversed(over.boxes):
        corner = box.x + max(box.width - 1, 0), box.y + max(box.height - 1, 0)
        draw.rectangle((box.x, box.y, *corner), outline=palette.rgb(box.colour), width=line)
    for dot in reversed(over.dots):
        radius = max(dot.radius, 1.0)
        draw.circle((dot.x, dot.y), radius + 1, INK)
        draw.circle((dot.x, dot.y), radius, palette.rgb(dot.colour))
    for shape, box in reversed(list(zip(shown, over.boxes, strict=True))):
        score = "" if shape.score is None else f" {shape.score:.2f}"
        _tag(draw, f"{shortened(shape.label, NAMED)}{score}", (box.x, box.y), palette.rgb(box.colour), font)
    if not over.mask:
        return image
    counts: dict[Entry, int] = {}
    for shape in shown:
        counts[shape.category_id, shape.label] = counts.get((shape.category_id, shape.label), 0) + 1
    return _with_legend(image, [(id_, f"{label} {count:,}") for (id_, label), count in counts.items()])


def classes(
    image: Image.Image, png: bytes, known: Sequence[Category], pixels: dict[int, int], size: tuple[int, int]
) -> Image.Image:
    """Return an image with its class map, a PNG, over it; ``pixels`` of each class that is in it, by id.

    Raises ValueError or OSError for a damaged map.
    """
    over = overlays.colour_map(png, [c.id for c in known], (image.height, image.width))
    share = {c: pixels[c.id] / max(size[0] * size[1], 1) for c in known if pixels.get(c.id)}
    legend = sorted(share, key=lambda c: -share[c])
    return _with_legend(_covered(image, over.mask), [(c.id, f"{c.name} {percent(share[c])}") for c in legend])


def encoded(image: Image.Image) -> bytes:
    """Return an image as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _covered(image: Image.Image, mask: str) -> Image.Image:
    """Return an image with a mask of ``overlays`` over it."""
    if not mask:
        return image
    with Image.open(io.BytesIO(base64.b64decode(mask.partition(",")[2])), formats=["PNG"]) as over:
        return Image.alpha_composite(image.convert("RGBA"), over.convert("RGBA")).convert("RGB")


def _font(image: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(min(max(max(image.size) / 60, 11), 32))


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write a name above the corner of a box, or inside where there is no room, and never beyond the picture."""
    _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right + 6, bottom + 4
    x = max(min(corner[0], draw.im.size[0] - width), 0)
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3, y + 1), text, fill=INK, font=font)


def _with_legend(image: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Return an image with a strip below it that names the colours."""
    if not entries:
        return image
    font = _font(image)
    draw = ImageDraw.Draw(image)
    texts = [(id_, shortened(text, NAMED)) for id_, text in entries]
    high = round(max(draw.textbbox((0, 0), text, font=font)[3] for _, text in texts)) + 6
    places, x, y = [], 6.0, 4
    for id_, text in texts:
        wide = draw.textlength(text, font=font) + high + 14
        if x > 6 and x + wide > image.width:
            x, y = 6.0, y + high
        places.append((id_, text, x, y))
        x += wide
    whole = Image.new("RGB", (image.width, image.height + y + high + 4), PAPER)
    whole.paste(image)
    draw = ImageDraw.Draw(whole)
    for id_, text, left, top in places:
        at = top + image.height
        draw.rectangle((left, at + 3, left + high - 8, at + high - 5), fill=palette.rgb(id_))
        draw.text((left + high - 2, at + 1), text, fill=INK, font=font)
    return whole
