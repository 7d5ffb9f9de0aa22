"""Calibration: scores in bins, and how far they are from how often they are right."""

from __future__ import annotations

import numpy as np
import pytest

from cvjobs.evaluation.metrics import calibration


def test_bins_hold_their_upper_edge_and_empty_ones_are_left_out() -> None:
    found = calibration.bins(np.array([0.0, 0.1, 0.11, 0.5, 1.0], np.float32), np.array([0, 1, 0, 1, 1], bool))
    assert [(one.low, one.high, one.count) for one in found] == [(0, 0.1, 2), (0.1, 0.2, 1), (0.4, 0.5, 1), (0.9, 1, 1)]
    assert [one.right for one in found] == [0.5, 0, 1, 1]


def test_scores_that_say_how_often_they_are_right_have_no_error() -> None:
    scores = np.repeat([0.25, 0.75], 400)
    right = np.tile([True, False, False, False], 100), np.tile([True, True, True, False], 100)
    assert calibration.error(calibration.bins(scores, np.concatenate(right))) == pytest.approx(0)


def test_the_error_is_the_mean_distance_over_images() -> None:
    scores, right = np.array([0.95, 0.95, 0.95, 0.55]), np.array([True, False, False, True])
    expected = (3 * (0.95 - 1 / 3) + 1 * 0.45) / 4
    assert calibration.error(calibration.bins(scores, right)) == pytest.approx(expected)


def test_no_images_have_no_bins() -> None:
    found = calibration.bins(np.zeros(0), np.zeros(0, bool))
    assert (found, calibration.error(found)) == ([], 0)
