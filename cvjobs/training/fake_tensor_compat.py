"""Torch's tensors that have shapes and types but no numbers, and what their storages are known by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode

VERSIONS = {"torch": ("2.14",)}


def fake_mode() -> FakeTensorMode:
    """Return a context in which tensors have no numbers; its ``from_tensor`` makes such a tensor of another."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def storage_number(tensor: Tensor) -> int:
    """Return a number that tensors of the same storage share, where a storage has no address."""
    return int(tensor.untyped_storage()._cdata)
