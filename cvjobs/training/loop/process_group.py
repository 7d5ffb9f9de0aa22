"""Who shares a step: this process alone, or the processes of torch.distributed, each with its share of the images."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class ProcessGroup(Protocol):
    """The workers of one training, which do everything that is said of the team together."""

    rank: int
    size: int
    device: torch.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are the mean over the team's."""

    def accumulating(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients of a wrapped module are kept to oneself."""

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of the team's values."""

    def gathered(self, value: Any) -> list[Any]:
        """Return every worker's value, in the order of their ranks."""

    def share_buffers(self, module: nn.Module) -> None:
        """Give every worker the running statistics of the first one."""


class Alone:
    """A team of one; see ``ProcessGroup``."""

    rank, size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        """See ``ProcessGroup``."""
        return module

    def accumulating(self, module: nn.Module) -> AbstractContextManager[Any]:  # noqa: ARG002
        """See ``ProcessGroup``."""
        return nullcontext()

    def sums(self, values: Tensor) -> Tensor:
        """See ``ProcessGroup``."""
        return values

    def gathered(self, value: Any) -> list[Any]:
        """See ``ProcessGroup``."""
        return [value]

    def share_buffers(self, module: nn.Module) -> None:
        """See ``ProcessGroup``."""


class Together:
    """The default group of torch.distributed, which Ray Train has set up; see ``ProcessGroup``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        # What is said between processes goes past the GPU: over its own group each word would wait for the steps there.
        self._words: Any = distributed.new_group(backend="gloo") if device.type == "cuda" else None

    def wrap(self, module: nn.Module) -> nn.Module:
        """See ``ProcessGroup``."""
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)

    def accumulating(self, module: nn.Module) -> AbstractContextManager[Any]:
        """See ``ProcessGroup``."""
        assert isinstance(module, DistributedDataParallel)
        return module.no_sync()

    def sums(self, values: Tensor) -> Tensor:
        """See ``ProcessGroup``."""
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def gathered(self, value: Any) -> list[Any]:
        """See ``ProcessGroup``."""
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self._words)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """See ``ProcessGroup``."""
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def shared(team: ProcessGroup, images: int) -> bool:
    """Return whether workers share a step of ``images``: batch norms need two each, or all compute all of it."""
    return images >= 2 * team.size
