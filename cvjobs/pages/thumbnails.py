"""Small pictures of listed images for a page, decoded in the isolated children: a bad image costs its own picture."""

from __future__ import annotations

import base64
import contextlib
import io
import queue
import threading
import time
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from cvjobs import devices
from cvjobs.decoding.lanes import Children, Chunk, Lane, Measured, Nursery
from cvjobs.errors import CvjobsError
from cvjobs.images import Pixels
from cvjobs.records import Failure, Transform
from cvjobs.source import Source
from cvjobs.stage.fetching import Fetcher

SIZE = 160
QUALITY = 78
LANES = 4
MAX_PIXELS = 80_000_000


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG as a ``data:`` URI with its width and height in pixels, or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


LATE = Thumbnail(reason="not read in time")


def thumbnails(
    source: Source, rows: pa.Table, budget: float, size: int = SIZE, nursery: Nursery | None = None
) -> list[Thumbnail]:
    """Return one thumbnail for each key row (path, bytes, modified), in their order; never raises for an image.

    The longer side is at most ``size`` pixels, and never larger than the image. After ``budget`` seconds what is not
    there yet has a reason instead. A warm ``nursery`` is shared and stays open; without one, a cold one costs 2 s.
    """
    if not rows.num_rows:
        return []
    until = time.monotonic() + budget
    transform = Transform(size=(size, size), fit="exact")
    tray = _Tray(rows.num_rows, size)
    chunks: queue.Queue[Chunk | None] = queue.Queue()  # the fetcher bounds the bytes in it
    with closing(Children(transform, MAX_PIXELS, nursery=nursery)) as children:
        lanes = [Lane(children, chunks, tray) for _ in range(min(devices.cpus(), LANES, rows.num_rows))]
        fetcher = Fetcher(source, chunks, tray.failed, tray.broken, source.threads)
        stamps = rows["modified"].cast(pa.int64()).to_pylist()
        for row in zip(range(rows.num_rows), rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps, strict=True):
            fetcher.ask([row])  # one image a chunk, so that all lanes have some
        for lane in lanes:
            lane.start()
        whole = tray.wait(until)
        fetcher.stop()
        fetcher.close(0.0)
        with contextlib.suppress(queue.Empty):
            while True:
                chunks.get_nowait()
        for _ in lanes:
            chunks.put(None)
        for lane in lanes:
            lane.join(None if whole else 0.0)  # one whose child hangs ends with its child
    return tray.images()


class _Tray:
    """Where lanes deliver; several of them at once."""

    def __init__(self, count: int, size: int) -> None:
        self._images: list[Thumbnail | None] = [None] * count
        self._size = size
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def decoded(self, tag: int, measured: Measured, pixels: Pixels) -> None:
        """See ``lanes.Outlet``."""
        self._put(tag, _encode(pixels, measured, self._size))

    def failed(self, tag: int, failure: Failure) -> None:
        """See ``lanes.Outlet``."""
        self._put(tag, Thumbnail(reason=failure.code.replace("_", " ")))

    def broken(self, error: BaseException) -> None:
        """See ``lanes.Outlet``."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _put(self, tag: int, image: Thumbnail) -> None:
        with self._changed:
            self._images[tag] = image
            self._changed.notify_all()

    def wait(self, until: float) -> bool:
        """Wait until every image has an answer; False where the time ended first, or the decoders did."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or all(self._images), max(until - time.monotonic(), 0.0))
            return all(self._images)

    def images(self) -> list[Thumbnail]:
        """Return what there is; raises an error that is a bug, while decoders that cannot run cost the pictures."""
        with self._changed:
            if self._error is not None and not isinstance(self._error, CvjobsError):
                raise self._error
            return [image or LATE for image in self._images]


def _encode(pixels: Pixels, measured: Measured, size: int) -> Thumbnail:
    """Bring squashed pixels, uint8 (size, size, 3), to the shape of their image and encode them."""
    scale = min(size / max(measured.width, measured.height), 1.0)
    shape = max(round(measured.width * scale), 1), max(round(measured.height * scale), 1)
    return encoded(Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC))


def encoded(image: Image.Image) -> Thumbnail:
    """Return an RGB image as a thumbnail of its own size."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", *image.size)
