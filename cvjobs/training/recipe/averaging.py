"""An average of a network's weights over its training, which often does better than the last ones."""

from __future__ import annotations

import copy
import math
from itertools import chain

import torch
from torch import Tensor, nn

from cvjobs.training import foreach_compat
from cvjobs.training.recipe.recipe import Recipe


class Average:
    """A copy of a model whose weights and running statistics are averages: exponential (EMA) or equal (SWA).

    Which weight an update has follows from the position alone: a checkpoint needs nothing but ``module``'s state.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps_per_epoch: int) -> None:
        """Start with the weights of a model that is not wrapped for distribution."""
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = recipe.ema
        self._every = steps_per_epoch
        self._first = max(math.ceil(recipe.epochs * (1 - recipe.swa)), 1)

    @torch.no_grad()
    def update(self, model: nn.Module, done: int) -> None:
        """Take in a model's weights after ``done`` steps of the whole training.

        The decay grows with the steps to what the recipe says, as in timm, so that the start is soon forgotten. The
        equal average (Izmailov et al. 2018) takes in the end of each of the last epochs, the others replace it.
        """
        weight = self._weight(done)
        if not weight:
            return
        averages, latest = _floats(self.module), _floats(model)
        foreach_compat.lerp(averages, latest, weight)
        for average, now in zip(self.module.buffers(), model.buffers(), strict=True):
            if not average.is_floating_point():
                average.copy_(now)

    def _weight(self, done: int) -> float:
        if self._decay:
            return max(1 - self._decay, math.pow(1 + done, -2 / 3))
        epochs, within = divmod(done, self._every)
        return 0.0 if within else 1 / max(epochs - self._first + 1, 1)


def _floats(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]
