"""All that a step needs of the CPU, sent to a device by one copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

_ALIGNED = 16  # bytes, more than any type of number needs

T = TypeVar("T")


class Block(Generic[T]):
    """A value with its tensors in one block of memory: pinned, where a GPU is to have it.

    A value is a tensor, or a dataclass, list or tuple of values; anything else in it stays as it is. For a CPU there
    is nothing to send, and its tensors stay where they are.
    """

    def __init__(self, value: T, device: torch.device) -> None:
        """Copy the tensors, which are on the CPU, together."""
        self._value, self._device = value, device
        if device.type == "cpu":
            return
        tensors = _tensors(value)
        self._sizes = [-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors]
        self._bytes = torch.empty(sum(self._sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
        for tensor, part in zip(tensors, torch.split(self._bytes, self._sizes), strict=True):
            _as(part, tensor).copy_(tensor)

    def sent(self) -> T:
        """Return the value with its tensors on the device; nothing is waited for."""
        if self._device.type == "cpu":
            return self._value
        there = iter(torch.split(self._bytes.to(self._device, non_blocking=True), self._sizes))
        moved: T = _changed(self._value, lambda tensor: _as(next(there), tensor))
        return moved


def _as(part: Tensor, like: Tensor) -> Tensor:
    """Return bytes as a tensor of the type and shape of another."""
    return part[: like.nbytes].view(like.dtype).view(like.shape)


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _changed(value, note)
    return found


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with each of its tensors replaced, always in the same order."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: _changed(getattr(value, name), change) for name in names})
    if isinstance(value, list | tuple):
        return type(value)(_changed(item, change) for item in value)
    return value
