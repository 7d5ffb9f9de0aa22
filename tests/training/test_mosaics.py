"""Mosaics and mixup of pictures with boxes: by hand where each pixel and box goes, and boxes that stay on objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from block_pictures import COLOURS, picture
from torch import Tensor

from cvjobs.training.recipe import lr_schedule
from cvjobs.training.recipe.augment import generator
from cvjobs.training.recipe.canvases import NUMBERS, CanvasAugment
from cvjobs.training.recipe.mosaics import TILES, MosaicAugment, closed
from cvjobs.training.recipe.recipe import Recipe

SIDE = 64
GREYS = (40, 80, 120, 160)


def augment(recipe: Recipe, side: int = SIDE, step: int = 0, epoch: int = 0) -> MosaicAugment:
    canvases = CanvasAugment(recipe, side, (0.0,) * 3, (1 / 255,) * 3, torch.device("cpu"), step)
    return MosaicAugment(canvases, recipe, epoch)


def numbers(mosaic: bool, others: tuple[int, int, int], partner: int = 0, share: float = 0.5) -> list[float]:
    """Return the random numbers of one of four canvases, whose centre is in the middle and whose parts begin at 0."""
    tiles = [0.5, 0.0, 0.0, 0.9, 0.9, 0.5, 0.5, 0.5] * TILES
    assert len(tiles) == TILES * NUMBERS
    kind = 0.0 if mosaic else 0.99
    return [*tiles, kind, 0.5, 0.5, *((other + 0.5) / 4 for other in others), (partner + 0.5) / 4, share]


def pictures(side: int = SIDE) -> list[Tensor]:
    return [torch.full((side, side, 3), grey, dtype=torch.uint8) for grey in GREYS]


def test_four_pictures_lie_around_the_centre() -> None:
    """Picture 0 is cut to each quadrant of its canvas, the third canvas is no mosaic."""
    made = augment(Recipe(epochs=9, mosaic=0.5, hflip=0.0))
    drawn = torch.tensor([numbers(True, (1, 2, 3)), numbers(True, (0, 0, 2)), numbers(False, (0, 1, 2)),
                          numbers(True, (3, 3, 3))])  # fmt: skip
    settled = made.settled(drawn, torch.full((4,), SIDE), torch.full((4,), SIDE))
    canvases = made(pictures(), settled.changes(slice(None)))
    half = SIDE // 2
    greys = [[(0, 1), (2, 3)], [(1, 0), (0, 2)], [(2, 2), (2, 2)], [(3, 3), (3, 3)]]
    for image, own in zip(canvases.images, greys, strict=True):
        for row, pair in enumerate(own):
            for column, which in enumerate(pair):
                part = image[:, row * half : (row + 1) * half, column * half : (column + 1) * half]
                assert torch.allclose(part, torch.tensor(float(GREYS[which])))
    # The upper left quarter of each picture is seen; a box in its lower right quarter is not.
    shares = torch.tensor([[[0.0, 0.0, 0.5, 0.25], [0.6, 0.6, 0.9, 0.9]]]).expand(4, -1, -1)
    labels = torch.tensor([[0, 9], [1, 9], [2, 9], [3, 9]])
    boxes, named = canvases.moved(shares, labels)
    kept = [list(zip(label[label >= 0].tolist(), box[label >= 0].tolist(), strict=True))
            for label, box in zip(named, boxes, strict=True)]  # fmt: skip
    at = ([0.0, 0.0, 32.0, 16.0], [32.0, 0.0, 64.0, 16.0], [0.0, 32.0, 32.0, 48.0], [32.0, 32.0, 64.0, 48.0])
    assert kept[0] == [(0, at[0]), (1, at[1]), (2, at[2]), (3, at[3])]
    assert kept[1] == [(1, at[0]), (0, at[1]), (0, at[2]), (2, at[3])]
    assert kept[2] == [(2, [0.0, 0.0, 32.0, 16.0]), (9, pytest.approx([38.4, 38.4, 57.6, 57.6]))]
    assert [label for label, _ in kept[3]] == [3, 3, 3, 3]


def test_small_pictures_touch_the_centre() -> None:
    made = augment(Recipe(epochs=9, mosaic=1.0, hflip=0.0, scale_jitter=(0.25, 0.25)))
    settled = made.settled(torch.tensor([numbers(True, (1, 2, 3))] * 4), torch.full((4,), 64), torch.full((4,), 32))
    canvases = made([one[:, :32] for one in pictures()], settled.changes(slice(None)))
    expected = torch.zeros(SIDE, SIDE)  # pictures of 16 x 8 pixels
    expected[16:32, 24:32], expected[16:32, 32:40], expected[32:48, 24:32], expected[32:48, 32:40] = GREYS
    assert torch.allclose(canvases.images[0], expected.expand(3, -1, -1))
    boxes, named = canvases.moved(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 4), torch.zeros(4, 1, dtype=torch.int64))
    assert boxes[0][named[0] == 0].tolist() == [[24, 16, 32, 32], [32, 16, 40, 32], [24, 32, 32, 48], [32, 32, 40, 48]]


def test_mixup_blends_two_canvases_and_keeps_the_boxes_of_both() -> None:
    made = augment(Recipe(epochs=9, mixup=1.5, hflip=0.0))
    drawn = torch.tensor([numbers(False, (0, 0, 0), partner=3, share=share) for share in np.linspace(0.01, 0.99, 40)])
    drawn[:, -2] = 39.5 / 40
    settled = made.settled(drawn, torch.full((40,), SIDE), torch.full((40,), SIDE))
    canvases = made([*pictures()[:2], *[pictures()[2]] * 37, pictures()[3]], settled.changes(slice(None)))
    own = settled.changes(slice(None)).own
    assert own is not None
    assert 0.5 <= float(own.min()) < 0.6
    assert 0.85 < float(own.max()) <= 1
    for number in (0, 1, 20):
        expected = own[number] * GREYS[min(number, 2)] + (1 - own[number]) * GREYS[3]
        assert torch.allclose(canvases.images[number], expected)
    shares = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]] * 39 + [[[0.5, 0.5, 1.0, 1.0]]])
    boxes, named = canvases.moved(shares, torch.tensor([[0]] * 39 + [[7]]))
    for number in range(39):
        found = {
            int(label): box.tolist() for label, box in zip(named[number], boxes[number], strict=True) if label >= 0
        }
        assert found[0] == [0, 0, 32, 32]
        assert found.get(7) == ([32, 32, 64, 64] if 1 - own[number] >= 0.2 else None)
    assert (named == 7).sum() > 5


def test_boxes_of_mosaics_stay_on_their_objects() -> None:
    """Whatever the scale, crop and flips: where a box is, there is the colour of its class."""
    random = np.random.default_rng(3)
    recipe = Recipe(epochs=9, mosaic=0.7, hflip=0.5, vflip=0.5, scale_jitter=(0.6, 1.4))
    made, seen = augment(recipe, 96, 32), 0
    several = [picture(random) for _ in range(6)]
    most = max(len(objects) for _, objects in several)
    shares, labels = torch.zeros(6, most, 4), torch.full((6, most), -1)
    for number, (_, objects) in enumerate(several):
        for at, (label, corners) in enumerate(objects):
            shares[number, at] = torch.tensor(corners) / torch.tensor([96, 72, 96, 72])
            labels[number, at] = label
    pixels = [torch.from_numpy(np.array(image)) for image, _ in several]
    for number in range(12):
        settled = made.settled(made.drawn(6, generator(number)), torch.full((6,), 72), torch.full((6,), 96))
        canvases = made(pixels, settled.changes(slice(None)))
        assert canvases.images.shape[2] <= 96
        for image, boxes, named in zip(canvases.images, *canvases.moved(shares, labels), strict=True):
            for (x0, y0, x1, y1), label in zip(boxes[named >= 0].tolist(), named[named >= 0].tolist(), strict=True):
                assert 0 <= x0 < x1 <= 96
                assert 0 <= y0 < y1 <= 96
                inner = image[:, round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2]
                assert not inner.numel() or (inner - torch.tensor(COLOURS[label]).view(3, 1, 1)).abs().max() < 2
                seen += bool(inner.numel())
    assert seen > 150


def test_a_part_of_a_step_is_made_of_its_own_pictures() -> None:
    made = augment(Recipe(epochs=9, mosaic=1.0))
    drawn = made.drawn(8, generator(1))
    settled = made.settled(drawn, torch.full((8,), SIDE), torch.full((8,), SIDE))
    alone = made.settled(drawn[4:], torch.full((4,), SIDE), torch.full((4,), SIDE)).changes(slice(None))
    later = settled.changes(slice(4, 8))
    assert torch.equal(later.pictures, alone.pictures)
    assert torch.equal(later.tiles.parts, alone.tiles.parts)
    assert int(later.pictures.max()) < 4


def test_the_last_tenth_of_the_epochs_has_no_mosaics() -> None:
    for epochs, first in ((1, 1), (2, 1), (10, 9), (30, 27), (35, 31)):
        recipe = Recipe(epochs=epochs, mosaic=1.0)
        assert [closed(recipe, epoch) for epoch in range(epochs)] == [epoch >= first for epoch in range(epochs)]
    recipe = Recipe(epochs=10, mosaic=1.0, sched="constant")
    assert "--mosaic" in lr_schedule.bound(recipe)  # more epochs would have had other mosaics
    for epoch, each in ((8, TILES), (9, 1)):
        made = augment(recipe, epoch=epoch)
        changes = made.settled(made.drawn(3, generator(0)), SIDE, SIDE).changes(slice(None))
        assert len(changes.pictures) == 3 * each
