"""What decoding finds out about source images: of one, and of many as an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_FRAMES = 2**31 - 1
HASH_BYTES = 16

# One record for each image; the fields are those of ``Measured``.
MEASURED = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("frames", np.int32),
        ("truncated", np.bool_),
        ("unsaid_bits", np.uint8),
        ("look", np.uint8),
        ("content_hash", f"V{HASH_BYTES}"),
    ]
)

Measurements = NDArray[np.void]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What decoding found out about a source image: upright size in pixels, frames, hash of the content.

    The number of frames is what the file says, from 1 to ``MOST_FRAMES``: a file may claim any number. ``look`` is a
    place in ``blank_images.LOOKS``; the others are as in ``decode.Decoded``.
    """

    width: int
    height: int
    frames: int
    content_hash: bytes
    truncated: bool = False
    unsaid_bits: int = 0
    look: int = 0

    @property
    def record(self) -> tuple[Any, ...]:
        """The values in the order of ``MEASURED``."""
        return tuple(getattr(self, name) for name in MEASURED.names or ())


def together(images: Sequence[Measured]) -> Measurements:
    """Return an array with a record for each image."""
    found: Measurements = np.array([image.record for image in images], MEASURED)
    return found


def apart(records: Measurements) -> list[Measured]:
    """Return what an array says, image by image."""
    return [Measured(**dict(zip(MEASURED.names or (), record, strict=True))) for record in records.tolist()]


def content_hashes(records: Measurements) -> list[bytes]:
    """Return the hash of each image's content."""
    raw = records["content_hash"].tobytes()
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
