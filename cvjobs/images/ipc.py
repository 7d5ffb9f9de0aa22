"""What passes between a worker and its decode children: framed JSON on a socket, bytes in shared memory."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import socket
import struct
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cvjobs.images.transform import Transform

_LENGTH = struct.Struct("<I")
_AT = struct.Struct("<qqq")
READING, DECODING, FILLING = range(3)  # what a child does with an image
KEPT = 64 << 20  # bytes of shared memory that stay with a process between two messages


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How children decode: ``decoder`` names a function ``module:name`` with the signature of ``decode.decode``.

    Files that they read themselves lie below ``root``, written as ``path_text`` does.
    """

    decoder: str
    transform: dict[str, Any]
    max_pixels: int
    root: str = ""

    @property
    def room(self) -> int:
        """The bytes that the pixels of one image may take."""
        height, width = Transform.load(self.transform).most or (1, self.max_pixels)
        return int(3 * height * width)


def send(connection: socket.socket, message: Any, descriptors: list[int] | None = None, payload: bytes = b"") -> None:
    """Send a JSON message, open file descriptors with it, and bytes behind it, whose number the message says."""
    content = json.dumps(message).encode()
    frame = _LENGTH.pack(len(content)) + content + payload
    if descriptors:
        sent = socket.send_fds(connection, [frame], descriptors)
        frame = frame[sent:]
    connection.sendall(frame)


def receive(connection: socket.socket, descriptors: int = 0) -> tuple[Any, list[int]]:
    """Return the next message and up to that many descriptors; raises EOFError where the peer is gone."""
    found: list[int] = []
    if descriptors:
        head, found, _, _ = socket.recv_fds(connection, _LENGTH.size, descriptors)
    else:
        head = b""
    head += exactly(connection, _LENGTH.size - len(head))
    return json.loads(exactly(connection, *_LENGTH.unpack(head))), found


def exactly(connection: socket.socket, count: int) -> bytes:
    """Return the next bytes; raises EOFError where the peer is gone."""
    pieces = []
    while count:
        piece = connection.recv(min(count, 1 << 20))
        if not piece:
            raise EOFError("the peer closed the connection")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class Memory:
    """Shared memory without a name that a kill could leave behind; it takes room where it was written to."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _anonymous() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def extend(self, length: int) -> None:
        """Make it at least so long, which costs nothing yet."""
        if os.fstat(self.descriptor).st_size < length:
            os.ftruncate(self.descriptor, length)

    def view(self, length: int) -> memoryview:
        """Return the first ``length`` bytes of what it was extended to."""
        mapped = 0 if self._map is None else len(self._map)
        if self._map is None or mapped < length:
            most = os.fstat(self.descriptor).st_size
            self._map = mmap.mmap(self.descriptor, min(max(length, 2 * mapped, 1 << 16), most))
        return memoryview(self._map)[:length]

    def unmap(self) -> None:
        """Let go of a large view; what it holds stays for the other side."""
        if self._map is not None and len(self._map) > KEPT:
            self._map = None

    def empty(self) -> None:
        """Give the room of a large view back; what it held is gone."""
        if self._map is not None and len(self._map) > KEPT:
            if sys.platform == "linux":
                self._map.madvise(mmap.MADV_REMOVE)
            self._map = None

    def close(self) -> None:
        """Give the memory back; views that are still held keep their pages."""
        os.close(self.descriptor)
        self._map = None


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cvjobs", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Buffer:
    """Shared memory for the pixels of a batch, uint8 (count, height, width, 3); a child maps what it fills alone.

    The memory goes with the last reference, so a decoder that is left behind never names another file by its
    descriptor. ``dropped`` tells those who hold it to let go.
    """

    _numbers = itertools.count()
    _all: ClassVar[weakref.WeakValueDictionary[int, Buffer]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.number, self.dropped = next(self._numbers), False
        self._memory = Memory()
        # Views that are still held keep their pages; at the end of Python a decoder may be at work yet.
        weakref.finalize(self, self._memory.close).atexit = False
        length = 3 * count * size[0] * size[1]
        self._memory.extend(length)
        self.images: NDArray[np.uint8] = np.frombuffer(self._memory.view(length), np.uint8).reshape(count, *size, 3)
        with self._lock:
            self._all[self.number] = self

    @classmethod
    def holding(cls, array: NDArray[np.uint8]) -> tuple[Buffer, int] | None:
        """Return the buffer that an array is a part of, and at which of its bytes that begins."""
        with cls._lock:
            buffers = list(cls._all.values())
        for buffer in buffers:
            at = array.ctypes.data - buffer.images.ctypes.data
            if at >= 0 and at + array.nbytes <= buffer.images.nbytes:
                return buffer, at
        return None

    @property
    def descriptor(self) -> int:
        """What a child gets of it."""
        return self._memory.descriptor


def fill(descriptor: int, images: Sequence[NDArray[np.uint8]], places: Sequence[int]) -> None:
    """Copy images of one shape to their places in a ``Buffer``; nothing around them is mapped for longer."""
    size = images[0].nbytes
    low, high = min(places) * size, (max(places) + 1) * size
    start = low - low % mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(descriptor, high - start, offset=start) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        for image, place in zip(images, places, strict=True):
            at = place * size - start
            view[at : at + size] = image.reshape(-1)
        del view  # or the map could not be closed


class DecodeProgress:
    """Which image a child is at, where its parent can see it even after the child died."""

    def __init__(self, memory: Memory) -> None:
        memory.extend(_AT.size)
        self._view = memory.view(_AT.size)

    def set(self, message: int, image: int, phase: int) -> None:
        """Say which work on an image of a message has begun: one of the three phases."""
        _AT.pack_into(self._view, 0, message, image, phase)

    def get(self) -> tuple[int, int, int]:
        """Return the message, the image and the phase that the child began last."""
        message, image, phase = _AT.unpack_from(self._view, 0)
        return message, image, phase
