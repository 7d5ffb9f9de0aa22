"""What a network answers to the images of a split: every image once, with any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.images.transform import Transform
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop.process_group import ProcessGroup

BATCH = 64


def answers(
    network: nn.Module,
    ask: Callable[[Tensor, NDArray[np.int64]], Tensor],
    pictures: Pictures,
    transform: Transform,
    team: ProcessGroup,
    kind: torch.dtype,
) -> NDArray[np.float32]:
    """Return what ``ask`` makes of all images, float32 (n, k), with the network in evaluation mode.

    ``ask`` is given normalised images (N, 3, H, W), and their numbers, and returns (N, k); ``kind`` is autocast's. Each
    worker takes the images of its rank; all of them return the same.
    """
    mine = np.arange(team.rank, len(pictures), team.size)
    own: list[NDArray[np.float32]] = []
    network.eval()
    with torch.inference_mode(), autocast(team.device, kind):
        for start in range(0, len(mine), BATCH):
            which = mine[start : start + BATCH]
            pixels = torch.from_numpy(pictures.gather(which)).to(team.device)
            found = ask(normalised(pixels.permute(0, 3, 1, 2), transform.mean, transform.std), which)
            own.append(found.float().cpu().numpy())
    gathered = team.gathered(np.concatenate(own) if own else None)
    columns = next(part.shape[1] for part in gathered if part is not None)
    everything = np.empty((len(pictures), columns), np.float32)
    for rank, part in enumerate(gathered):
        if part is not None:
            everything[rank :: team.size] = part
    return everything


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (n, 3, h, w) floats of uint8 pixels."""
    centre = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 - centre) / torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)


def autocast(device: torch.device, kind: torch.dtype, *, cached: bool = True) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in bfloat16 or float16, or, for float32, in what it is.

    ``cached`` is whether the weights are cast once for all uses in it.
    """
    return nullcontext() if kind == torch.float32 else torch.autocast(device.type, kind, cache_enabled=cached)
