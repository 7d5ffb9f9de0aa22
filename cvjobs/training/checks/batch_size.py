"""The images of a step: that they fit into memory, how many do, and what is said where they do not."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.formatting import counted, size
from cvjobs.networks import torch_network
from cvjobs.networks.trainable import Trainable
from cvjobs.training.checks import memory
from cvjobs.training.checks.memory import Estimate
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.resources import Resources, torch_device
from cvjobs.training.loop.step import Learner, StepBatch, StepPart
from cvjobs.training.plan import TrainPlan
from cvjobs.training.recipe.recipe import Recipe

AUTO = 0  # the batch size that stands for one that fits
LARGEST = 256
STEPS = 10  # the fewest of an epoch whose batch size is chosen here
SHARE = 0.8  # of the memory there is: estimates are within a quarter of what was measured


def batch(value: int | str) -> int:
    """Return the images of a step that ``--batch-size`` asks for, ``AUTO`` for ``auto``; raises WrongUse."""
    if isinstance(value, str) and value != "auto":
        raise WrongUse(f"--batch-size must be a whole number of at least 2, or auto, not {value!r}.")
    return AUTO if isinstance(value, str) else value


@contextmanager
def explained(plan: TrainPlan) -> Iterator[None]:
    """Say, where memory runs out in the middle of a training, what needs less of it; raises JobFailed then."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not torch_network.out_of_memory(error):
            raise
        fewer, more = max(min(plan.batch, len(plan.train)) // 2, 2), plan.recipe.accumulate * 2
    else:
        return
    # Out here, for the traceback of the first error would keep the step's tensors alive.
    raise JobFailed(
        f"The memory does not suffice for steps of --batch-size {plan.batch}: "
        f"begin anew (--overwrite) with --batch-size {fewer} or --accumulate {more}."
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training whose steps are to fit: what is trained, how, by whom, and on how many images."""

    trainable: Trainable
    recipe: Recipe
    precision: str
    resources: Resources
    images: int

    @cached_property
    def needed(self) -> Estimate | None:
        """What each worker needs, None where it cannot be estimated."""
        resources = self.resources
        return memory.estimate(
            self.trainable, self.recipe, self.precision, together=not resources.alone, on_cpu=resources.device == "cpu"
        )

    @property
    def rooms(self) -> list[Room]:
        """The memory of a worker where there are fewest and most of them; empty where nobody knows it."""
        resources, parts = self.resources, self.recipe.accumulate
        numbers = sorted({resources.least, resources.most}) if resources.first or not resources.address else []
        if resources.first:
            first = resources.first
            return [Room(workers=n, bytes=first.bytes, parts=parts, limit=first.limit) for n in numbers]
        limit = memory.limit(resources.device)
        return [Room(workers=n, bytes=memory.available(resources.device, n), parts=parts, limit=limit) for n in numbers]

    def need(self, batch: int) -> int | None:
        """Return the bytes that a step takes of a worker where there are fewest of them."""
        if self.needed is None:
            return None
        return self.needed.need(min(batch, self.images), self.resources.least, self.recipe.accumulate)

    def words(self, batch: int) -> str:
        """Return what is known of the size, to be said before it begins."""
        need = self.need(batch)
        if self.needed is None or need is None:
            return ""
        return f" ({self.needed.parameters / 1e6:,.1f} M parameters, about {size(need)})"

    def check(self, batch: int) -> None:
        """Raise WrongUse where steps of a batch cannot fit."""
        if self.needed is not None:
            for room in self.rooms:
                check(self.needed, min(batch, self.images), room, self.trainable.name)

    def batch(self, asked: int, earlier: Mapping[str, Any]) -> int:
        """Return the images of a step: those asked for or, for ``AUTO``, those the run began with, or that fit.

        Raises:
            WrongUse: it is unknown how many fit, or not even two do.
        """
        if asked != AUTO or "batch_size" in earlier:
            return asked or int(earlier["batch_size"])
        if self.needed is None:
            raise WrongUse(f"--batch-size auto cannot tell what {self.trainable.name} needs: give a number.")
        found = min(fitting(self.needed, room, self.images) for room in self.rooms)
        # A trial needs the GPU here; of a cluster's the estimate is enough, as far as it goes.
        if self.resources.address or torch_device(self.resources) == "cpu":
            return found
        return tried(self.trainable, self.recipe, self.precision, self.rooms[0], found)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where a training is to fit: ``workers`` with ``bytes`` of memory each, which compute a share in ``parts``.

    ``limit`` are the bytes of the control group in which all of them are, 0 without one.
    """

    workers: int
    bytes: int
    parts: int
    limit: int = 0

    def takes(self, needed: Estimate, batch: int, share: float = 1.0) -> bool:
        """Return whether a batch fits into a share of the memory."""
        return needed.need(batch, self.workers, self.parts) <= self.bytes * share


def check(needed: Estimate, batch: int, room: Room, model: str) -> None:
    """Raise WrongUse where a step cannot fit, with a batch that does, or the parts in which this one does."""
    if room.takes(needed, batch):
        return
    sizes = range(2, batch)
    largest = bisect.bisect_left(sizes, True, key=lambda size: not room.takes(needed, size)) + 1
    parts = range(room.parts + 1, -(-batch // room.workers) // 2 + 1)
    enough = bisect.bisect_left(parts, True, key=lambda n: needed.need(batch, room.workers, n) <= room.bytes)
    ways = [f"--batch-size {largest}"] * (largest > 1)
    ways += [f"--accumulate {n}" for n in parts[enough : enough + 1]]
    each = " for each worker" if room.workers > 1 else ""
    held = f" within the limit of {size(room.limit)} of this process's control group" if room.limit else ""
    ways += ["a smaller model or --img-size"] * (not ways) + ["a higher limit"] * bool(room.limit)
    raise WrongUse(
        f"A step of {counted(batch, 'images')} with {model} needs about "
        f"{size(needed.need(batch, room.workers, room.parts))} of memory{each} and there is "
        f"{size(max(room.bytes, 0))}{held}: use {' or '.join(ways)}."
    )


def fitting(needed: Estimate, room: Room, images: int) -> int:
    """Return the largest power of two for a batch that fits and leaves an epoch of ``images`` its steps, or two."""
    most = min(LARGEST, images // STEPS)
    sizes = [2**power for power in range(1, LARGEST.bit_length()) if 2**power <= most]
    return max((size for size in sizes if room.takes(needed, size, SHARE)), default=2)


def tried(trainable: Trainable, recipe: Recipe, precision: str, room: Room, batch: int) -> int:
    """Return the batch, halved until the first GPU has the memory for real steps of it; nothing is changed.

    Raises:
        WrongUse: not even two images fit.
    """
    while batch >= 2:
        images = -(-batch // room.workers)
        if runs(trainable, recipe, precision, -(-images // max(min(room.parts, images // 2), 1)), "cuda"):
            return batch
        batch //= 2
    raise WrongUse(f"The GPU has no memory for a step of two images with {trainable.name}: use a smaller --img-size.")


def runs(trainable: Trainable, recipe: Recipe, precision: str, images: int, device: str) -> bool:
    """Return whether two steps on images that are computed at once find the memory that they need on a device."""
    try:
        _steps(trainable, recipe, precision, images, torch.device(device))
        return True
    except RuntimeError as error:
        if not torch_network.out_of_memory(error):
            raise
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()
    return False


def _steps(trainable: Trainable, recipe: Recipe, precision: str, images: int, device: torch.device) -> None:
    module = copy.deepcopy(trainable.module)
    learner = Learner(module, recipe, precision, Alone(device), batch=images, steps=1)
    learner.train()
    side = max(recipe.img_size + (trainable.transform.size or (0,)))
    targets = torch.empty(0)

    def criterion(outputs: Tensor, _: Tensor) -> Tensor:
        # Unscaled: of random pixels float16 may overflow, and a step that is skipped makes no state of the optimizer.
        return outputs.square().mean() / learner.scaler.get_scale()

    def given() -> tuple[Tensor, Tensor]:
        return torch.rand(images, 3, side, side, device=device), targets

    for _ in range(2):  # the optimizer's state is there from the second on
        learner.step(StepBatch(parts=[StepPart(images=images, given=given)], whole=images), criterion, 1.0)
