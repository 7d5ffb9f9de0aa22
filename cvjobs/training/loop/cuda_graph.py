"""Gradients of small networks by a CUDA graph: one launch for all that a step computes, where launches take longest.

What is recorded is torch's whole-network capture: forward, loss and backward on inputs that stay at one place.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cvjobs.common.gpu_peaks import bf16_peak
from cvjobs.training.loop.gradient_pass import Criterion, PlainPass, random_state, remembered
from cvjobs.training.loop.process_group import Alone, ProcessGroup
from cvjobs.training.plan import TrainPlan

WARM_UP = 3  # passes before the recording, as torch asks for: libraries choose and set up what they compute with
ROUNDING = 0.02  # the share of all gradients by which two passes in low precision may differ
SHORT = 0.002  # seconds that a forward pass computes; below, its launches take about as long
_USED = 0.3  # of its peak that a GPU reaches, about


class Recorder(Protocol):
    """What records work that a device does."""

    def warm(self, work: Callable[[], Tensor]) -> None:
        """Do the work once, where the recording will be made."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Return where the work's result will be, and what does the work again; nothing is computed now."""


class GraphRecorder:
    """CUDA's; see ``Recorder``."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, work: Callable[[], Tensor]) -> None:
        """See ``Recorder``."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See ``Recorder``."""
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead and save may ask CUDA for memory meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = work()
        return result, graph.replay


@dataclass(frozen=True, kw_only=True)
class _Recording:
    """A pass on inputs and targets at one place, which leaves its loss and its gradients each time at theirs."""

    inputs: Tensor
    targets: Tensor
    criterion: Criterion
    share: float
    loss: Tensor
    gradients: list[tuple[nn.Parameter, Tensor]]
    replay: Callable[[], None]

    def suits(self, inputs: Tensor, targets: Tensor, criterion: Criterion, share: float) -> bool:
        same = inputs.shape == self.inputs.shape and targets.shape == self.targets.shape
        return same and targets.dtype == self.targets.dtype and (criterion, share) == (self.criterion, self.share)


class GraphPass:
    """See ``GradientPass``; for weights without gradients, as a step of one part begins with.

    A network that draws random numbers, or that cannot be recorded, is computed as it is; the latter is said once. The
    last recording is kept alone: an epoch has one shape of whole batches, and each recording holds memory of its own.
    """

    def __init__(self, plain: PlainPass, model: nn.Module, recorder: Recorder, warn: Callable[[str], None]) -> None:
        self._plain, self._model, self._recorder, self._warn = plain, model, recorder, warn
        # What autocast remembers is of one pass, and a recording's must not be found by another.
        self._recorded = replace(plain, cached=False)
        self._recording: _Recording | None = None
        self._possible = True

    def __call__(self, inputs: Tensor, targets: Tensor, criterion: Criterion, share: float) -> Tensor:
        """See ``GradientPass``."""
        if self._recording is None or not self._recording.suits(inputs, targets, criterion, share):
            self._recording = self._record(inputs, targets, criterion, share) if self._possible else None
        recording = self._recording
        if recording is None:
            return self._plain(inputs, targets, criterion, share)
        recording.inputs.copy_(inputs)
        recording.targets.copy_(targets)
        recording.replay()
        for weight, gradient in recording.gradients:
            weight.grad = gradient
        return recording.loss.clone()  # the next pass overwrites it

    def _record(self, inputs: Tensor, targets: Tensor, criterion: Criterion, share: float) -> _Recording | None:
        self._recording = None  # its memory first
        device = inputs.device
        inputs, targets = inputs.contiguous(memory_format=torch.channels_last).clone(), targets.clone()
        bring_back, before = remembered(self._model, device), random_state(device)

        def work() -> Tensor:
            for weight in self._model.parameters():
                weight.grad = None  # so that backward writes, and adds nothing to what was there
            return self._recorded(inputs, targets, criterion, share)

        try:
            for _ in range(WARM_UP):
                self._recorder.warm(work)
            drawn = not all(map(torch.equal, before, random_state(device)))
            bring_back()
            if drawn:
                self._possible = False
                return None
            loss, replay = self._recorder.record(work)
            given = [(weight, weight.grad) for weight in self._model.parameters()]
            gradients = [(weight, gradient) for weight, gradient in given if gradient is not None]
            recording = _Recording(
                inputs=inputs, targets=targets, criterion=criterion, share=share, loss=loss,
                gradients=gradients, replay=replay,
            )  # fmt: skip
            right = self._plays_right(recording)
        except RuntimeError as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        else:
            why = "" if right else "its replay computes something else"
        if not why:
            bring_back()
            return recording
        self._possible = False
        bring_back()
        gc.collect()
        self._warn(f"the steps of this model cannot be recorded as a CUDA graph ({why}): it trains without")
        return None

    def _plays_right(self, recording: _Recording) -> bool:
        """Return whether a replay leaves the loss and the gradients of a plain pass, but for rounding."""
        weights = [weight for weight, _ in recording.gradients]
        for weight in self._model.parameters():
            weight.grad = None
        plain = self._plain(recording.inputs, recording.targets, recording.criterion, recording.share)
        expected = [plain, *(torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights)]
        recording.replay()
        found = [recording.loss, *(gradient for _, gradient in recording.gradients)]
        apart = sum((a - b).double().square().sum() for a, b in zip(expected, found, strict=True))
        whole = sum(a.double().square().sum() for a in expected)
        return bool(apart <= ROUNDING**2 * whole)


def pays(plan: TrainPlan, team: ProcessGroup) -> bool:
    """Return whether the steps of a plan can be recorded, and are so short that this makes them faster."""
    alone = isinstance(team, Alone) and team.device.type == "cuda"  # not one that is wrapped for a team
    if not alone or plan.recipe.accumulate > 1 or plan.precision == "fp16" or not plan.flops:
        return False
    peak = bf16_peak(torch.cuda.get_device_name(team.device))
    if peak is None or plan.flops * plan.batch > SHORT * _USED * peak:
        return False
    return 2 * plan.memory < torch.cuda.mem_get_info(team.device)[0]  # a recording keeps what a pass takes
