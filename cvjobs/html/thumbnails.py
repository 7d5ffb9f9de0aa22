"""Small pictures of listed images for a page, decoded in the isolated children: a bad image costs its own picture."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from cvjobs.common import devices
from cvjobs.common.errors import CvjobsError
from cvjobs.common.failures import Failure
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.sources.reader import Source

SIZE = 160
QUALITY = 78
DECODERS = 4
PATIENCE = 10.0
MAX_PIXELS = 80_000_000
REASONS = {"changed_during_run": "changed since"}  # the page's run is over: the image changed after it


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG as a ``data:`` URI with its width and height in pixels, or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


LATE = Thumbnail(reason="not read in time")


def thumbnails(
    source: Source,
    rows: pa.Table,
    budget: float,
    size: int = SIZE,
    decoder_server: DecoderServer | None = None,
    like: object = None,
) -> list[Thumbnail]:
    """Return one thumbnail for each key row (path, bytes, modified), in their order; never raises for an image.

    The longer side is at most ``size`` pixels, and never larger than the image. After ``budget`` seconds what is not
    there yet has a reason instead. A ``decoder_server`` that is given stays open; without one, a cold one costs 2 s.
    Pixels are made by the rules of ``like``, the record of a transform; by the newest without one.
    """
    if not rows.num_rows:
        return []
    until = time.monotonic() + budget
    transform = Transform(size=(size, size), fit="exact", truncated="use")
    how = Decoding(transform=transform if like is None else transform.like(like), max_pixels=MAX_PIXELS)
    tray = _Tray(rows.num_rows, size)
    # One image a chunk, so that all decoders have some.
    loader = Loader(source, how, tray, min(devices.cpus(), DECODERS, rows.num_rows), decoder_server, together=1)
    whole = False
    try:
        loader.ask(rows, range(rows.num_rows))
        whole = tray.full(until)
    finally:
        loader.close(PATIENCE if whole else 0.0)
    return tray.images()


class _Tray(Arrivals):
    """Where decoders deliver; several of them at once."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self._images: list[Thumbnail | None] = [None] * count
        self._size = size

    def decoded(self, tag: int, measured: Measured, pixels: Pixels) -> None:
        """See ``decode_worker.Outlet``."""
        self._put(tag, _encode(pixels, measured, self._size))

    def failed(self, tag: int, failure: Failure) -> None:
        """See ``decode_worker.Outlet``."""
        self._put(tag, Thumbnail(reason=REASONS.get(failure.code, failure.code.replace("_", " "))))

    def _put(self, tag: int, image: Thumbnail) -> None:
        with self.changed:
            self._images[tag] = image
            self.changed.notify_all()

    def full(self, until: float) -> bool:
        """Wait until every image has an answer; False where the time ended first, or the decoders did."""
        return self.wait(lambda: all(self._images), max(until - time.monotonic(), 0.0))

    def images(self) -> list[Thumbnail]:
        """Return what there is; raises an error that is a bug, while decoders that cannot run cost the pictures."""
        with self.changed:
            if self.error is not None and not isinstance(self.error, CvjobsError):
                raise self.error
            return [image or LATE for image in self._images]


def _encode(pixels: Pixels, measured: Measured, size: int) -> Thumbnail:
    """Bring squashed pixels, uint8 (size, size, 3), to the shape of their image and encode them."""
    scale = min(size / max(measured.width, measured.height), 1.0)
    shape = max(round(measured.width * scale), 1), max(round(measured.height * scale), 1)
    return encoded(Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC))


def encoded(image: Image.Image, quality: int = QUALITY) -> Thumbnail:
    """Return an RGB image as a thumbnail of its own size; ``quality`` is JPEG's, 1..95."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", *image.size)
