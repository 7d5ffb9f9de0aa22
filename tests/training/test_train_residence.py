"""Where the images of a training are: mapped from files, or all on the device; what a step is given is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training import SIDE, plan

from cvjobs.training.data import gpu_cache
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop.transfer import Block

CPU = torch.device("cpu")
WHICH = np.array([59, 0, 7, 7])


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(plan(tmp_path, "run").train.decoded)


def images(held: gpu_cache.TrainImages, device: torch.device) -> Tensor:
    return held.there(Block(held.taken(WHICH), device).sent())


def test_images_are_the_same_wherever_they_are(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cache, "BLOCK", 7)  # the last block is not full
    found = images(gpu_cache.ResidentImages(pictures, CPU), CPU)
    assert found.shape == (4, SIDE, SIDE, 3)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), pictures.gather(WHICH))
    assert torch.equal(found, images(gpu_cache.MappedImages(pictures), CPU))


def test_on_a_cpu_they_stay_in_their_files(pictures: Pictures) -> None:
    assert isinstance(gpu_cache.settled(pictures, CPU, 0), gpu_cache.MappedImages)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_they_move_there_where_there_is_room(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    resident = gpu_cache.settled(pictures, device, 0)
    assert isinstance(resident, gpu_cache.ResidentImages)
    monkeypatch.setattr(gpu_cache, "SHARE", 0.0)
    mapped = gpu_cache.settled(pictures, device, 0)
    assert isinstance(mapped, gpu_cache.MappedImages)
    assert torch.equal(images(resident, device), images(mapped, device))
