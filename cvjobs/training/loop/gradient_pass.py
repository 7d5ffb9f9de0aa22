"""From the images of one part of a step to gradients: forward, loss and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cvjobs.training.loop.evaluate import autocast

Criterion = Callable[[Tensor, Tensor], Tensor]  # of float32 outputs and targets, the mean over the images, a scalar


class GradientPass(Protocol):
    """A way to compute gradients."""

    def __call__(self, inputs: Any, targets: Tensor, criterion: Criterion, share: float) -> Tensor:
        """Add a share of the gradients of a loss to those that the weights have.

        Args:
            inputs: (n, 3, H, W) float32, or a dataclass of the tensors that a network takes, such images first.
            targets: What the criterion compares the network's outputs with.
            criterion: The loss.
            share: What the gradients are multiplied by.

        Returns:
            The loss, a scalar on the device without a graph.
        """


@dataclass(frozen=True, kw_only=True)
class PlainPass:
    """The one that every network can do, operation by operation; see ``GradientPass``.

    ``cached`` is whether weights that are used several times are cast to low precision once.
    """

    network: Callable[..., Tensor]
    scaler: torch.amp.GradScaler
    kind: torch.dtype
    cached: bool = True

    def __call__(self, inputs: Any, targets: Tensor, criterion: Criterion, share: float) -> Tensor:
        """See ``GradientPass``."""
        images, *more = (inputs,) if isinstance(inputs, Tensor) else vars(inputs).values()
        with autocast(images.device, self.kind, cached=self.cached):
            outputs = self.network(images.contiguous(memory_format=torch.channels_last), *more)
        loss: Any = criterion(outputs.float(), targets)
        self.scaler.scale(loss * share).backward()
        detached: Tensor = loss.detach()
        return detached


def remembered(module: nn.Module, device: torch.device) -> Callable[[], None]:
    """Return what brings back the buffers and gradients of a module, and torch's generators, as they are now."""
    buffers = [buffer.detach().clone() for buffer in module.buffers()]
    gradients = [None if weight.grad is None else weight.grad.clone() for weight in module.parameters()]
    generators = random_state(device)

    @torch.no_grad()
    def bring_back() -> None:
        for buffer, value in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(value)
        for weight, gradient in zip(module.parameters(), gradients, strict=True):
            weight.grad = gradient
        torch.set_rng_state(generators[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(generators[1], device)

    return bring_back


def random_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators for the CPU and, where that is another, a device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
