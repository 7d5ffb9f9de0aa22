"""Confusion matrices that hold what occurs: the numbers of the whole matrix, in memory that follows the pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cvjobs.evaluation.confusion_tables import MOST, confusions, heat, numbers
from cvjobs.evaluation.metrics.confusion import UNDEFINED, Confusion
from cvjobs.evaluation.metrics.objects import Ints


def counted(seed: int, classes: int, count: int) -> tuple[Confusion, Ints]:
    """The same pairs as a Confusion, in two parts, and as a whole matrix; a few classes alone occur."""
    random = np.random.default_rng(seed)
    some = np.append(random.permutation(classes)[:20], classes)
    truth, taken = random.choice(some[:-1], count), random.choice(some, count)
    whole = np.zeros((classes, classes + 1), np.int64)
    np.add.at(whole, (truth, taken), 1)
    half, shape = count // 3, (classes, classes + 1)
    parts = [Confusion.of(truth[at], taken[at], shape) for at in (slice(half), slice(half, None), slice(0))]
    return Confusion.total(parts), whole


@pytest.mark.parametrize(("classes", "count"), [(1, 5), (20, 0), (20, 3000), (1500, 4000)])
def test_the_numbers_are_those_of_the_whole_matrix(classes: int, count: int) -> None:
    found, whole = counted(classes, classes, count)
    assert np.array_equal(found.matrix(), whole)
    assert np.array_equal(found.truths, whole.sum(axis=1))
    assert np.array_equal(found.predictions, whole.sum(axis=0)[:-1])
    assert np.array_equal(found.right, np.diagonal(whole))
    rows = np.flatnonzero(whole.sum(axis=1))[::2]
    columns = np.append(rows, classes)
    assert np.array_equal(found.part(rows, columns).matrix(), whole[np.ix_(rows, columns)])
    assert found.accuracy == (np.trace(whole) / whole.sum() if count else UNDEFINED)


@pytest.mark.parametrize("classes", [20, 1500])
def test_the_most_frequent_mistakes_come_first_and_equal_ones_in_order(classes: int) -> None:
    found, whole = counted(3, classes, 400)
    wrong = whole.copy()
    wrong[np.arange(classes), np.arange(classes)] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:20]
    names = [str(at) for at in range(classes + 1)]
    expected = [(str(i), str(j), wrong[i, j]) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    got = confusions(found, names, names)
    assert [(pair["truth"], pair["taken"], pair["count"]) for pair in got] == expected
    assert got[0]["share"] == expected[0][2] / whole[int(expected[0][0])].sum()
    shown = heat(found, names, names)
    assert shown is not None
    assert len(shown["rows"]) == 20
    for row in shown["rows"]:
        cells = [whole[int(row["name"]), int(column)] for column in shown["columns"]]
        assert [cell["count"] for cell in row["cells"]] == cells
        assert row["whole"] == sum(cells)
        assert [c["right"] for c in row["cells"]] == [column == row["name"] for column in shown["columns"]]


def test_memory_follows_what_occurs() -> None:
    """200,000 classes and 300,000 images: the whole matrix has 320 GB."""
    classes, count = 200_000, 300_000
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, count)
    taken = np.where(random.random(count) < 0.7, truth, random.integers(0, classes + 1, count))
    tracemalloc.start()
    try:
        found = Confusion.of(truth, taken, (classes, classes + 1))
        names = [""] * (classes + 1)
        assert len(confusions(found, names, names)) == 20
        assert heat(found, names, names) is None
        assert numbers(found, names, names) == {}
        assert found.accuracy == np.mean(truth == taken)
        assert found.recall.shape == found.precision.shape == found.iou.shape == (classes,)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_large_matrix_is_not_in_the_numbers() -> None:
    nothing = np.zeros(0, np.int64)
    assert numbers(Confusion.of(nothing, nothing, (MOST + 1, MOST + 2)), "", "") == {}
    assert numbers(Confusion.of(nothing, nothing, (2, 3)), "r", "c", 2) == {
        "confusion": {"rows": "r", "columns": "c", "counts": [[0, 0, 0], [0, 0, 0]]}
    }
