"""Anchors from boxes: overlaps by hand, k-means on clusters that are known, levels as torchvision takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from cvjobs.training.recipe import anchors
from cvjobs.training.recipe.anchors import AnchorLevels

Shapes = np.ndarray[Any, np.dtype[np.float64]]


def boxes(count: int, seed: int = 0) -> Shapes:
    """Wide boxes of all sizes from 10 to 400 pixels."""
    random = np.random.default_rng(seed)
    size, ratio = np.exp(random.uniform(np.log(10), np.log(400), count)), np.exp(random.normal(-1.2, 0.4, count))
    return np.stack([size / np.sqrt(ratio), size * np.sqrt(ratio)], axis=1)


def plain_best(some: Shapes, shapes: Shapes) -> list[float]:
    """Return the best IoU of each box by torchvision's, with all centres at 0."""
    best = []
    for width, height in some.tolist():
        own = torch.tensor([[-width / 2, -height / 2, width / 2, height / 2]], dtype=torch.float64)
        sides = torch.from_numpy(shapes) / 2
        best.append(float(box_iou(own, torch.cat([-sides, sides], dim=1)).max()))
    return best


def test_overlaps_by_hand() -> None:
    found = anchors.overlaps(np.array([[10.0, 10.0], [20.0, 5.0]]), np.array([[10.0, 10.0], [5.0, 10.0], [40.0, 40.0]]))
    assert found == pytest.approx(np.array([[1, 0.5, 100 / 1600], [50 / 150, 25 / 125, 100 / 1600]]))


def test_recall_by_hand() -> None:
    some = np.array([[10.0, 10.0], [10.0, 5.0], [10.0, 2.0], [100.0, 100.0]])  # 1, 0.5, 0.2 and 0.01 of the anchor
    anchor = np.array([[10.0, 10.0]])
    assert [anchors.recall(some, anchor, at) for at in (0.0, 0.2, 0.5, 0.51, 1.0)] == [1.0, 0.75, 0.5, 0.25, 0.25]
    assert anchors.recall(np.zeros((0, 2)), anchor, 0.5) == 0.0


def test_the_best_overlaps_are_those_of_torchvision_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "_BLOCK", 7)
    some, shapes = boxes(50), anchors.FASTER_RCNN.shapes
    assert anchors.best_overlaps(some, shapes) == pytest.approx(np.array(plain_best(some, shapes)))


@pytest.mark.parametrize(
    "levels",
    [
        anchors.FASTER_RCNN,
        AnchorLevels(sizes=((13.7, 29.1), (50.5, 77.3)), aspect_ratios=((0.31, 1.0, 1.7), (0.9, 2.2, 3.1))),
        AnchorLevels(sizes=((2.0, 3.0, 5.0),), aspect_ratios=((0.6, 1.7),)),
    ],
)
def test_the_shapes_are_those_that_torchvision_makes(levels: AnchorLevels) -> None:
    made = torch.cat(AnchorGenerator(levels.sizes, levels.aspect_ratios).cell_anchors)
    assert np.array_equal(levels.shapes, (made[:, 2:] - made[:, :2]).double().numpy())


def test_clusters_are_found() -> None:
    centres = np.array([[12.0, 30.0], [60.0, 20.0], [80.0, 90.0], [300.0, 150.0]])
    off = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    found = anchors.k_means(np.concatenate([centre + off for centre in centres]), 4)
    assert found == pytest.approx(centres)  # by area


def test_a_round_of_k_means_betters_nothing() -> None:
    some = boxes(400)
    found = anchors.k_means(some, 6)
    own = anchors.overlaps(some, found).argmax(axis=1)
    again = np.array([some[own == at].mean(axis=0) for at in range(6)])
    assert anchors.best_overlaps(some, found).mean() >= anchors.best_overlaps(some, again).mean() - 1e-9


@pytest.mark.parametrize("count", [300, 12_000])
def test_the_order_of_the_boxes_changes_nothing(count: int) -> None:
    some = boxes(count)
    mixed = np.random.default_rng(1).permutation(some)
    assert np.array_equal(anchors.k_means(some, 9), anchors.k_means(mixed, 9))
    assert anchors.fitted(some, 3) == anchors.fitted(mixed, 3)


@pytest.mark.parametrize(("levels", "sizes", "ratios"), [(5, 1, 3), (1, 5, 3), (5, 3, 3), (3, 1, 1), (1, 1, 4)])
def test_fitted_anchors_have_their_form_and_reach_more(levels: int, sizes: int, ratios: int) -> None:
    some = boxes(500)
    found = anchors.fitted(some, levels, sizes, ratios)
    assert [len(own) for own in found.sizes] == [sizes] * levels
    assert [len(own) for own in found.aspect_ratios] == [ratios] * levels
    assert all(own == tuple(sorted(own)) for own in (*found.sizes, *found.aspect_ratios))
    means = [np.log(own).mean() for own in found.sizes]
    assert means == sorted(means), "the finest level first"
    if levels * sizes * ratios == 15:
        ours, theirs = (anchors.recall(some, own.shapes, 0.5) for own in (found, anchors.FASTER_RCNN))
        assert ours > 0.9
        assert theirs < 0.75


def test_a_grid_of_sizes_and_ratios_is_found_again() -> None:
    true = AnchorLevels(sizes=((20.0,), (60.0,), (180.0,)), aspect_ratios=((0.4, 1.0, 2.5),) * 3)
    random = np.random.default_rng(0)
    some = np.repeat(true.shapes, 30, axis=0) * np.exp(random.normal(0, 0.03, (270, 2)))
    found = anchors.fitted(some, 3)
    assert np.array(found.sizes) == pytest.approx(np.array(true.sizes), rel=0.05)
    assert np.array(found.aspect_ratios) == pytest.approx(np.array(true.aspect_ratios), rel=0.1)


@pytest.mark.parametrize("some", [np.array([[40.0, 20.0]]), np.array([[0.5, 0.4], [0.1, 9.0]]), np.full((9, 2), 1e4)])
def test_few_and_tiny_boxes(some: Shapes) -> None:
    found = anchors.fitted(some, 5)
    assert (found.shapes >= 2).all()
    assert (anchors.k_means(some, 15) >= 2).all()
    if some[0, 0] > 2:
        assert anchors.recall(some, found.shapes, 0.9) == 1.0


@pytest.mark.parametrize("some", [np.zeros((0, 2)), np.array([[3.0, 0.0]]), np.array([[3.0, np.nan]])])
def test_no_boxes_are_refused(some: Shapes) -> None:
    with pytest.raises(ValueError, match="whose sides are above 0"):
        anchors.fitted(some, 5)
