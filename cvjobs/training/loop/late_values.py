"""Values that a device computes, read without waiting for it: on a GPU some steps after they were asked for."""

from __future__ import annotations

import torch
from torch import Tensor


class LateValues:
    """Values of a device that are looked at again and again."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._coming: tuple[Tensor, torch.cuda.Event] | None = None

    def read(self, values: Tensor) -> list[float] | None:
        """Return values, on a GPU those of the call before and None at the first one: it is ahead by steps."""
        if not self._on_gpu:
            there: list[float] = values.tolist()
            return there
        earlier = self._coming
        copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._coming = copy, event
        if earlier is None:
            return None
        earlier[1].synchronize()
        found: list[float] = earlier[0].tolist()
        return found

    def forget(self) -> None:
        """Return nothing more of what was asked for."""
        self._coming = None
