"""Damaged files, many of them: pixels or a reason, and what lies behind the first picture costs nothing."""

from __future__ import annotations

import resource
import time
from functools import cache
from typing import Any

import numpy as np
import odd_damage
from fuzzing import Seeds

from cvjobs.common.failures import CODES
from cvjobs.images.decode import Decoded, decode
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

EACH = 40  # files of a seed
LIMIT = 2_000_000
NATIVE = Transform(fit="native")
TRANSFORMS = [
    Transform(fit="native", truncated="use"),
    Transform(fit="native", pixel_rules=1),
    Transform(size=(16, 16), resize=18),
    Transform(size=(24, 16), fit="exact", truncated="use"),
    Transform(size=(16, 16), resize=18, interpolation="bicubic", pixel_rules=1, truncated="use"),
    Transform(resize=32, truncated="use"),
]


@cache
def pixels(content: bytes) -> Any:
    return decode(content, NATIVE, LIMIT).pixels


def answer(content: bytes, transform: Transform) -> Decoded | Undecodable:
    """What decoding comes to; any other exception is a fault."""
    try:
        return decode(content, transform, LIMIT)
    except Undecodable as error:
        return error


def test_odd_damage(seeds: Seeds) -> None:
    for seed in seeds(3):
        generator = np.random.default_rng(seed)
        for number in range(EACH):
            one = odd_damage.damaged(generator)
            said = f"file {number} of seed {seed}: {one.what} of {one.sound.name}"
            began = time.process_time()
            found = answer(one.content, NATIVE)
            if one.harmless:
                assert isinstance(found, Decoded), f"{said}: {found!r}, {found.__cause__!r}"
                assert np.array_equal(found.pixels, pixels(one.sound.content)), said
                assert not found.truncated, said
            for other in [found, answer(one.content, TRANSFORMS[int(generator.integers(len(TRANSFORMS)))])]:
                if isinstance(other, Undecodable):
                    assert other.code in CODES, said
                    assert other.code not in ("decode_memory", "decode_crash"), said
                    assert "Error" not in other.detail, said
                else:
                    assert other.frames >= 1, said
            assert time.process_time() - began < 5, said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20
