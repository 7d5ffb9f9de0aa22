"""JPEGs decoded many at a time by a process of its own; without a GPU that process computes on the processor."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import aged, end, until
from device_rig import NEAR, SMALL, Basket, exif, jpeg, photo, programs

from cvjobs.images import device_resizing, resizing
from cvjobs.images.decode import decode
from cvjobs.images.loader import Decoding, Loader
from cvjobs.images.transform import Transform
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import open_source


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 120), (33, 80), (20, 20), (32, 36)])
@pytest.mark.parametrize("fit", ["short", "exact"])
def test_resizing_is_that_of_the_processor(fit: Any, size: tuple[int, int], interpolation: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    transform = Transform(size=(32, 32), resize=36, fit=fit, interpolation=interpolation)
    found = device_resizing.fit(torch.from_numpy(pixels).permute(0, 3, 1, 2), transform).numpy()
    for one, image in zip(found, pixels, strict=True):
        difference = np.abs(one.astype(int) - resizing.fit(image, transform))
        assert difference.max() <= 2


def mixed(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """A folder of all kinds: suited, for the processor, damaged."""
    folder.mkdir()
    contents = {f"{number:03}.jpg": jpeg(photo(number, (60 + number, 90))) for number in range(60)}
    contents |= {f"turned{number}.jpg": jpeg(photo(number), exif=exif(number)) for number in range(2, 9)}
    contents["progressive.jpg"] = jpeg(photo(3), progressive=True)
    contents["cmyk.jpg"] = jpeg(photo(3).convert("CMYK"))
    contents["cut.jpg"] = jpeg(photo(3))[:-300]
    contents["nothing.jpg"] = b""
    contents["no.jpg"] = b"no image"
    content = io.BytesIO()
    photo(4).save(content, "PNG")
    contents["a.png"] = content.getvalue()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return aged(folder), contents


@pytest.mark.slow
def test_every_image_of_a_folder_has_its_own_pixels_or_failure(tmp_path: Path) -> None:
    source, contents = mixed(tmp_path / "photos")
    listing = list_source(str(source))
    basket = Basket(len(contents))
    how = Decoding(transform=SMALL, max_pixels=1_000_000)
    loader = Loader(open_source(listing.root, listing.base, {}), how, basket, 0, together=8, batches=basket)
    try:
        loader.ask(listing.images, listing.images["path"].to_pylist())
        until(lambda: basket.answers == len(contents) or basket.errors)
    finally:
        loader.close()
    assert basket.errors == []
    assert set(basket.bad) == {"cut.jpg", "nothing.jpg", "no.jpg"}
    for name, (facts, pixels) in basket.good.items():
        expected = decode(contents[name], SMALL, 1_000_000)
        assert (facts.width, facts.height, facts.frames) == (expected.width, expected.height, expected.frames)
        assert np.abs(pixels.astype(int) - expected.pixels).max() <= NEAR, name
    assert programs() == []


@pytest.mark.faults(minutes=1)
def test_a_process_that_dies_loses_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    contents = {f"{number:04}.jpg": jpeg(photo(number % 50)) for number in range(1500)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    listing = list_source(str(aged(folder)))
    basket = Basket(len(contents))
    how = Decoding(transform=SMALL, max_pixels=1_000_000)
    loader = Loader(open_source(listing.root, listing.base, {}), how, basket, 0, together=4, batches=basket)
    killed = 0
    try:
        loader.ask(listing.images, listing.images["path"].to_pylist())
        while basket.answers < len(contents) and not basket.errors:
            if killed < 4 and basket.answers > 100 * killed and (alive := programs()):
                end(alive)
                killed += 1
            threading.Event().wait(0.1)
    finally:
        loader.close()
    assert basket.errors == []
    assert basket.bad == {}
    assert set(basket.good) == set(contents)
    assert killed >= 2
    assert programs() == []


def test_old_records_say_nothing_of_a_decoder() -> None:
    assert "decoder" not in Transform().record()
    assert Transform.load(Transform(decoder="gpu").record()).decoder == "gpu"
    assert Transform().like(Transform(decoder="gpu").record()).decoder == "gpu"
