"""Odd images show what they say, or fail for a reason that is documented; the first rules go on as they are."""

from __future__ import annotations

import hashlib
import json
import zipfile
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from commands import TESTS
from fuzzing import Seeds
from odd_pixels import odd_image

from cvjobs.common import rules
from cvjobs.images.decode import Decoded, decode
from cvjobs.images.magic_bytes import sniff
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

BEFORE = TESTS / "data/before/pixels.zip"
NATIVE = Transform(fit="native", pixel_rules=rules.FIRST)
SMALL = Transform(size=(8, 8), resize=10, pixel_rules=rules.FIRST)
LOSSY = ("JPEG", "AVIF", "WEBP")


def fate(content: bytes, transform: Transform) -> dict[str, Any]:
    try:
        pixels = decode(content, transform, 1_000_000).pixels
    except Undecodable as error:
        return {"code": error.code}
    return {"shape": list(pixels.shape), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


@pytest.mark.filterwarnings("ignore")
def test_the_first_rules_make_the_pixels_that_they_ever_made() -> None:
    with zipfile.ZipFile(BEFORE) as file:
        made = json.loads(file.read("fates.json"))
        same = all(version(name) == then for name, then in made["libraries"].items())
        for number, (native, small) in enumerate(made["fates"]):
            content = file.read(f"{number:03}")
            if not same and sniff(content) in LOSSY:
                continue  # other versions of a decoder round otherwise
            assert fate(content, NATIVE) == native, number
            if same:
                assert fate(content, SMALL) == small, number


def fate_of(content: bytes) -> Decoded | str:
    """Return an image by the newest rules, or the code of its error."""
    try:
        return decode(content, Transform(fit="native"), 1_000_000)
    except Undecodable as error:
        return error.code


@pytest.mark.filterwarnings("ignore")
def test_odd_pixels(seeds: Seeds) -> None:
    for seed in seeds(3):
        generator = np.random.default_rng(seed)
        for _ in range(25):
            odd = odd_image(generator)
            found = fate_of(odd.content)
            if isinstance(found, str):
                assert found in odd.codes, odd.name
                continue
            assert (found.height, found.width) == found.pixels.shape[:2] == odd.shown.shape[:2], odd.name
            assert np.abs(found.pixels - odd.shown).max() <= odd.bound, odd.name
