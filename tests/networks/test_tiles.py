"""Tiles of a picture, and objects on their seams: each counts once, and nothing else is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvjobs.networks.detection.framing import TorchvisionFraming
from cvjobs.networks.detection.settings import Rules
from cvjobs.networks.detection.tile_merge import TileDetections, joined
from cvjobs.networks.detection.tiling import Tile, tiles

RULES = Rules(conf=0.5, iou=0.5, max_det=100, short=800, long=1333)
Box = tuple[float, float, float, float]


@settings(deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(32, 300), st.floats(0, 0.9))
def test_tiles_cover_a_picture_and_nothing_else(height: int, width: int, side: int, overlap: float) -> None:
    found = tiles(height, width, side, overlap)
    assert len(set(found)) == len(found)
    covered = np.zeros((height, width), bool)
    for tile in found:
        assert (tile.height, tile.width) == (min(side, height), min(side, width))
        assert tile.top + tile.height <= height
        assert tile.left + tile.width <= width
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = True
    assert covered.all()


def test_neighbours_share_what_was_asked_for() -> None:
    assert [tile.left for tile in tiles(1000, 2600, 1000, 0.2)] == [0, 800, 1600]
    assert [tile.left for tile in tiles(1000, 2500, 1000, 0.2)] == [0, 800, 1500]
    assert [tile.left for tile in tiles(1000, 3000, 1000, 0.0)] == [0, 1000, 2000]
    assert tiles(10, 20, 0, 0.0) == [Tile(0, 0, 10, 20)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1066)), ((1080, 1920), (749, 1333)), ((2000, 1000), (1333, 666)), ((1, 30_000), (1, 1333))],
)
def test_sizes_are_torchvisions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert TorchvisionFraming().size(*size, RULES) == expected
    assert TorchvisionFraming().canvas(expected, RULES) == tuple(-(-side // 32) * 32 for side in expected)


def seen(objects: list[Box], places: list[Tile], jitter: float = 0.0, least: float = 6.0) -> TileDetections:
    """What a detector sees of objects, tile by tile: the part in the tile, a little off, the larger the surer."""
    random = np.random.default_rng(0)
    boxes, scores, tile = [], [], []
    for number, place in enumerate(places):
        low, high = np.array([place.left, place.top]), np.array([place.left + place.width, place.top + place.height])
        for box in np.array(objects, float):
            part = np.concatenate([np.maximum(box[:2], low), np.minimum(box[2:], high)])
            sides = part[2:] - part[:2]
            if sides.min() < least:
                continue
            part += random.uniform(-jitter, jitter, 4)
            boxes.append(np.concatenate([np.maximum(part[:2], low), np.minimum(part[2:], high)]))
            scores.append(0.5 + 0.4 * sides.prod() / (box[2:] - box[:2]).prod() + random.uniform(0, 0.05))
            tile.append(number)
    count = len(boxes)
    return TileDetections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.ones(count, np.int64),
        np.array(tile, int),
    )


def found(objects: list[Box], places: list[Tile], jitter: float = 0.0, iou: float = 0.5) -> list[list[int]]:
    rows, boxes = joined(places, seen(objects, places, jitter), iou)
    assert len(rows) == len(boxes)
    return sorted(np.round(boxes).astype(int).tolist())


GRID = tiles(1800, 2600, 1000, 0.2)  # seams at 800..1000 and 1600..1800 across, 800..1000 down


@pytest.mark.parametrize("jitter", [0.0, 3.0])
@pytest.mark.parametrize(
    "box",
    [
        (850, 300, 960, 400),  # in two tiles whole
        (900, 300, 1050, 400),  # cut by the first tile, whole in the second
        (790, 300, 830, 400),  # cut by the second a little
        (960, 950, 1060, 1050),  # on the corner of four tiles
        (700, 300, 1200, 400),  # larger than the overlap: cut in both
        (300, 300, 2300, 700),  # through three tiles
        (500, 500, 2200, 1500),  # through all of them
        (0, 0, 2600, 1800),  # the whole picture
        (985, 100, 1005, 130),  # small, at the very edge
    ],
)
def test_an_object_on_a_seam_counts_once(box: Box, jitter: float) -> None:
    (only,) = found([box], GRID, jitter)
    assert np.abs(np.array(only) - np.array(box)).max() <= 2 * jitter + 1


def test_neighbours_on_a_seam_stay_two() -> None:
    people: list[Box] = [(820, 300, 900, 500), (890, 310, 970, 500), (955, 300, 1060, 480), (700, 300, 815, 500)]
    assert found(people, GRID) == sorted([list(map(int, box)) for box in people])


def test_a_small_object_in_front_of_a_large_one_stays() -> None:
    both: list[Box] = [(700, 200, 1300, 900), (870, 400, 930, 480)]
    assert found(both, GRID) == sorted([list(map(int, box)) for box in both])


def test_a_crowd_is_counted() -> None:
    random = np.random.default_rng(5)
    corners = [(x, y) for x in range(20, 2500, 90) for y in range(20, 1700, 90)]
    crowd: list[Box] = [
        (x, y, x + int(w), y + int(h))
        for (x, y), (w, h) in zip(corners, random.integers(20, 85, (len(corners), 2)), strict=True)
    ]
    assert len(found(crowd, GRID, jitter=0.5)) == len(crowd)


def test_without_overlap_nothing_is_merged() -> None:
    places = tiles(1000, 2000, 1000, 0.0)
    assert found([(900, 300, 1100, 400)], places) == [[900, 300, 1000, 400], [1000, 300, 1100, 400]]


def test_classes_do_not_mix() -> None:
    one = seen([(850, 300, 960, 400)], GRID)
    rows, _ = joined(GRID, TileDetections(one.boxes, one.scores, np.arange(len(one.scores)), one.tile), 0.5)
    assert len(rows) == len(one.scores) == 2


def test_the_best_comes_first() -> None:
    rows, _ = joined(GRID, few := seen([(10, 10, 50, 50), (850, 300, 960, 400), (300, 300, 340, 380)], GRID), 0.5)
    assert (np.diff(few.scores[rows]) <= 0).all()
    assert joined(GRID, seen([], GRID), 0.5)[0].tolist() == []
