"""The program of the decode children: one preloaded parent that forks, and children that decode until closed.

Started as ``python -m cvjobs.images.decoder_server FD``; never a fork of the worker: that has threads and perhaps a
GPU. A child that is killed takes nothing with it; all end when their socket closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xxhash

from cvjobs.images.blank_images import look
from cvjobs.images.decode import Decoded, prepare
from cvjobs.images.ipc import DecodeProgress, DecodeSettings, Memory, receive, send
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

ROOM = 3 << 30
_DIE_WITH_PARENT = 1

Decoder = Callable[[bytes, Transform, int], Decoded]


def main() -> None:
    """Preload, then fork a child for each socket that arrives, until the worker closes ours."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the worker decides when to end
        signal.signal(number, signal.SIG_IGN)
    prepare()
    gc.freeze()
    try:
        send(control, {"ready": os.getpid()})
    except OSError:
        return  # there was nothing to decode after all
    while True:
        try:
            message, descriptors = receive(control, 4)
        except (EOFError, OSError):
            return
        settings = DecodeSettings(**message)
        decoder = _decoder(settings.decoder)
        pid = os.fork()
        if pid == 0:
            control.close()
            _serve(descriptors, decoder, settings)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        send(control, {"pid": pid})


def _decoder(name: str) -> Decoder:
    module, _, function = name.partition(":")
    decoder: Decoder = getattr(importlib.import_module(module), function)
    return decoder


def _limit() -> None:
    """Bound what one image can take: memory, files, core dumps; and end with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + ROOM
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        room = room if most == resource.RLIM_INFINITY else min(room, most)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        # Where memory runs out, the system ends a child, which costs nothing, and not the command.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _serve(descriptors: list[int], decoder: Decoder, settings: DecodeSettings) -> None:
    connection = socket.socket(fileno=descriptors[0])
    progress = DecodeProgress(Memory(descriptors[1]))
    blocks = [Memory(descriptor) for descriptor in descriptors[2:]]
    transform = Transform.load(settings.transform)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # libraries print warnings about bad images; our answer says it better
    os.dup2(nowhere, 2)
    _limit()
    while True:
        try:
            message, _ = receive(connection)
        except (EOFError, OSError):
            return
        block, at = blocks[message["block"]], message["length"]
        began, cpu = time.monotonic(), time.process_time()
        answers = []
        for number, (start, length) in enumerate(message["images"]):
            progress.set(message["number"], number)
            content = bytes(block.view(start + length)[start:])
            try:
                decoded = decoder(content, transform, settings.max_pixels)
                answers.append([*_put(decoded, block, at, settings), xxhash.xxh3_128_hexdigest(content)])
                at += -(-decoded.pixels.nbytes // 64) * 64
                del decoded
            except Undecodable as error:
                answers.append([error.code, error.detail])
            except MemoryError:
                answers.append(["decode_memory", "decoding needs more memory than one image may take"])
        block.unmap()
        took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
        send(connection, {"answers": answers, **took})


def _put(decoded: Decoded, block: Memory, at: int, settings: DecodeSettings) -> list[int]:
    """Copy pixels to a place of a block: [at, their height and width, then as in ``Measured``]."""
    pixels = decoded.pixels
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
    facts = [decoded.width, decoded.height, decoded.frames, decoded.truncated, decoded.unsaid_bits, look(pixels)]
    return [at, height, width, *facts]


if __name__ == "__main__":
    main()
