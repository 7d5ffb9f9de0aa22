"""What augmentation and mixing do to batches of images, and that all of it comes from the generator."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from cvjobs.training.recipe import mixing
from cvjobs.training.recipe.augment import Augment, generator
from cvjobs.training.recipe.crops import Boxes, crop_at_once, crop_one_by_one, maps
from cvjobs.training.recipe.recipe import Policy, Recipe

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def recipe(**settings: Any) -> Recipe:
    return Recipe(**{"epochs": 4, "hflip": 0.0, **settings})


def pictures(count: int = 8, side: int = 20) -> Tensor:
    """Smooth pictures, each channel a slope, so that a resampled one stays near the original."""
    across = torch.linspace(20, 200, side)
    slopes = torch.stack(
        [across.expand(side, side), across[:, None].expand(side, side), (across + across[:, None]) / 2]
    )
    return (slopes + (torch.arange(count) % 50).view(-1, 1, 1, 1)).to(torch.uint8)


def augmented(images: Tensor, seed: int = 0, size: int = 20, **settings: Any) -> Tensor:
    """Return what comes out as pixels from 0 to 255."""
    augment = Augment(recipe(**settings), size, MEAN, STD, torch.device("cpu"))
    drawn = augment.drawn(len(images), generator(seed))
    out = augment(images, augment.settled(drawn, *images.shape[-2:]).changes(slice(None)))
    assert (out.shape, out.dtype) == ((len(images), 3, size, size), torch.float32)
    return (out * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def test_with_everything_off_an_image_is_only_normalised() -> None:
    assert torch.allclose(augmented(pictures()), pictures().float(), atol=1e-2)


def test_a_batch_is_brought_to_the_size_of_the_epoch() -> None:
    small = augmented(pictures(), size=12)
    assert float(small[0, 0, :, 0].mean()) < 40
    assert float(small[0, 0, :, -1].mean()) > 180


def test_flips_turn_every_image_or_about_as_many_as_asked() -> None:
    images = pictures(400, 8)
    assert torch.allclose(augmented(images, size=8, hflip=1.0), images.flip(3).float(), atol=1e-2)
    assert torch.allclose(augmented(images, size=8, vflip=1.0), images.flip(2).float(), atol=1e-2)
    turned = augmented(images, size=8, hflip=0.3)
    share = float((turned[:, 0, 0, 0] > turned[:, 0, 0, -1]).float().mean())
    assert 0.22 < share < 0.38


def test_a_crop_is_a_share_of_the_area_of_these_proportions() -> None:
    images = pictures(400, 64)
    crops = augmented(images, size=64, scale=(0.25, 0.5), ratio=(0.5, 2.0))
    whole = float(images[0, 0, 0, -1]) - float(images[0, 0, 0, 0])
    wide = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]) / whole
    high = (crops[:, 1, -1, 0] - crops[:, 1, 0, 0]) / whole
    area = wide * high
    assert 0.23 < float(area.min()) < 0.27
    assert 0.47 < float(area.max()) < 0.52
    ratio = wide / high
    assert 0.45 < float(ratio.min()) < 0.6
    assert 1.7 < float(ratio.max()) < 2.2
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.1)
    left = crops[:, 0, 0, 0] - images[:, 0, 0, 0]
    assert float(left.std()) > 10, "boxes lie anywhere"
    assert float(crops.min()) >= 19, "and inside the image"


def test_a_gpu_cuts_the_boxes_that_a_cpu_does() -> None:
    count = 64
    draw = generator(0)
    places = {name: torch.rand(count, generator=draw) for name in ("across", "down")}
    flips = {name: torch.rand(count, generator=draw) < 0.5 for name in ("mirrored", "upturned")}
    sides = {name: 0.5 + torch.rand(count, generator=draw) / 2 for name in ("wide", "high")}
    images, boxes = pictures(count, 64), Boxes(**places, **flips, **sides)
    assert float((crop_at_once(images, maps(boxes), 48) - crop_one_by_one(images, boxes, 48)).abs().mean()) < 1.5


def test_colours_change_by_up_to_their_share() -> None:
    grey = torch.full((200, 3, 8, 8), 100, dtype=torch.uint8)
    out = augmented(grey, size=8, color_jitter=0.3)
    levels = out.mean((1, 2, 3))
    assert 69 < float(levels.min()) < 76
    assert 124 < float(levels.max()) < 131
    assert float(out.std((1, 2, 3)).max()) < 1e-2, "no contrast and no colour comes from nothing"
    red = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 100
    saturation = augmented(red, size=8, color_jitter=0.3)
    assert float((saturation[:, 0] - saturation[:, 1]).mean((1, 2)).std()) > 5


def test_erasing_blanks_a_box_of_that_share_of_the_images() -> None:
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    out = augmented(images, size=32, erasing=0.25)
    blank = (out[:, 0] > 100).float().mean((1, 2))
    assert 0.18 < float((blank > 0).float().mean()) < 0.32
    boxes = blank[blank > 0]
    assert float(boxes.min()) < 0.08
    assert 0.2 < float(boxes.max()) < 0.4
    assert torch.allclose(out[0, :, :, :].amax((1, 2)) % 127.5, torch.zeros(3), atol=200)


@pytest.mark.parametrize("policy", [policy for policy in get_args(Policy) if policy != "none"])
def test_a_policy_changes_each_image_in_its_own_way(policy: Policy) -> None:
    images = pictures(12, 32)
    out = augmented(images, size=32, aa=policy)
    changed = (out - images).abs().mean((1, 2, 3)) > 1
    assert int(changed.sum()) >= 3
    assert len({round(float(value), 3) for value in (out - images).mean((1, 2, 3))[changed]}) > 3
    assert float(out.min()) >= -0.01
    assert float(out.max()) <= 255.01


EVERYTHING: dict[str, Any] = {
    "aa": "trivialaugment", "scale": (0.3, 1.0), "ratio": (0.7, 1.4), "hflip": 0.5, "vflip": 0.5,
    "color_jitter": 0.4, "erasing": 0.5,
}  # fmt: skip


def test_the_same_generator_makes_the_same_images_and_leaves_torchs_own_alone() -> None:
    torch.manual_seed(1)
    first = augmented(pictures(), 5, **EVERYTHING)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(first, augmented(pictures(), 5, **EVERYTHING))
    assert not torch.equal(first, augmented(pictures(), 6, **EVERYTHING))
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_a_generator_is_that_of_its_position() -> None:
    drawn = [
        float(torch.rand(1, generator=generator(*position))) for position in ((1, 2), (1, 2), (2, 1), (1,), (1, 2, 0))
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def mix(images: Tensor, targets: Tensor, classes: int, seed: int, **settings: Any) -> tuple[Tensor, Tensor]:
    drawn = mixing.draw(len(images), images.shape[-1], recipe(**settings), generator(seed))
    return mixing.mixed(images, targets, classes, drawn)


def mixed(seed: int = 0, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mix a batch in which the pixels of an image are its number, one class each; return it, its targets and images."""
    images = torch.arange(10).float().view(-1, 1, 1, 1).expand(10, 3, 16, 16)
    out, shares = mix(images, torch.arange(10), 10, seed, **settings)
    return out, shares, images


