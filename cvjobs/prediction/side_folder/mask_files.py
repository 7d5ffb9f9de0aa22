"""The masks of results, as PNGs: a class map as it is, or the number of the object in each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.dataset.schema import CLASS_MAP, DETECTIONS
from cvjobs.images.masks import png, rle

THREADS = 4
DEEPEST = np.iinfo(np.uint16).max


class Masks:
    """See ``sync.Maker``; ``task`` is that of the output."""

    version = b"1"

    def __init__(self, task: str) -> None:
        self._semantic = task == "semantic"
        self.columns = [CLASS_MAP] if self._semantic else ["height", "width", DETECTIONS]

    def make(self, table: pa.Table, rows: list[int], put: Callable[[int, bytes], None]) -> Iterator[int]:
        """See ``sync.Maker``."""

        def one(row: int) -> int:
            put(row, self._content(table, row))
            return row

        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="masks")
        try:
            yield from threads.map(one, rows)
        finally:
            threads.shutdown(cancel_futures=True)

    def _content(self, table: pa.Table, row: int) -> bytes:
        if self._semantic:
            content: bytes = table[CLASS_MAP][row].as_py()
            return content
        rles = [found["rle"] for found in table[DETECTIONS][row].as_py() or ()]
        return png.encode(instance_map(rles, table["height"][row].as_py(), table["width"][row].as_py()))


def instance_map(rles: Sequence[str], height: int, width: int) -> NDArray[Any]:
    """Return the number of the object in each pixel, (height, width), uint8 or above 255 objects uint16.

    They count from 1 in their order, and of two in one pixel it is the first's; 0 is none.
    """
    numbers = np.zeros((height, width), np.uint8 if len(rles) <= np.iinfo(np.uint8).max else np.uint16)
    for number in range(min(len(rles), DEEPEST), 0, -1):
        crop, (top, left) = rle.decode_crop(rles[number - 1], height, width)
        below = numbers[top : top + crop.shape[0], left : left + crop.shape[1]]
        below[crop.astype(bool)] = number
    return numbers
