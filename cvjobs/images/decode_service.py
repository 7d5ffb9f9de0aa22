"""What a decode child does with one message after another; ``decoder_server`` forks it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash

from cvjobs.common.errors import LimitReached
from cvjobs.common.failures import Failure
from cvjobs.images.blank_images import look
from cvjobs.images.decode import Decoded
from cvjobs.images.file_reader import FileReader
from cvjobs.images.ipc import DECODING, FILLING, READING, DecodeProgress, DecodeSettings, Memory, fill, receive, send
from cvjobs.images.measured import MEASURED, MOST_FRAMES, Measurements
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

_NO_MEMORY = "decoding needs more memory than one image may take"

Decoder = Callable[[bytes, Transform, int], Decoded]


class DecodeService:
    """What a child does until its socket ends: reads, hashes and decodes, and puts the pixels where they belong."""

    def __init__(self, descriptors: list[int], settings: DecodeSettings, decoder: Decoder) -> None:
        self._connection = socket.socket(fileno=descriptors[0])
        self._progress = DecodeProgress(Memory(descriptors[1]))
        self._blocks = [Memory(descriptor) for descriptor in descriptors[2:]]
        self._decoder, self._settings = decoder, settings
        self._transform = Transform.load(settings.transform)
        self._buffers: dict[int, int] = {}
        self._files = FileReader(settings.root)

    def run(self) -> None:
        """Answer every message."""
        while True:
            try:
                message, descriptors = receive(self._connection, 1)
            except (EOFError, OSError):
                return
            if descriptors:
                self._buffers[message["buffer"]] = descriptors[0]
            for number in message.get("gone", ()):
                os.close(self._buffers.pop(number))
            began, cpu, waited = time.monotonic(), time.process_time(), self._files.seconds
            answer, measured = self._answer(message)
            answer["seconds"] = time.monotonic() - began
            answer["reading"] = self._files.seconds - waited
            answer["cpu"] = time.process_time() - cpu
            send(self._connection, answer, payload=measured.tobytes())

    def _answer(self, message: dict[str, Any]) -> tuple[dict[str, Any], Measurements]:
        batch: list[int] | None = message.get("at")
        count = len(message["files"] if "files" in message else message["images"])
        measured: Measurements = np.zeros(count, MEASURED)
        answer: dict[str, Any] = {"failed": [], "places": {}}
        block, at = self._blocks[message["block"]], message["length"]
        good: list[int] = []
        decoded_pixels: list[Pixels] = []
        try:
            for image, content in enumerate(self._contents(message, block)):
                if isinstance(content, Failure):
                    answer["failed"].append([image, content.stage, content.code, content.detail, content.attempts])
                    continue
                try:
                    decoded = self._decoder(content, self._transform, self._settings.max_pixels)
                    pixels = decoded.pixels
                    if batch is None:
                        answer["places"][image] = _put(pixels, block, at, self._settings)
                        at += -(-pixels.nbytes // 64) * 64
                    else:
                        decoded_pixels.append(pixels)
                        good.append(image)
                    measured[image] = facts(decoded, content)
                    if batch is None:
                        measured["look"][image] = look([pixels])[0]
                    del decoded, pixels
                except Undecodable as error:
                    answer["failed"].append([image, "decode", error.code, error.detail, 1])
                except MemoryError:
                    answer["failed"].append([image, "decode", "decode_memory", _NO_MEMORY, 1])
        except LimitReached as error:  # of this machine, and no image's fault
            return {**answer, "limit": str(error)}, measured
        if batch is not None and good:
            self._progress.set(message["number"], -1, FILLING)
            measured["look"][good] = look(decoded_pixels)
            fill(self._buffers[message["buffer"]], decoded_pixels, [batch[image] for image in good])
        block.unmap()
        return answer, measured

    def _contents(self, message: dict[str, Any], block: Memory) -> Iterator[bytes | Failure]:
        """Yield the bytes of each image, or why they cannot be read."""
        number = message["number"]
        if "files" not in message:
            for image, (start, length) in enumerate(message["images"]):
                self._progress.set(number, image, DECODING)
                yield bytes(block.view(start + length)[start:])
            return
        contents = self._files.read(message["files"])
        for image in range(len(message["files"])):
            self._progress.set(number, image, READING)
            content = next(contents)
            self._progress.set(number, image, DECODING)
            yield content


def facts(decoded: Decoded, content: bytes) -> tuple[Any, ...]:
    """Return the record of an image, see ``measured.MEASURED``; its look is not known yet."""
    return (
        decoded.width,
        decoded.height,
        min(max(decoded.frames, 1), MOST_FRAMES),
        decoded.truncated,
        decoded.unsaid_bits,
        0,
        xxhash.xxh3_128_digest(content),
    )


def _put(pixels: Pixels, block: Memory, at: int, settings: DecodeSettings) -> tuple[int, int, int]:
    """Copy pixels to a place of a block; return it, their height and their width."""
    height, width = pixels.shape[:2]
    if pixels.nbytes > settings.room:
        raise Undecodable(
            "too_many_pixels",
            f"resized to {width} x {height} it has more than {settings.max_pixels:,} pixels (--max-pixels)",
        )
    try:
        view = block.view(at + pixels.nbytes)
    except OSError as error:  # what mmap raises over the limit of memory
        raise MemoryError from error
    np.copyto(np.frombuffer(view, np.uint8, pixels.nbytes, at).reshape(pixels.shape), pixels)
    return at, height, width