def test_without_mixing_a_batch_is_the_same() -> None:
    out, targets, images = mixed()
    assert out is images
    assert targets.tolist() == list(range(10))


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_the_targets_are_mixed_as_the_images_are(way: str) -> None:
    for seed in range(20):
        out, shares, _ = mixed(seed, **{way: 1.0})
        assert shares.sum(1).tolist() == pytest.approx([1.0] * 10)
        expected = (shares * torch.arange(10)).sum(1)
        assert torch.allclose(out.mean((1, 2, 3)), expected, atol=1e-3)
        if way == "cutmix":
            assert set(out.flatten().tolist()) <= set(range(10)), "a pixel is of one image or the other"
    assert float(shares.max()) < 1


def test_alpha_says_how_much_is_mixed() -> None:
    little, much = (
        sum(float(mixed(seed, mixup=alpha)[1].max(1).values.mean()) for seed in range(60)) / 60 for alpha in (0.1, 8.0)
    )
    assert 0.5 <= much < 0.75 < little


def test_with_both_each_batch_is_mixed_in_one_way() -> None:
    ways = {len(set(mixed(seed, mixup=1.0, cutmix=1.0)[0][1].flatten().tolist())) for seed in range(20)}
    assert ways == {1, 2}


def test_several_labels_are_mixed_too() -> None:
    targets = torch.eye(4)[[0, 1, 2, 3]] + torch.eye(4)[[1, 2, 3, 0]]
    _, shares = mix(torch.zeros(4, 3, 8, 8), targets, 4, 3, mixup=1.0)
    assert shares.sum(1).tolist() == pytest.approx([2.0] * 4)
    assert ((shares > 0) & (shares < 1)).any()


def test_one_image_alone_can_be_augmented_and_mixed() -> None:
    out = augmented(pictures(1), **EVERYTHING)
    assert out.isfinite().all()
    same, shares = mix(out, torch.tensor([1]), 3, 0, mixup=1.0, cutmix=1.0)
    assert torch.allclose(same, out, atol=1e-3)
    assert shares.tolist() == [[0.0, 1.0, 0.0]]
