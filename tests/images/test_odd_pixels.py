"""Odd images show what they say, or fail for a reason that is documented; the first rules go on as they are."""

from __future__ import annotations

import hashlib
import json
import zipfile
from importlib.metadata import version
from typing import Any

import pytest
from commands import TESTS

from cvjobs.common import rules
from cvjobs.images.decode import Undecodable, decode, sniff
from cvjobs.images.transform import Transform

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
