"""Where the images of a training are: mapped from files, or all on the device; what a step is given is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training import SIDE, plan

from cvjobs.training.data import gpu_cache
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.whole_pictures import WholePictures, opened
from cvjobs.training.loop.transfer import Block

CPU = torch.device("cpu")
WHICH = np.array([59, 0, 7, 7])


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(plan(tmp_path, "run").train.decoded)


def images(held: gpu_cache.TrainImages, device: torch.device) -> Tensor:
    found = held.there(Block(held.taken(WHICH), device).sent())
    assert isinstance(found, Tensor)
    return found.permute(0, 2, 3, 1)


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


def test_whole_pictures_are_the_same_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cache, "BLOCK", 7)
    pictures = opened(plan(tmp_path, "run", whole=True).train.decoded)
    assert isinstance(pictures, WholePictures)
    views = pictures.some(WHICH)
    assert [tuple(view.shape) for view in views] == [
        (SIDE, SIDE + 4, 3),
        *[(SIDE, SIDE, 3)],
        *[(SIDE, SIDE + 2, 3)] * 2,
    ]
    assert [list(sizes) for sizes in zip(*pictures.sizes(WHICH), strict=True)] == [list(v.shape[:2]) for v in views]
    assert pictures.nbytes == sum(view.numel() for view in pictures.some(np.arange(60)))
    everywhere: list[Any] = [gpu_cache.SentPictures(pictures), gpu_cache.ResidentPictures(pictures, CPU)]
    for held in everywhere:
        found = held.there(Block(held.taken(WHICH), CPU).sent())
        for view, (start, height, width) in zip(views, found.places.tolist(), strict=True):
            assert torch.equal(found.pixels[start : start + 3 * height * width].view(height, width, 3), view)
    assert isinstance(gpu_cache.settled(pictures, CPU, 0), gpu_cache.MappedPictures)
