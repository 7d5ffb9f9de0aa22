"""Every image decoded once, of which only facts stay: size, hash of the content, look, or why there are none."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import devices
from cvjobs.common.failures import Failure
from cvjobs.images.blank_images import LOOKS
from cvjobs.images.dark_images import DarkImages
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader, decoders
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform, Truncated
from cvjobs.sources.reader import LocalSource, Source

SIDE = 32  # pixels to which images are squashed: nothing is made of them
SLICE = 4096  # images that are asked for at once
AGAIN, PAUSE = 8, 5.0  # times that images are asked for which a server did not give, and seconds before each


@dataclass(frozen=True, kw_only=True)
class DecodedFacts:
    """What decoding found out about the n images of a listing, in its order.

    ``sizes`` (n, 2) are height and width of the upright image in pixels, 0 where it failed; ``hashes`` are of the
    content, ``failures`` the reasons, None where there is none; ``looks`` (n,) are places in ``blank_images.LOOKS``.
    ``dark`` is a sentence on images of 16 bits that use fewer, empty without any.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    hashes: list[bytes | None]
    failures: list[Failure | None]
    looks: NDArray[np.uint8]
    dark: str = ""

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which images could be decoded (n,)."""
        return self.sizes[:, 0] > 0

    def look(self, at: int) -> str:
        """Return what an image looks like, empty where there is something to see in it."""
        return LOOKS[self.looks[at]]


@dataclass(frozen=True, kw_only=True)
class FactsRequest:
    """Which images are decoded, and how: key rows, and the options of their decoding."""

    rows: pa.Table
    source: Source
    max_pixels: int
    bits: int | None = None
    truncated: Truncated = "fail"


def decode_all(request: FactsRequest, decoder_server: DecoderServer, tell: Callable[[int], None]) -> DecodedFacts:
    """Decode all images; ``tell`` hears how many are done. Raises what ended the decoders."""
    rows = request.rows
    transform = Transform(size=(SIDE, SIDE), fit="exact", bits=request.bits or 0, truncated=request.truncated)
    how = Decoding(transform=transform, max_pixels=request.max_pixels)
    tray = _Facts(rows["path"])
    with closing(Loader(request.source, how, tray, decoders(devices.cpus()), decoder_server)) as loader:
        asked = 0
        while asked < rows.num_rows:
            some = rows.slice(asked, SLICE)
            loader.ask(some, range(asked, asked + some.num_rows))
            asked += some.num_rows
            tray.until(asked - SLICE // 2 if asked < rows.num_rows else asked, tell)
        if not isinstance(request.source, LocalSource):
            _ask_again(tray, loader, rows, tell)
    return DecodedFacts(
        paths=rows["path"].to_pylist(),
        sizes=tray.sizes,
        hashes=tray.hashes,
        failures=tray.failures,
        looks=tray.looks,
        dark=str(tray.dark) if tray.dark.count else "",
    )


def _ask_again(tray: _Facts, loader: Loader, rows: pa.Table, tell: Callable[[int], None]) -> None:
    """Read anew what a server did not give, while it gives some of it: an outage is no property of an image."""
    for _ in range(AGAIN):
        lost = tray.lost()
        if not lost:
            return
        time.sleep(PAUSE)
        tray.done -= len(lost)
        loader.ask(rows.take(pa.array(lost)), lost)
        tray.until(rows.num_rows, tell)


class _Facts(Arrivals):
    """Where decoders deliver; several of them at once. A tag is the number of an image."""

    def __init__(self, paths: pa.ChunkedArray) -> None:
        super().__init__()
        count = len(paths)
        self.sizes = np.zeros((count, 2), np.int64)
        self.looks = np.zeros(count, np.uint8)
        self.hashes: list[bytes | None] = [None] * count
        self.failures: list[Failure | None] = [None] * count
        self.done = 0
        self.dark = DarkImages()
        self._paths = paths

    def decoded(self, tag: int, measured: Measured, pixels: Pixels) -> None:  # noqa: ARG002 - an outlet's form
        """See ``decode_worker.Outlet``."""
        self.sizes[tag] = measured.height, measured.width
        self.looks[tag] = measured.look
        self.hashes[tag] = measured.content_hash
        self.failures[tag] = None
        if measured.unsaid_bits:
            with self.changed:
                self.dark.add(measured.unsaid_bits, self._paths[tag].as_py())
        self._count()

    def failed(self, tag: int, failure: Failure) -> None:
        """See ``decode_worker.Outlet``."""
        self.failures[tag] = failure
        self._count()

    def _count(self) -> None:
        with self.changed:
            self.done += 1
            self.changed.notify_all()

    def lost(self) -> list[int]:
        """Return the images that a server did not give."""
        return [at for at, failure in enumerate(self.failures) if failure is not None and failure.code == "read_io"]

    def until(self, count: int, tell: Callable[[int], None]) -> None:
        """Wait until so many images have an answer; raises the error that ended a decoder."""
        while True:
            enough = self.wait(lambda: self.done >= count, 0.5)
            tell(self.done)
            if self.error is not None:
                raise self.error
            if enough:
                return
