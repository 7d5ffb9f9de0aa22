"""What passes between a worker and its decode children: framed JSON on a socket, bytes in shared memory."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("<I")
_AT = struct.Struct("<qq")
KEPT = 64 << 20  # bytes of shared memory that stay with a process between two messages


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How children decode: ``decoder`` names a function ``module:name`` with the signature of ``decode.decode``."""

    decoder: str
    transform: dict[str, Any]
    max_pixels: int

    @property
    def room(self) -> int:
        """The bytes that the pixels of one image may take."""
        height, width = self.transform["size"] or (1, self.max_pixels)
        return int(3 * height * width)


def send(connection: socket.socket, message: Any, descriptors: list[int] | None = None) -> None:
    """Send a JSON message, and open file descriptors with it."""
    content = json.dumps(message).encode()
    frame = _LENGTH.pack(len(content)) + content
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
    head += _exactly(connection, _LENGTH.size - len(head))
    return json.loads(_exactly(connection, *_LENGTH.unpack(head))), found


def _exactly(connection: socket.socket, count: int) -> bytes:
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


class DecodeProgress:
    """Which image a child is at, where its parent can see it even after the child died."""

    def __init__(self, memory: Memory) -> None:
        memory.extend(_AT.size)
        self._view = memory.view(_AT.size)

    def set(self, message: int, image: int) -> None:
        """Say that work on an image of a message has begun."""
        _AT.pack_into(self._view, 0, message, image)

    def get(self) -> tuple[int, int]:
        """Return the message and the image that the child began last."""
        message, image = _AT.unpack_from(self._view, 0)
        return message, image
