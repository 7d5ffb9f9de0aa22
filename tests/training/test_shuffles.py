"""Mixing images a window at a time teaches a network as much as mixing all of them does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cvjobs.training.recipe import sampling
from cvjobs.training.recipe.recipe import named

pytestmark = pytest.mark.faults(minutes=3)

CLASSES, TRAIN, TEST, SIDE = 8, 3072, 1024, 10
TOGETHER = 64  # as many as the smallest groups have: an epoch has 6 windows
EPOCHS, BATCH, SEEDS = 4, 32, range(6)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gratings(count: int, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Gratings in noise, whose direction is the class: (count, 1, 10, 10) float32, in no order that means anything."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    angle = (labels * np.pi / CLASSES)[:, None, None]
    down, across = np.mgrid[:SIDE, :SIDE]
    wave = np.cos(np.cos(angle) * across + np.sin(angle) * down + random.uniform(0, 2 * np.pi, (count, 1, 1)))
    noisy = wave + random.normal(0, 1.8, wave.shape)
    return torch.from_numpy(noisy[:, None].astype(np.float32)), labels


def accuracy(together: int, seed: int) -> float:
    """Train on the images in the order of ``sampling.order``; return the share of others that is right."""
    torch.manual_seed(seed)
    images, labels = gratings(TRAIN, 10 * seed)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * TRAIN // BATCH)
    for epoch in range(EPOCHS):
        order = torch.from_numpy(sampling.order(labels, named("quick"), seed, epoch, together))
        for some in torch.split(order, BATCH):
            loss = functional.cross_entropy(network(images[some]), torch.from_numpy(labels)[some])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    others, right = gratings(TEST, 10 * seed + 1)
    with torch.inference_mode():
        return float((network(others).argmax(1).numpy() == right).mean())


def test_windows_are_as_good_as_all_images_mixed() -> None:
    windowed, mixed = (np.array([accuracy(together, seed) for seed in SEEDS]) for together in (TOGETHER, 0))
    assert mixed.mean() > 0.5, "there is something to learn, of which a worse order would learn less"
    assert mixed.mean() < 0.97
    assert abs(windowed.mean() - mixed.mean()) < 0.02, (windowed, mixed)
