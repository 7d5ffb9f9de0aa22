"""What passes through a file on its way to rest: counted and hashed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

BUFFER = 1 << 20


@dataclass(frozen=True)
class Written:
    """What was published: length in bytes and sha256 (hex) of the content."""

    bytes: int
    sha256: str


class HashingFile(io.RawIOBase):
    """A file that hands bytes on to ``put``, which returns how many of them it took."""

    def __init__(self, put: Callable[[memoryview], int]) -> None:
        self._put, self._length, self._hash = put, 0, hashlib.sha256()
        self._abandoned = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: object) -> int:
        """Hand on what there is room for, and return how many bytes that were."""
        view = memoryview(content)  # type: ignore[arg-type]
        if self._abandoned:
            return len(view)
        count = self._put(view)
        self._hash.update(view[:count])
        self._length += count
        return count

    def fill(self, fill: Callable[[BinaryIO], None]) -> Written:
        """Let ``fill`` write its content, and return what it was."""
        try:
            buffered = io.BufferedWriter(self, BUFFER)
            fill(buffered)
            buffered.flush()
            return Written(self._length, self._hash.hexdigest())
        finally:
            # A buffer that could not be written is flushed once more when Python collects it; by then the
            # file, or the number of its descriptor, may be another one.
            self._abandoned = True
