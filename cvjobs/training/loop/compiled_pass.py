"""Gradients by torch.compile: the network, wrapped for its team, and the loss; weights keep their names and places."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from cvjobs.training.loop.gradient_pass import Criterion, PlainPass, remembered

MOST = 4  # shapes that are compiled; torch gives up on a network after eight, and two may be of one part of a team


class CompiledPass:
    """See ``GradientPass``; a network that torch cannot compile is computed as it is, and that is said once."""

    def __init__(self, plain: PlainPass, model: nn.Module, warn: Callable[[str], None]) -> None:
        self._plain, self._model, self._warn = plain, model, warn
        # For each shape on its own: what is compiled for any shape is slower, and whole batches have few.
        self._compiled = replace(plain, network=torch.compile(plain.network, dynamic=False))
        self._criterion: tuple[Criterion, Criterion] | None = None
        self._shapes: set[torch.Size] = set()
        self._possible = True

    def __call__(self, inputs: Tensor, targets: Tensor, criterion: Criterion, share: float) -> Tensor:
        """See ``GradientPass``."""
        if inputs.shape in self._shapes:
            return self._compiled(inputs, targets, self._loss(criterion), share)
        if not self._possible or len(self._shapes) == MOST:
            return self._plain(inputs, targets, criterion, share)
        bring_back = remembered(self._model, inputs.device)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the compiler thinks of the network
                loss = self._compiled(inputs, targets, self._loss(criterion), share)
        except Exception as error:  # noqa: BLE001 - whatever it is: the same without the compiler fails again, or works
            self._possible, why = False, " ".join(str(error).split())[:200] or type(error).__name__
        else:
            self._shapes.add(inputs.shape)
            return loss
        bring_back()  # out here, for the traceback keeps the tensors of the pass alive
        loss = self._plain(inputs, targets, criterion, share)
        self._warn(f"torch cannot compile this model ({why}): it trains as it is")
        return loss

    def _loss(self, criterion: Criterion) -> Criterion:
        if self._criterion is None or self._criterion[0] != criterion:
            self._criterion = criterion, torch.compile(criterion, dynamic=False)
        return self._criterion[1]
