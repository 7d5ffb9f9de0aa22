"""A step on a device: one copy to it, as many calls for many images as for few, and none that waits for a value.

Shown on the ``meta`` device, which computes shapes and has no values: what would wait for one is an error there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training import plan

from cvjobs.training.data import gpu_cache
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.feed import Feed
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.resumption import Position
from cvjobs.training.loop.step import Learner, StepBatch, StepPart
from cvjobs.training.loop.transfer import Block
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe.recipe import Policy

pytestmark = pytest.mark.slow

META = torch.device("meta")
POLICIES: list[Policy] = [*get_args(Policy)]
EVERYTHING: dict[str, Any] = {
    "scale": (0.4, 1.0), "hflip": 0.5, "vflip": 0.5, "color_jitter": 0.3, "erasing": 0.5, "mixup": 0.2, "cutmix": 0.5,
    "smoothing": 0.1, "clip_grad": 1.0, "ema": 0.99, "focal_gamma": 2.0,
}  # fmt: skip


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls that compute something on a device, and those that copy something to it."""

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._type = device.type
        self.count = self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        there = any(self._own(leaf) for leaf in tree_leaves(out))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        foreign = bool(given) and not all(map(self._own, given))
        self.count += there and not view
        self.copies += there and foreign and func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        return out

    def _own(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.device.type == self._type


def first_step(made: TrainPlan, device: torch.device, *, resident: bool = False) -> tuple[Learner, Any, Any]:
    """Return a learner, its task, and what makes its first step, of which nothing is done yet."""
    team, task = Alone(device), task_registry.of(made)
    feed = Feed(made, team, task)
    if resident:
        pictures = opened(made.train.decoded)
        kind: Any = gpu_cache.ResidentImages if isinstance(pictures, Pictures) else gpu_cache.ResidentPictures
        feed._images, feed._all_there = kind(pictures, device), True
    learner = Learner.of(made, team, feed.steps)
    learner.train()
    augment = feed.augmentation(0)
    (ready, *_) = feed._read(0, 0, augment)
    return learner, task, lambda: feed._batch(ready, augment)


def counted(made: TrainPlan, *, resident: bool = False) -> tuple[int, Launches]:
    """Return how many launches prepare a step's images on a device, and what all of the step takes."""
    learner, task, begin = first_step(made, META, resident=resident)
    position = Position(loss=torch.zeros((), dtype=torch.float64, device=META))
    task.loss(torch.zeros(2, 3, device=META), torch.zeros(2, 3, device=META))  # its weights are there from now on
    preparing = 0
    with Launches() as whole:

        def noted(part: StepPart) -> StepPart:
            def given() -> tuple[Tensor, Tensor]:
                nonlocal preparing
                before = whole.count
                found = part.given()
                preparing += whole.count - before
                return found

            return StepPart(images=part.images, given=given)

        batch: StepBatch = begin()
        batch = StepBatch(parts=[noted(part) for part in batch.parts], whole=batch.whole)
        position.add(learner.step(batch, task.loss, 0.5))
        position.losses()
    return preparing, whole


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_of_many_images_takes_as_many_launches_and_one_copy(tmp_path: Path, policy: Policy) -> None:
    found = {}
    for batch in (64, 512):
        made = plan(tmp_path, f"run{batch}", images=1024, batch=batch, aa=policy, **EVERYTHING)
        found[batch] = counted(made)
        assert found[batch][1].copies == 1
    few, many = (found[batch][0] for batch in (64, 512))
    print(f"{policy:16} 64 images {few}, 512 images {many}; with model and optimizer {found[512][1].count}")
    assert many <= 1.1 * few
    assert many <= (400 if policy != "augmix" else 9 * 200)
    assert found[512][1].count - many == found[64][1].count - few


@pytest.mark.parametrize("resident", [False, True])
def test_whole_pictures_take_as_many_launches_for_many_images_and_one_copy(tmp_path: Path, resident: bool) -> None:
    found = {}
    for batch in (64, 512):
        made = plan(tmp_path, f"run{batch}", images=1024, batch=batch, aa="trivialaugment", whole=True, **EVERYTHING)
        found[batch] = counted(made, resident=resident)
        assert found[batch][1].copies == 1
    few, many = (found[batch][0] for batch in (64, 512))
    print(f"whole pictures: 64 images {few}, 512 images {many}")
    assert many <= min(1.1 * few, 400)


@pytest.mark.parametrize("more", [{}, {"accumulate": 4}, {"multilabel": True, "loss": "bce"}])
def test_nothing_in_a_step_waits_and_one_copy_brings_all_of_it(tmp_path: Path, more: dict[str, Any]) -> None:
    for mode in ("norm", "value", "agc"):
        made = plan(tmp_path, mode, images=80, batch=32, clip_mode=mode, **{**EVERYTHING, "mixup": 0.0, **more})
        _, whole = counted(made, resident=not more)
        assert whole.copies == 1


def test_a_wait_would_be_seen() -> None:
    values = torch.ones(3, device=META)
    for wait in (values[0].item, values.nonzero, values.cpu, values.tolist):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()
    with Launches() as made:
        torch.ones(3).to(META)
        torch.ones(3, device=META).copy_(torch.ones(3))
    assert made.copies == 2


def test_a_block_gives_back_what_was_put_in() -> None:
    value: list[Any] = [
        torch.arange(5, dtype=torch.int16),
        (torch.eye(3, dtype=torch.float64), None, "a word"),
        torch.zeros(0, 4),
    ]
    block = Block(value, META)
    assert [tensor.device.type for tensor in (block.sent()[0], block.sent()[1][0])] == ["meta", "meta"]
    block._device = torch.device("cpu", 0)
    whole = block._bytes
    assert len(whole) % 16 == 0
    assert torch.equal(whole[:10].view(torch.int16), value[0])
    assert torch.equal(whole[16:88].view(torch.float64).view(3, 3), torch.eye(3, dtype=torch.float64))
    assert Block(value, torch.device("cpu")).sent() is value


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_is_not_waited_for_in_a_step(tmp_path: Path, policy: Policy) -> None:
    cuda = torch.device("cuda")
    made = plan(tmp_path, "run", images=256, batch=64, aa=policy, **EVERYTHING)
    learner, task, begin = first_step(made, cuda)
    position = Position(loss=torch.zeros((), dtype=torch.float64, device=cuda))
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            position.add(learner.step(begin(), task.loss, 1.0))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    loss, images = position.losses().tolist()
    assert images == 3 * 64
    assert loss > 0
