"""Decoders for the tests of decoding; the children import them by name. An image here is a few bytes of text."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from cvjobs.images.decode import Decoded
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable


def toy(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Return an image as wide as the content is long, every value its length modulo 256; some words do harm.

    Without a size its pixels are as many as the content is long, or 75 MB.
    """
    del max_pixels
    _harm(content)
    size = transform.size or ((5000, 5000) if b"LARGE" in content else (1, len(content)))
    return Decoded(np.full((*size, 3), len(content) % 256, np.uint8), len(content), 1, 1)


def numbered(content: bytes, transform: Transform, max_pixels: int) -> Decoded:
    """Return image N of a content that begins with N: every pixel is N in base 256, N + 1 is the width of the source.

    Without a size its pixels have one of 35 sizes. BAD images cannot be decoded.
    """
    del max_pixels
    number = int(content.split()[0])
    if b"BAD" in content:
        raise Undecodable("corrupt", "it says so")
    _harm(content)
    pixels = np.empty((*(transform.size or own_size(number)), 3), np.uint8)
    pixels[:] = number >> 16, number >> 8 & 255, number & 255
    return Decoded(pixels, number + 1, 1, 1)


def own_size(number: int) -> tuple[int, int]:
    """Return height and width of the pixels of image N, where it keeps a size of its own."""
    return 1 + number % 7, 1 + number % 5


def number_of(pixels: Pixels) -> int:
    """Return which image of ``numbered`` some pixels are; all of them say so."""
    assert (pixels == pixels[0, 0]).all()
    high, middle, low = pixels[0, 0].tolist()
    return int(high << 16 | middle << 8 | low)


def _harm(content: bytes) -> None:
    """Do what a word in the content says."""
    if b"POISON" in content:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"ABORT" in content:
        os.abort()
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
