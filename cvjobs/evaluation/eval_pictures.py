"""The images that an evaluation shows, from where the run read them: whole, or the piece around a box."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from cvjobs.evaluation.predictions import EvaluatedOutput
from cvjobs.html.overlays import Shape
from cvjobs.html.thumbnails import Thumbnail, encoded, thumbnails
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.masks import rle
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.reader import Source, open_source
from cvjobs.storage.storage_options import Options

COLUMNS = ["path", "bytes", "modified", "width", "height"]
BUDGET = 30.0  # seconds
TRIED = 3
QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class EvalPicture:
    """An image of the predictions: its picture, and the (height, width) of the upright image in pixels."""

    path: str
    picture: Thumbnail
    size: tuple[int, int]


def read(output: EvaluatedOutput, rows: Sequence[int], size: int, options: Options) -> dict[int, EvalPicture]:
    """Return images by their row; the longer side of a picture is at most ``size``. A missing one costs its picture."""
    wanted = np.unique(np.asarray(rows, np.int64))
    keys = output.reader.take(COLUMNS, wanted)
    source = open_source(output.reader.snapshot.root, output.reader.base, options, output.reader.confined)
    pictures = [Thumbnail(reason="the image is not where it was")] * len(wanted)
    if any(_readable(source, keys.slice(i, 1)) for i in range(min(TRIED, keys.num_rows))):
        with closing(DecoderServer()) as decoder_server:
            like = output.reader.snapshot.resolved.get("transform", {})
            pictures = thumbnails(source, keys, BUDGET, size, decoder_server, like)
    columns = (keys[name].to_pylist() for name in ("path", "height", "width"))
    return {
        row: EvalPicture(path=path, picture=picture, size=(height, width))
        for row, picture, path, height, width in zip(wanted.tolist(), pictures, *columns, strict=True)
    }


def around(
    shown: EvalPicture, box: Sequence[float], shapes: Sequence[Shape]
) -> tuple[Thumbnail, tuple[int, int], list[Shape]]:
    """Return the piece of a picture around a box (x0, y0, x1, y1), its size in image pixels, and the shapes in it."""
    height, width = shown.size
    left, right = _window(box[0], box[2], width)
    top, bottom = _window(box[1], box[3], height)
    moved = [_moved(shape, (top, left), (bottom - top, right - left), shown.size) for shape in shapes]
    piece = shown.picture
    if piece.uri:
        across, down = piece.width / width, piece.height / height
        with Image.open(io.BytesIO(base64.b64decode(piece.uri.partition(",")[2]))) as image:
            edges = (int(left * across), int(top * down), round(right * across), round(bottom * down))
            cut = image.crop((edges[0], edges[1], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)))
        cut.thumbnail((420, 420))
        piece = encoded(cut, QUALITY)
    return piece, (bottom - top, right - left), [shape for shape in moved if shape is not None]


def _window(low: float, high: float, whole: int) -> tuple[int, int]:
    """Return where a piece begins and ends: the side and half as much before and after it, at least 64 pixels."""
    length = min(max(2 * (high - low), 64.0), whole)
    begin = min(max((low + high - length) / 2, 0), whole - length)
    return int(begin), min(max(round(begin + length), int(begin) + 1), whole)


def _moved(shape: Shape, corner: tuple[int, int], size: tuple[int, int], image: tuple[int, int]) -> Shape | None:
    """Return a shape in the coordinates of a piece, None where it lies outside."""
    (top, left), (height, width) = corner, size
    x0, x1 = (x - left for x in shape.box[::2])
    y0, y1 = (y - top for y in shape.box[1::2])
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        return None
    text = ""
    if shape.rle:
        try:
            text = rle.encode(rle.decode(shape.rle, *image)[top : top + height, left : left + width], (0, 0), size)
        except ValueError:
            text = ""
    return Shape(
        category_id=shape.category_id,
        label=shape.label,
        box=(x0, y0, x1, y1),
        score=shape.score,
        rle=text,
        dashed=shape.dashed,
    )


def _readable(source: Source, row: pa.Table) -> bool:
    """Return whether an image is still there: decoders are not started for a source that went away."""
    try:
        source.read(row["path"][0].as_py(), row["bytes"][0].as_py(), row["modified"].cast(pa.int64())[0].as_py())
    except Unreadable:
        return False
    return True
