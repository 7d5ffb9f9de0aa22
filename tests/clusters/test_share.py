"""How the cores of a cluster are shared among workers, and what is said where they are too few."""

from __future__ import annotations

from typing import Any

import pytest

from cvjobs.clusters.ray import share
from cvjobs.common.errors import WrongUse


def node(cores: int, gpus: int = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": float(cores), "GPU": float(gpus)} if gpus else {"CPU": float(cores)}}


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "cores"),
    [
        ([node(8)], 1, False, 8),
        ([node(8)], 3, False, 2),
        ([node(8), node(4)], 3, False, 4),
        ([node(8), node(4, alive=False)], 3, False, 2),
        ([node(16, 4)], 4, True, 4),
        ([node(16, 4), node(64)], 2, True, 8),
        ([node(0), node(2, 8)], 2, True, 1),
    ],
)
def test_every_worker_has_room_at_once(nodes: list[dict[str, Any]], workers: int, gpu: bool, cores: int) -> None:
    assert share(nodes, workers, gpu) == cores


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "sentence"),
    [
        ([node(2)], 3, False, "needs 3 cores and the cluster has 2: use at most --workers 2."),
        ([node(8, 2)], 3, True, "needs 3 GPUs and the cluster has 2: use at most --workers 2."),
        (
            [node(2, 8)],
            3,
            True,
            "needs 3 cores beside GPUs and the cluster has 2: use at most --workers 2.",
        ),
        ([node(8)], 3, True, "needs 3 GPUs and the cluster has none: add machines that have some."),
        ([node(0)], 3, False, "needs 3 cores and the cluster has none: add machines that have some."),
    ],
)
def test_too_few_are_a_sentence(nodes: list[dict[str, Any]], workers: int, gpu: bool, sentence: str) -> None:
    with pytest.raises(WrongUse) as caught:
        share(nodes, workers, gpu)
    assert str(caught.value) == f"--workers {workers} {sentence}"
