"""Decoders that do harm, for the end-to-end tests; run as a program, ``embed`` with one: DECODER SOURCE OUT WORKERS."""

from __future__ import annotations

import os
import signal
import sys
import time

import psutil

from cvjobs.images.decode import Decoded, decode
from cvjobs.images.transform import Transform

POISON = b"poison"  # at the end of an image that does harm; JPEG decoders do not look there
HANG, HOG = b"hang", b"hog"


def die(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Kill the own process on a poisoned image."""
    if content.endswith(POISON):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(content, transform, max_pixels)


def harm(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Abort, hang or take all memory on an image that ends with such a word."""
    if content.endswith(POISON):
        os.abort()
    if content.endswith(HANG):
        time.sleep(3600)
    if content.endswith(HOG):
        bytearray(4 << 30)
    return decode(content, transform, max_pixels)


def kill_worker(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Kill the worker on a poisoned image: the parent of the process that forks the decoders."""
    if content.endswith(POISON):
        psutil.Process().parent().parent().kill()  # type: ignore[union-attr]
        signal.pause()
    return decode(content, transform, max_pixels)


def drowse(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Sleep before each image."""
    time.sleep(0.07)
    return decode(content, transform, max_pixels)


def main() -> None:
    """Run ``embed`` with a decoder of this module."""
    from cvjobs.common.errors import CvjobsError
    from cvjobs.config import commands
    from cvjobs.prediction import run

    decoder, source, out, workers = sys.argv[1:]
    embed = commands.load("embed")
    config = embed.Config(source=source, out=out, model="thumbnail/4", workers=int(workers))
    try:
        summary = run.run(config, embed.EmbedJob(config), decoder=f"decoders_e2e:{decoder}")
    except CvjobsError as error:
        print(f"cvjobs: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(summary)
    sys.exit(summary.exit_code)


if __name__ == "__main__":
    main()
