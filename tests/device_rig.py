"""Plain JPEGs, places for a few images, and the loader that has a process decode them as a device would."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from commands import aged
from PIL import Image

from cvjobs.common.failures import Failure
from cvjobs.images import device_worker
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.decode_worker import Chunk, Places
from cvjobs.images.ipc import Buffer
from cvjobs.images.loader import Decoding, Loader
from cvjobs.images.measured import Measurements, apart
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import open_source

SMALL = Transform(size=(32, 32), resize=36, decoder="gpu")
NEAR = 12  # of 255: a smaller picture is decoded to a scale by the processor, and all of it here


def photo(number: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **how: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **{"quality": 92, **how})
    return content.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


class Basket:
    """Places for a few images, and what came of them."""

    def __init__(self, count: int) -> None:
        self._buffer, self._taken, self._count = Buffer(count, (32, 32)), 0, count
        self._lock = threading.Lock()
        self.good: dict[Any, tuple[Any, Pixels]] = {}
        self.bad: dict[Any, Failure] = {}
        self.errors: list[BaseException] = []

    @property
    def answers(self) -> int:
        return len(self.good) + len(self.bad)

    def reserve(self, count: int, wait: bool) -> Places | None:
        del wait
        with self._lock:
            start = self._taken
            self._taken = min(start + count, self._count)
            return Places(self._buffer, list(range(start, self._taken)), None)

    def filled(self, chunk: Chunk, measured: Measurements, failures: Mapping[int, Failure]) -> None:
        assert chunk.places is not None
        facts = apart(measured)
        with self._lock:
            for i, tag in enumerate(chunk.tags):
                assert tag not in self.good
                assert tag not in self.bad
                if i in failures:
                    self.bad[tag] = failures[i]
                else:
                    self.good[tag] = facts[i], self._buffer.images[chunk.places.at[i]].copy()

    def failed(self, tag: Any, failure: Failure) -> None:
        self.bad[tag] = failure

    def broken(self, error: BaseException) -> None:
        self.errors.append(error)


def programs(name: str = "") -> list[psutil.Process]:
    """The living processes that run a program below this one: that of the device without a name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if (name or device_worker.PROGRAM) in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def loading(
    folder: Path, basket: Basket, decoders: int = 0, *, together: int = 8, server: DecoderServer | None = None
) -> Iterator[None]:
    """While a loader decodes all images of a folder."""
    listing = list_source(str(aged(folder)))
    how = Decoding(transform=SMALL, max_pixels=1_000_000)
    source = open_source(listing.root, listing.base, {})
    with (
        closing(server or DecoderServer()) as parent,
        closing(Loader(source, how, basket, decoders, parent, together, batches=basket)) as loader,
    ):
        loader.ask(listing.images, listing.images["path"].to_pylist())
        yield
