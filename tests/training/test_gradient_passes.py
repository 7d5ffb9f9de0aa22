"""Ways to compute the gradients of whole batches: a recording that is replayed, and a compiled network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from training import plan

from cvjobs.training.loop.compiled_pass import MOST, CompiledPass
from cvjobs.training.loop.cuda_graph import GraphPass, GraphRecorder, pays
from cvjobs.training.loop.gradient_pass import GradientPass, PlainPass
from cvjobs.training.loop.loop import Loop
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.step import Learner, StepBatch, StepPart
from cvjobs.training.recipe import recipe as recipe_recipe

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


class Replaying:
    """Records as CUDA does: nothing of the recording counts, and each replay writes to the places of the recording."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.warmed = self.recorded = 0

    def warm(self, work: Callable[[], Tensor]) -> None:
        self.warmed += 1
        work()

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        loss = work()
        gradients = [weight.grad for weight in self._model.parameters()]
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)

        def replay() -> None:
            loss.copy_(work())
            for weight, gradient in zip(self._model.parameters(), gradients, strict=True):
                if gradient is not None and weight.grad is not None:
                    gradient.copy_(weight.grad)

        return loss, replay


def learner(*more: nn.Module, device: torch.device = CPU, precision: str = "fp32", **recipe: Any) -> Learner:
    """Return a network with running statistics and a frozen layer, the same each time."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, bias=False)  # a bias before a batch norm learns rounding errors
    module = nn.Sequential(first, nn.BatchNorm2d(4), *more, nn.Flatten(), nn.LazyLinear(3))
    module(torch.zeros(2, 3, 8, 8))
    first.weight.requires_grad_(False)
    made = recipe_recipe.named("quick", classes=True, **{"clip_grad": 0.5, **recipe})
    found = Learner(module, made, precision, Alone(device), batch=6, steps=3)
    found.train()
    return found


def batch(number: int, images: int = 6, side: int = 8, device: torch.device = CPU) -> StepBatch:
    """Return a step of one part."""
    random = torch.Generator().manual_seed(number)
    inputs = torch.randn(images, 3, side, side, generator=random).to(device)
    targets = torch.randint(3, (images,), generator=random).to(device)
    return StepBatch(parts=[StepPart(images=images, given=lambda: (inputs, targets))], whole=images)


def steps(made: Learner, batches: list[StepBatch]) -> list[Tensor]:
    """Return the losses of steps; dropout's draws are each step's own, as those of training."""
    losses = []
    for number, one in enumerate(batches):
        torch.manual_seed(number)
        losses += [loss for loss, _ in made.step(one, functional.cross_entropy, 1.0)]
    return losses


def same(one: Learner, other: Learner, rtol: float = 0.0, atol: float = 0.0) -> None:
    states = one.model.state_dict(), other.model.state_dict()
    assert list(states[0]) == list(states[1])
    for mine, its in zip(*map(dict.values, states), strict=True):
        torch.testing.assert_close(mine, its, rtol=rtol, atol=atol)


def recording(made: Learner, warn: Callable[[str], None], kept: list[Replaying]) -> None:
    kept.append(Replaying(made.model))
    made.hasten(partial(GraphPass, model=made.model, recorder=kept[0], warn=warn))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_leave_what_plain_steps_leave(precision: str) -> None:
    batches = [batch(0), batch(1), batch(2, images=4), batch(3), batch(4)]
    plain, recorded = learner(precision=precision, ema=0.9), learner(precision=precision, ema=0.9)
    said: list[str] = []
    kept: list[Replaying] = []
    recording(recorded, said.append, kept)
    expected, losses = steps(plain, batches), steps(recorded, batches)
    assert all(map(torch.equal, losses, expected))
    assert len({loss.data_ptr() for loss in losses}) == len(losses)  # a later step changes no loss that waits
    same(recorded, plain)
    assert (kept[0].warmed, kept[0].recorded, said) == (3, 1, [])


def test_each_size_has_its_recording() -> None:
    batches = [batch(0), batch(1), batch(2, side=10), batch(3, side=10)]
    plain, recorded = learner(nn.AdaptiveAvgPool2d(6)), learner(nn.AdaptiveAvgPool2d(6))
    kept: list[Replaying] = []
    recording(recorded, pytest.fail, kept)
    assert all(map(torch.equal, steps(recorded, batches), steps(plain, batches)))
    same(recorded, plain)
    assert kept[0].recorded == 2


def test_what_draws_random_numbers_is_not_recorded() -> None:
    batches = [batch(number) for number in range(3)]
    plain, recorded = learner(nn.Dropout(0.5)), learner(nn.Dropout(0.5))
    kept: list[Replaying] = []
    recording(recorded, pytest.fail, kept)
    assert all(map(torch.equal, steps(recorded, batches), steps(plain, batches)))
    same(recorded, plain)
    assert kept[0].recorded == 0


def test_what_cannot_be_recorded_trains_as_it_is_and_that_is_said_once() -> None:
    class Refusing(Replaying):
        def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    batches = [batch(number) for number in range(3)]
    plain, recorded = learner(), learner()
    said: list[str] = []
    recorded.hasten(partial(GraphPass, model=recorded.model, recorder=Refusing(nn.Module()), warn=said.append))
    # What a recording did before it failed is on no device; here it is, so its step is a warm-up's.
    assert all(map(torch.equal, steps(recorded, batches), steps(plain, batches)))
    same(recorded, plain)
    assert said == [
        "the steps of this model cannot be recorded as a CUDA graph (operation not permitted when stream is "
        "capturing): it trains without"
    ]


def test_a_replay_that_computes_something_else_is_noticed_before_it_counts() -> None:
    class Idle(Replaying):
        def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            loss, _ = super().record(work)
            for weight in self._model.parameters():
                if weight.grad is not None:
                    weight.grad.zero_()
            return loss, lambda: None

    batches = [batch(number) for number in range(3)]
    plain, recorded = learner(), learner()
    said: list[str] = []
    idle = Idle(recorded.model)
    recorded.hasten(partial(GraphPass, model=recorded.model, recorder=idle, warn=said.append))
    assert all(map(torch.equal, steps(recorded, batches), steps(plain, batches)))
    same(recorded, plain)
    assert idle.recorded == 1
    (line,) = said
    assert "its replay computes something else" in line


def test_on_a_cpu_nothing_is_recorded(tmp_path: Path) -> None:
    assert not pays(replace(plan(tmp_path, "run"), flops=1e6), Alone(CPU))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_a_recorded_step_is_a_plain_one(precision: str) -> None:
    device = torch.device("cuda")
    batches = [batch(number, device=device) for number in range(5)] + [batch(5, images=4, device=device)]
    sgd: dict[str, Any] = {"opt": "sgd", "momentum": 0.5, "lr": 0.1, "lr_base_size": 6}  # rounding is not magnified
    plain, recorded = (learner(device=device, precision=precision, **sgd) for _ in range(2))

    def way(one: PlainPass) -> GradientPass:
        return GraphPass(one, recorded.model, GraphRecorder(device), pytest.fail)

    recorded.hasten(way)
    torch.testing.assert_close(steps(recorded, batches), steps(plain, batches), rtol=1e-3, atol=1e-3)
    same(recorded, plain, rtol=1e-3, atol=1e-3)


def test_what_torch_cannot_compile_trains_as_it_is_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("no such operation")

    compiles = torch.compile
    monkeypatch.setattr(torch, "compile", lambda one, **more: compiles(one, **{**more, "backend": refuse}))
    batches = [batch(number) for number in range(3)]
    plain, compiled = learner(nn.Dropout(0.5)), learner(nn.Dropout(0.5))
    said: list[str] = []
    compiled.hasten(partial(CompiledPass, model=compiled.model, warn=said.append))
    assert all(map(torch.equal, steps(compiled, batches), steps(plain, batches)))
    same(compiled, plain)
    (line,) = said
    assert line.startswith("torch cannot compile this model (")
    assert "no such operation" in line


def test_few_shapes_are_compiled_and_partial_batches_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def noting(graph: Any, _: object) -> Any:
        def call(*inputs: Any) -> Any:
            seen.extend(tuple(one.shape[i] for i in (0, 2)) for one in inputs if getattr(one, "ndim", 0) == 4)
            return graph(*inputs)

        return call

    compiles = torch.compile
    monkeypatch.setattr(torch, "compile", lambda one, **more: compiles(one, **{**more, "backend": noting}))
    plain, compiled = learner(nn.AdaptiveAvgPool2d(6)), learner(nn.AdaptiveAvgPool2d(6))
    compiled.hasten(partial(CompiledPass, model=compiled.model, warn=pytest.fail))
    sides = range(8, 8 + MOST + 2)
    batches = [batch(side, side=side) for side in sides] + [batch(0, images=4)]
    torch.testing.assert_close(steps(compiled, batches), steps(plain, batches))
    same(compiled, plain, rtol=1e-5, atol=1e-6)
    assert {one for one in seen if one[0] in (4, 6) and one[1] in sides} == {(6, side) for side in sides[:MOST]}


@pytest.mark.faults(minutes=1)
def test_a_compiled_step_is_a_plain_one() -> None:
    batches = [batch(number) for number in range(3)] + [batch(3, images=4)]
    plain, compiled = learner(), learner()
    compiled.hasten(partial(CompiledPass, model=compiled.model, warn=pytest.fail))
    torch.testing.assert_close(steps(compiled, batches), steps(plain, batches), rtol=1e-5, atol=1e-5)
    same(compiled, plain, rtol=1e-5, atol=1e-5)
    assert compiled.scored is compiled.model


@pytest.mark.faults(minutes=1)
def test_a_run_goes_on_compiled_or_not_from_the_same_checkpoints(tmp_path: Path) -> None:
    said: list[str] = []

    def trained(run: str, *compiled: bool) -> dict[str, Tensor]:
        for epochs, way in enumerate(compiled, 1):
            one = replace(plan(tmp_path, run, epochs=epochs, sched="constant", warmup_epochs=0), compiled=way)
            loop = Loop(replace(one, begun_epochs=1), Alone(CPU), lambda _: False, said.append)
            loop.run()
        return dict(loop._learner.model.state_dict())

    plain = trained("plain", False, False)
    for run, *ways in (("there", True, False), ("back", False, True)):
        found = trained(run, *ways)
        assert list(found) == list(plain)
        for name, values in plain.items():
            torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-4)
    assert said == []
