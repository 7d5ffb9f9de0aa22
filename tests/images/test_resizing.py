"""Pictures that are much longer than what a model takes of them: cropped first, with the pixels of resizing first."""

from __future__ import annotations

import io
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from cvjobs.images import device_resizing, resizing
from cvjobs.images.decode import decode
from cvjobs.images.picture import Pixels
from cvjobs.images.resizing import fit
from cvjobs.images.transform import Transform
from cvjobs.images.undecodable import Undecodable

LIMIT = 80_000_000
FIRST = 1
INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos"]


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(height, width)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (7, 900), (40, 1300), (1300, 40), (3, 200), (2, 17), (65, 3001)])
@pytest.mark.parametrize(("resize", "crop"), [(24, (24, 24)), (30, (24, 16)), (16, (24, 20)), (9, (8, 8))])
def test_a_long_picture_is_cropped_to_what_resizing_it_first_gives(
    shape: tuple[int, int], resize: int, crop: tuple[int, int], interpolation: Any
) -> None:
    made = {"resize": resize, "size": crop, "interpolation": interpolation}
    new, old = (fit(noise(*shape), Transform(**made, pixel_rules=version)) for version in (2, FIRST))
    assert new.shape == old.shape == (*crop, 3)
    assert np.abs(new.astype(int) - old).max() <= 1


def test_what_is_not_long_is_resized_as_ever() -> None:
    for shape in ((400, 300), (300, 1000), (60, 200)):
        for interpolation in INTERPOLATIONS:
            made: dict[str, Any] = {"resize": 64, "size": (56, 56), "interpolation": interpolation}
            new, old = (fit(noise(*shape), Transform(**made, pixel_rules=version)) for version in (2, FIRST))
            assert (new == old).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(27, 24), (24, 31), (400, 24), (24, 131), (20, 25)])
def test_half_a_pixel_goes_up_and_left_where_that_is_said(shape: tuple[int, int], interpolation: Any) -> None:
    side = min(shape)
    made: dict[str, Any] = {"size": (24, 24), "resize": side, "crop": "down", "interpolation": interpolation}
    pixels = np.pad(noise(*shape), [(max(24 - length, 0) // 2,) * 2 for length in shape] + [(0, 0)])
    top, left = ((length - 24) // 2 for length in pixels.shape[:2])
    found = fit(noise(*shape), Transform(**made))
    assert np.abs(found.astype(int) - pixels[top : top + 24, left : left + 24]).max() <= 1
    if interpolation != "lanczos":
        expected = fit(noise(*shape), Transform(**made, pixel_rules=FIRST)).astype(int)
        on_device = device_resizing.fit(torch.from_numpy(noise(*shape)).permute(2, 0, 1)[None], Transform(**made))
        assert np.abs(on_device[0].numpy().astype(int) - expected).max() <= 2


def test_a_square_is_squashed_to_and_then_cropped() -> None:
    made = Transform(size=(24, 24), fit="square", resize=31, crop="down")
    squashed = fit(noise(40, 90), Transform(size=(31, 31), fit="exact"))
    assert (fit(noise(40, 90), made) == squashed[3:27, 3:27]).all()
    assert made.target == 31


def test_grey_values_of_sixteen_bits_are_not_rounded() -> None:
    whole = Transform(size=(20, 30), resize=24, mean=(0.5,) * 3)
    image = np.random.default_rng(1).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    fine = replace(whole, grey_bits=16)
    found = resizing.fit(image, fine)
    assert (found.shape, fine.stored, fine.most) == ((40, 30, 3), (40, 30), (40, 30))
    values = found[:20] + found[20:] / 256
    floats = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = functional.center_crop(functional.resize(floats, [24, int(24 * 61 / 47)], antialias=True), [20, 30])
    np.testing.assert_allclose(values, expected[0].permute(1, 2, 0).numpy(), atol=1 / 256)
    assert np.abs(values - resizing.fit(image, whole)).max() > 0.4


def test_what_was_begun_with_rounded_grey_values_goes_on_so() -> None:
    fine = Transform(size=(20, 30), resize=24, grey_bits=16)
    rounded = replace(fine, grey_bits=8)
    assert "grey_bits" not in rounded.record()
    assert fine.like(rounded.record()) == rounded
    assert fine.like(fine.record()) == Transform.load(fine.record()) == fine


def test_a_record_names_the_crop_only_where_it_is_not_the_usual_one() -> None:
    assert "crop" not in Transform(size=(24, 24)).record()
    made = Transform(size=(24, 24), fit="square", resize=31, crop="down")
    assert Transform.load(made.record()) == made


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (1, 65_535), (65_535, 1), (2, 65_535), (65_535, 3)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_longest_pictures_cost_no_memory(shape: tuple[int, int], interpolation: Any) -> None:
    content, began = png(*shape), time.process_time()
    tracemalloc.start()
    try:
        for how in (
            Transform(size=(224, 224), resize=256, interpolation=interpolation),
            Transform(size=(224, 224), fit="exact", interpolation=interpolation),
        ):
            assert decode(content, how, LIMIT).pixels.shape == (224, 224, 3)
        assert decode(content, Transform(fit="native"), LIMIT).pixels.shape == (*shape, 3)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5


def test_a_long_picture_without_a_crop_is_refused_before_it_is_resized() -> None:
    with pytest.raises(Undecodable) as caught:
        decode(png(1, 10_000), Transform(resize=800), LIMIT)
    assert caught.value.code == "too_many_pixels"
    assert caught.value.detail == "resized to 8000000 x 800 it has more than 80,000,000 pixels (--max-pixels)"
    assert decode(png(1, 300), Transform(resize=80), LIMIT).pixels.shape == (80, 24_000, 3)


def test_by_the_first_rules_only_what_failed_is_cropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    how = Transform(size=(24, 24), resize=24, pixel_rules=FIRST)
    whole = fit(noise(1, 300), how)

    def no_memory(*_: Any) -> Pixels:
        raise RuntimeError("not enough memory: you tried to allocate 3 GB")

    monkeypatch.setattr(resizing, "_resize", no_memory)
    assert np.abs(fit(noise(1, 300), how).astype(int) - whole).max() <= 1
    with pytest.raises(RuntimeError):
        fit(noise(30, 30), how)
