"""Decoders for the tests of decoding; the children import them by name. An image here is a few bytes of text."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from cvjobs.images.decode import Decoded
from cvjobs.images.transform import Transform


def toy(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Return an image as wide as the content is long, every value its length modulo 256; some words do harm.

    Without a size its pixels are as many as the content is long, or 75 MB.
    """
    del max_pixels
    if b"POISON" in content:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"HANG" in content:
        time.sleep(3600)
    if b"STOP" in content:
        os.kill(os.getpid(), signal.SIGSTOP)
    if b"HOG" in content:
        bytearray(4 << 30)
    if b"GLUTTON" in content:
        np.ones(2 << 30, np.uint8)
    if b"SLOW" in content:
        time.sleep(0.02)
    size = transform.size or ((5000, 5000) if b"LARGE" in content else (1, len(content)))
    return Decoded(np.full((*size, 3), len(content) % 256, np.uint8), len(content), 1, 1)
