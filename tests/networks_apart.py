"""Networks for a process of their own, and openers of steps around them: what an image's pixels say is done to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common.errors import WrongUse
from cvjobs.images.picture import Picture, Pixels
from cvjobs.images.transform import Transform
from cvjobs.prediction.engine.task import Columns

RESULTS = pa.schema([("colour", pa.list_(pa.int64())), ("process", pa.int64())])
SIZE = (4, 4)
EXIT, KILL, ODD, LARGE, SLOW = 255, 254, 253, 252, 251  # of red


def colours(images: Sequence[Pixels]) -> list[list[int]]:
    """What to do is in the red of an image's first pixel."""
    red = [int(pixels[0, 0, 0]) for pixels in images]
    if EXIT in red:
        os._exit(3)
    if KILL in red:
        os.kill(os.getpid(), signal.SIGKILL)
    if ODD in red:
        raise ValueError("odd red")
    if LARGE in red and len(red) > 1:
        raise MemoryError
    if SLOW in red:
        time.sleep(0.2)
    assert all((pixels == pixels[0, 0]).all() for pixels in images)
    return [pixels[0, 0].tolist() for pixels in images]


class Fixed:
    """Takes images of one size, and knows the buffers that it was given."""

    def pin(self, pixels: Pixels) -> bool:
        return pixels.size < 1000

    def __call__(self, pixels: Pixels) -> tuple[list[list[int]], int]:
        assert pixels.dtype == np.uint8
        return colours(list(pixels)), os.getpid()


class Free:
    """Takes pictures."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def __call__(self, pictures: Sequence[Picture]) -> tuple[list[list[int]], int]:
        return colours([picture.pixels for picture in pictures]), os.getpid()


@dataclass
class Step:
    """Makes columns of what a network found, in this process."""

    network: Any

    def __call__(self, images: Any) -> Columns:
        found, process = self.network(images)
        return Columns([pa.array(found, RESULTS.field(0).type), pa.array([process] * len(found), pa.int64())])


class FreeStep(Step):
    """The same for pictures."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        shape: tuple[int, int] = self.network.shape(height, width)
        return shape


@dataclass(frozen=True)
class Opener:
    """``fails``: what loading the network does."""

    free: bool = False
    fails: str = ""

    @property
    def transform(self) -> Transform:
        return Transform(fit="native") if self.free else Transform(size=SIZE, fit="exact", interpolation="nearest")

    @property
    def results(self) -> pa.Schema:
        return RESULTS

    def open(self) -> Any:
        return self.around(self.network())

    def network(self) -> Fixed | Free:
        if self.fails == "refuses":
            raise WrongUse("This network is never loaded.")
        if self.fails == "dies":
            os._exit(9)
        return Free() if self.free else Fixed()

    def around(self, network: Any) -> Any:
        return FreeStep(network) if self.free else Step(network)
