"""Random crops of whole pictures: torchvision's boxes, the pixels that it would make of the original, on any device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cvjobs.images import resizing
from cvjobs.images.transform import Transform
from cvjobs.training.recipe.augment import Augment, generator
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import (
    NUMBERS,
    PackedPictures,
    PictureBoxes,
    crop_packed,
    crop_pictures,
    picture_boxes,
)

SIDE = 96
KEPT = Transform(resize=SIDE * 3 // 2, fit="whole")


def recipe(**settings: Any) -> Recipe:
    return Recipe(**{"epochs": 4, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "hflip": 0.0, **settings})


def photo(height: int, width: int, seed: int = 0) -> Any:
    """A picture with something in it of every frequency, as photos have, uint8 (height, width, 3)."""
    random = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, height, width)
    for side in (4, 16, 64, 128):
        some = torch.randn(1, 3, side, side, generator=random)
        picture += torch.nn.functional.interpolate(some, (height, width), mode="bilinear") * side**-0.5
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return (picture[0] * 255).byte().permute(1, 2, 0).numpy()


def boxes(recipe: Recipe, height: int, width: int, count: int = 4000, *, squashed: bool = False) -> PictureBoxes:
    random = generator(0)
    drawn, flips = torch.rand(count, NUMBERS, generator=random), torch.rand(count, 2, generator=random)
    heights, widths = torch.full((count,), height), torch.full((count,), width)
    return picture_boxes(recipe, drawn, flips, heights, widths, squashed=squashed)


def of_edges(edges: list[list[int]], mirrored: bool = False, upturned: bool = False) -> PictureBoxes:
    all_ = torch.tensor(edges)
    return PictureBoxes(
        edges=all_, mirrored=torch.full((len(all_),), mirrored), upturned=torch.full((len(all_),), upturned)
    )


def packed(pictures: list[Tensor]) -> PackedPictures:
    sizes = torch.tensor([picture.numel() for picture in pictures])
    sides = torch.tensor([picture.shape[:2] for picture in pictures])
    places = torch.cat([(sizes.cumsum(0) - sizes)[:, None], sides], 1)
    return PackedPictures(pixels=torch.cat([picture.reshape(-1) for picture in pictures]), places=places)


@pytest.mark.parametrize(("height", "width"), [(300, 300), (200, 320), (400, 150), (100, 900)])
def test_boxes_are_those_of_random_resized_crop(height: int, width: int) -> None:
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(SIDE, scale=(0.08, 1.0))
    image = torch.empty(1, height, width)
    params = [theirs.make_params([image]) for _ in range(1500)]
    expected = torch.tensor([[p["height"], p["width"], p["top"], p["left"]] for p in params]).double()
    top, bottom, left, right = boxes(recipe(), height, width).edges.double().unbind(1)
    found = torch.stack([bottom - top, right - left, top, left], 1)
    for quantile in (0.02, 0.25, 0.5, 0.75, 0.98):
        ours, wanted = found.quantile(quantile, 0), expected.quantile(quantile, 0)
        assert torch.allclose(ours, wanted, atol=0.03 * max(height, width)), (quantile, ours, wanted)
    assert int(top.min()) >= 0
    assert int(left.min()) >= 0
    assert int(bottom.max()) <= height
    assert int(right.max()) <= width


def test_a_box_that_must_have_other_proportions_is_the_largest_in_the_middle() -> None:
    whole = recipe(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert boxes(whole, 100, 160, 1).edges.tolist() == [[0, 100, 30, 130]]
    assert boxes(whole, 160, 100, 1).edges.tolist() == [[30, 130, 0, 100]]
    assert boxes(whole, 100, 100, 1).edges.tolist() == [[0, 100, 0, 100]]
    assert boxes(whole, 100, 160, 1, squashed=True).edges.tolist() == [[0, 100, 0, 160]], "what validation sees"


def test_what_is_kept_of_a_picture_is_whole_and_never_enlarged() -> None:
    for given, kept in {
        (600, 800): (144, 192), (800, 600): (192, 144), (100, 90): (100, 90), (144, 4000): (21, 576), (1, 1): (1, 1),
    }.items():  # fmt: skip
        pixels = np.zeros((*given, 3), np.uint8)
        assert resizing.fit(pixels, KEPT).shape == (*kept, 3)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (300, 300), (120, 100)])
def test_crops_are_those_of_the_original_but_for_the_resampling(height: int, width: int) -> None:
    original = photo(height, width)
    kept = torch.from_numpy(np.ascontiguousarray(resizing.fit(original, KEPT)))
    drawn = boxes(recipe(), kept.shape[0], kept.shape[1], 24)
    ours = crop_pictures([kept] * 24, drawn, SIDE).float()
    errors, before = [], []
    image = torch.from_numpy(original).permute(2, 0, 1)
    share = height / len(kept)
    for cut, edges in zip(ours, drawn.edges.tolist(), strict=True):
        top, bottom, left, right = (round(edge * share) for edge in edges)
        there = functional.resized_crop(image, top, left, bottom - top, right - left, [SIDE, SIDE], antialias=True)
        errors.append(float((cut - there.float()).abs().mean()))
        # The square of before, blown up: what it had of the same box at best.
        small = functional.resize(there, [max(round((bottom - top) * 128 / min(height, width)), 1)] * 2, antialias=True)
        again = functional.resize(small, [SIDE, SIDE], antialias=True)
        before.append(float((again.float() - there.float()).abs().mean()))
    print(f"{height} x {width}: {np.mean(errors):.2f} of 255, the squares of before {np.mean(before):.2f}")
    assert np.mean(errors) < 2.5
    assert max(errors) < 6


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
def test_a_gpu_cuts_what_a_cpu_does(turned: tuple[bool, bool]) -> None:
    pictures = [
        torch.from_numpy(photo(h, w, n)) for n, (h, w) in enumerate([(144, 192), (150, 144), (20, 31), (144, 576)])
    ]
    edges = [[0, 144, 3, 180], [40, 90, 100, 140], [5, 18, 0, 31], [0, 144, 0, 576]]
    ours = of_edges(edges, *turned)
    on_cpu = crop_pictures(pictures, ours, SIDE).float()
    at_once = crop_packed(packed(pictures), ours.packed(SIDE), SIDE)
    assert at_once.shape == on_cpu.shape
    assert float((at_once - on_cpu).abs().max()) < 2, "two roundings"
    assert float((at_once - on_cpu).abs().mean()) < 0.35, "and most of it the last one alone"


def test_the_same_numbers_make_the_same_images_packed_or_not() -> None:
    pictures = [torch.from_numpy(photo(100 + 7 * n, 160 - 5 * n, n)) for n in range(8)]
    heights, widths = torch.tensor([p.shape[0] for p in pictures]), torch.tensor([p.shape[1] for p in pictures])
    settings = recipe(aa="trivialaugment", color_jitter=0.2, hflip=0.5, vflip=0.5, erasing=0.3)
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    here = Augment(settings, 64, mean, std, torch.device("cpu"), "whole")
    drawn = here.drawn(8, generator(3))
    settled = here.settled(drawn, heights, widths)
    one = here(pictures, settled.changes(slice(None)))
    there = Augment(settings, 64, mean, std, torch.device("meta"), "whole").settled(drawn, heights, widths)
    two = here(packed(pictures), there.changes(slice(None)))
    assert one.shape == two.shape == (8, 3, 64, 64)
    assert float((one - two).abs().mean()) < 2, "policies such as posterize make more of a rounding"
    parts = [here(pictures[these], settled.changes(these)) for these in (slice(0, 3), slice(3, 8))]
    assert torch.equal(torch.cat(parts), one)
