"""Run-length strings: those of COCO's own API, from a crop, for every mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from cvjobs.images.masks import rle

Mask = NDArray[np.uint8]


def reference(mask: Mask) -> str:
    """The string that COCO's own API makes of a whole mask."""
    text: str = coco.encode(np.asfortranarray(mask))["counts"].decode()
    return text


@st.composite
def placed(draw: st.DrawFn) -> tuple[Mask, tuple[int, int], tuple[int, int]]:
    """A crop somewhere in a mask: noise, blocks, full, empty, at borders, over the full height."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    h, w = draw(st.integers(1, height - top)), draw(st.integers(1, width - left))
    if draw(st.booleans()):
        top, h = 0, height
    crop = draw(arrays.arrays(np.uint8, (h, w), elements=st.integers(0, 1), fill=st.sampled_from([0, 1])))
    return crop, (top, left), (height, width)


def whole(crop: Mask, offset: tuple[int, int], size: tuple[int, int]) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[offset[0] : offset[0] + crop.shape[0], offset[1] : offset[1] + crop.shape[1]] = crop
    return mask


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(placed())
def test_a_crop_has_the_string_of_the_whole_mask(case: tuple[Mask, tuple[int, int], tuple[int, int]]) -> None:
    mask = whole(*case)
    text = rle.encode(*case)
    assert text == reference(mask)
    assert np.array_equal(rle.decode(text, *mask.shape), mask)
    assert rle.areas([text, "", text]).tolist() == [mask.sum(), 0, mask.sum()]
    crop, offset = rle.decode_crop(text, *mask.shape)
    assert np.array_equal(whole(crop, offset, case[2]), mask)
    if mask.any():
        for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]):
            assert edge.any(), "the crop is larger than it need be"


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3000, 4000)])
def test_uniform_masks(value: int, size: tuple[int, int]) -> None:
    mask = np.full(size, value, np.uint8)
    text = rle.encode(mask.astype(bool), (0, 0), size)
    assert text == reference(mask)
    assert np.array_equal(rle.decode(text, *size), mask)


@pytest.mark.slow
def test_large_counts_of_either_sign() -> None:
    mask = np.zeros((9000, 9000), np.uint8)
    mask[0, 0] = mask[8000:8500, 10] = mask[5, 4000] = mask[3:7, 8998] = mask[-1, -1] = 1
    assert rle.encode(mask, (0, 0), mask.shape) == reference(mask)
    assert np.array_equal(rle.decode(reference(mask), *mask.shape), mask)


def test_an_empty_crop_is_an_empty_mask() -> None:
    for shape in ((0, 0), (0, 4), (4, 0)):
        assert rle.encode(np.zeros(shape, bool), (2, 3), (6, 7)) == reference(np.zeros((6, 7), np.uint8))


def test_zero_runs_are_no_runs() -> None:
    """Writers other than COCO's own may end in, or contain, runs of no pixel."""
    text = str(coco.frPyObjects({"counts": [2, 3, 0, 4, 3, 0], "size": [3, 4]}, 3, 4)["counts"].decode())
    flat = np.array([0] * 2 + [1] * 7 + [0] * 3, np.uint8)
    assert np.array_equal(rle.decode(text, 3, 4), flat.reshape(4, 3).T)


@pytest.mark.parametrize("text", ["", "é", "!", "P", "0" * 5, "\x7f", "o" * 40, "10", "@1"])
def test_what_is_no_mask_of_that_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"run-length|run lengths"):
        rle.decode(text, 3, 4)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_is_a_mask_or_refused(text: str) -> None:
    result: Any = None
    try:
        result = rle.decode(text, 5, 6)
    except ValueError:
        return
    assert result.shape == (5, 6)
