"""Folding batch norms: the same results with fewer layers, and no change where it is not possible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cvjobs.networks import folded

SIZE = (32, 32)


class Block(nn.Module):
    """A convolution with a batch norm whose statistics are not the trivial ones, and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        nn.init.normal_(self.norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))  # type: ignore[no-any-return]


class Branching(Block):
    """Looks at the values on its way, which tracing cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.sum() > 0 else super().forward(-images)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, *SIZE)


def norms(module: nn.Module) -> int:
    """Return how many batch norms run in a forward pass."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        module(torch.rand(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    return count


def test_a_batch_norm_is_folded_into_its_convolution(images: Tensor) -> None:
    block = Block().eval()
    fast = folded(block, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), block(images), rtol=1e-4, atol=1e-6)
    assert (norms(block), norms(fast)) == (1, 0)


def test_the_model_itself_is_left_alone() -> None:
    block = Block().eval()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    folded(block, SIZE)
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


def test_what_cannot_be_traced_is_copied_as_it_is(images: Tensor) -> None:
    block = Branching().eval()
    copy = folded(block, SIZE)
    with torch.inference_mode():
        assert torch.equal(copy(images), block(images))
    assert copy is not block
    assert norms(copy) == 1
