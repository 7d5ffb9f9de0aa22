"""What a network answers to the images of a split: every image once, with any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.images.transform import Transform
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.whole_pictures import AnyPictures
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.transfer import Block

BATCH = 64
WAITING = 16  # batches that a GPU may be behind


def answers(
    network: nn.Module,
    ask: Callable[[Tensor, NDArray[np.int64]], Tensor],
    pictures: AnyPictures,
    transform: Transform,
    team: ProcessGroup,
    kind: torch.dtype,
) -> NDArray[np.float32]:
    """Return what ``ask`` makes of all images, float32 (n, k), with the network in evaluation mode.

    ``ask`` is given normalised images (N, 3, H, W), and their numbers, and returns (N, k); ``kind`` is autocast's. Each
    worker takes the images of its rank; all of them return the same.
    """
    assert isinstance(pictures, Pictures)
    mine = np.arange(team.rank, len(pictures), team.size)
    own: list[Tensor] = []
    levels = levels_of(transform, team.device)
    network.eval()
    with torch.inference_mode(), autocast(team.device, kind):
        for start in range(0, len(mine), BATCH):
            which = mine[start : start + BATCH]
            pixels = Block(torch.from_numpy(pictures.gather(which)), team.device).sent()
            own.append(ask(normalised(pixels.permute(0, 3, 1, 2), *levels), which).float())
            if len(own) >= WAITING:
                own[-WAITING] = own[-WAITING].cpu()  # long computed, so that little is waited for
        all_own = torch.cat([part.cpu() for part in own]).numpy() if own else None
    gathered = team.gathered(all_own)
    columns = next(part.shape[1] for part in gathered if part is not None)
    everything = np.empty((len(pictures), columns), np.float32)
    for rank, part in enumerate(gathered):
        if part is not None:
            everything[rank :: team.size] = part
    return everything


def levels_of(transform: Transform, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of each channel, as ``normalised`` takes them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1).to(device) for values in (transform.mean, transform.std))
    return mean, std


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (n, 3, h, w) floats of uint8 pixels."""
    return (pixels.float() / 255 - mean) / std


def autocast(device: torch.device, kind: torch.dtype, *, cached: bool = True) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in bfloat16 or float16, or, for float32, in what it is.

    ``cached`` is whether the weights are cast once for all uses in it.
    """
    return nullcontext() if kind == torch.float32 else torch.autocast(device.type, kind, cache_enabled=cached)
