"""Augmentation policies on batches: which operations each image gets, drawn at once, and their application by groups.

The policies and their ranges are those of torchvision (AutoAugment, RandAugment, TrivialAugment Wide, AugMix, each with
its defaults). An image's operations follow from its own row of random numbers, whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from cvjobs.training.recipe import image_operations
from cvjobs.training.recipe.image_operations import Mode
from cvjobs.training.recipe.recipe import Policy

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
NAMES = ("Identity", *_GEOMETRIC, *image_operations.BY_NAME)
_IDENTITY = 0
_BINS = 31
_MIX_BINS = 10
_WIDTH = 3  # chains of AugMix
_DEPTH = 3  # operations of a chain, at most
_CACHED = 1 << 20  # numbers that a CPU works on at once, for its caches
_SEVERITY = 3  # bins of AugMix, from none on


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One operation for each image of a batch: ``names`` (N,) int64 numbers in ``NAMES``, ``strengths`` (N,) float32.

    Both are on the CPU. A strength is what torchvision's operation of that name takes.
    """

    names: Tensor
    strengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a policy does to a batch: chains of slots, and of several chains the shares (N, 1 + chains) of their sum.

    The first share is the image's own. Without ``shares`` there is one chain, and its result is that of the policy.
    """

    chains: Sequence[Sequence[Slot]]
    shares: Tensor | None = None


def numbers(policy: Policy) -> int:
    """Return how many random numbers an image needs."""
    return {
        "none": 0,
        "autoaugment": 5,
        "randaugment": 4,
        "trivialaugment": 3,
        "augmix": 4 + _WIDTH * (1 + 3 * _DEPTH),
    }[policy]


def choose(policy: Policy, drawn: Tensor, height: int, width: int) -> Choice:
    """Return what is done to images of a size, from random numbers (N, ``numbers(policy)``) from 0 to 1, on the CPU."""
    columns = iter(drawn.unbind(1))
    if policy == "autoaugment":
        return Choice(chains=[_auto(columns, height, width)])
    if policy == "augmix":
        return _mixed(columns, height, width)
    wide = policy == "trivialaugment"
    space = _space(v2.TrivialAugmentWide if wide else v2.RandAugment, _BINS, height, width)
    slots = []
    for _ in range(1 if wide else 2):
        names = _below(next(columns), len(space))
        bins = _below(next(columns), _BINS) if wide else torch.full_like(names, 9)
        slots.append(_slot(space, names, bins, next(columns)))
    return Choice(chains=[slots])


@dataclass(frozen=True)
class _Space:
    """The operations of a policy: their numbers in ``NAMES``, strengths (operations, bins), which have a sign."""

    names: Tensor
    strengths: Tensor
    signed: Tensor

    def __len__(self) -> int:
        return len(self.names)


def _space(of: type, bins: int, height: int, width: int) -> _Space:
    """Return the operations of one of torchvision's policies for images of a size."""
    names, strengths, signed = [], [], []
    for name, (ranged, sign) in of._AUGMENTATION_SPACE.items():  # type: ignore[attr-defined]
        values = ranged(bins, height, width)
        values = torch.zeros(bins) if values is None else values.float()
        names.append(NAMES.index(name))
        strengths.append(values.trunc() if name.startswith("Translate") else values)
        signed.append(sign)
    return _Space(torch.tensor(names), torch.stack(strengths), torch.tensor(signed))


def _slot(space: _Space, rows: Tensor, bins: Tensor, sign: Tensor) -> Slot:
    strengths = space.strengths[rows, bins]
    negative = space.signed[rows] & (sign <= 0.5)
    return Slot(names=space.names[rows], strengths=torch.where(negative, -strengths, strengths))


def _auto(columns: Iterator[Tensor], height: int, width: int) -> list[Slot]:
    space = _space(v2.AutoAugment, _MIX_BINS, height, width)
    order = [NAMES[number] for number in space.names.tolist()]
    pairs = v2.AutoAugment()._policies
    which = _below(next(columns), len(pairs))
    slots = []
    for place in range(2):
        rows = torch.tensor([order.index(pair[place][0]) for pair in pairs])[which]
        chance = torch.tensor([pair[place][1] for pair in pairs])[which]
        bins = torch.tensor([pair[place][2] or 0 for pair in pairs])[which]
        slots.append(_sometimes(_slot(space, rows, bins, next(columns)), next(columns) <= chance))
    return slots


def _mixed(columns: Iterator[Tensor], height: int, width: int) -> Choice:
    space = _space(v2.AugMix, _MIX_BINS, height, width)
    own = next(columns)  # Beta(1, 1) is uniform, and Dirichlet(1, 1, 1) the shares of exponential numbers
    parts = -torch.stack([next(columns) for _ in range(_WIDTH)], 1).clamp_(min=1e-12).log_()
    shares = torch.cat([own[:, None], (1 - own)[:, None] * parts / parts.sum(1, keepdim=True)], 1)
    chains = []
    for _ in range(_WIDTH):
        depth = 1 + _below(next(columns), _DEPTH)
        chain = []
        for place in range(_DEPTH):
            names, bins = _below(next(columns), len(space)), _below(next(columns), _SEVERITY)
            chain.append(_sometimes(_slot(space, names, bins, next(columns)), depth > place))
        chains.append(chain)
    return Choice(chains=chains, shares=shares)


def _sometimes(slot: Slot, there: Tensor) -> Slot:
    return Slot(names=torch.where(there, slot.names, _IDENTITY), strengths=slot.strengths)


def _below(drawn: Tensor, count: int) -> Tensor:
    """Return whole numbers below ``count``, each as likely, from random ones from 0 to 1."""
    return (drawn * count).long().clamp_(max=count - 1)


@dataclass(frozen=True, kw_only=True)
class GroupedSlot:
    """A slot whose images are in groups of one operation each, so that a group is changed at once.

    ``order`` (N,) int64 are the places of the images by group, ``values`` (N, 7) float32 of each in that order its
    map, as ``image_operations.warped`` takes it, and its strength; ``counts`` is how many images are in each group:
    that of the operation of this number in ``NAMES``, of which the geometric ones are one.
    """

    order: Tensor
    values: Tensor
    counts: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class PolicyChanges:
    """A ``Choice`` made ready for images of one size."""

    chains: Sequence[Sequence[GroupedSlot]]
    shares: Tensor | None


@dataclass(frozen=True, kw_only=True)
class SettledSlot:
    """A slot for images of one size, in their order: the group of each (``kinds``, (N,)) and its ``values``.

    Both are those of ``GroupedSlot``.
    """

    kinds: Tensor
    values: Tensor

    def grouped(self, rows: slice) -> GroupedSlot:
        """Return some of the images by group."""
        kinds = self.kinds[rows]
        order = kinds.argsort(stable=True)
        counts = torch.bincount(kinds, minlength=len(NAMES)).tolist()
        return GroupedSlot(order=order, values=self.values[rows][order], counts=counts)


@dataclass(frozen=True, kw_only=True)
class SettledPolicy:
    """A ``Choice`` for images of one size."""

    chains: Sequence[Sequence[SettledSlot]]
    shares: Tensor | None

    def changes(self, rows: slice) -> PolicyChanges:
        """Return what ``applied`` does to some of the images."""
        return PolicyChanges(
            chains=[[slot.grouped(rows) for slot in chain] for chain in self.chains],
            shares=None if self.shares is None else self.shares[rows],
        )


def settled(policy: Policy, drawn: Tensor, height: int, width: int) -> SettledPolicy:
    """Return what is done to images of a size, on the CPU, from random numbers as ``choose`` takes them."""
    choice = choose(policy, drawn, height, width)
    chains = [[settled_slot(slot, height, width) for slot in chain] for chain in choice.chains]
    return SettledPolicy(chains=chains, shares=choice.shares)


def settled_slot(slot: Slot, height: int, width: int) -> SettledSlot:
    """Return a slot for images of a size."""
    kinds = slot.names.clamp(min=len(_GEOMETRIC))  # the geometric ones are one
    kinds[slot.names == _IDENTITY] = _IDENTITY
    maps = _maps(slot.names, slot.strengths, height, width)
    return SettledSlot(kinds=kinds, values=torch.cat([maps.flatten(1), slot.strengths[:, None]], 1))


def applied(images: Tensor, changes: PolicyChanges) -> Tensor:
    """Return uint8 (N, 3, H, W) images changed by a policy; all tensors are on the device of the images."""
    mode: Mode = "nearest" if changes.shares is None else "bilinear"
    ends = []
    for chain in changes.chains:
        ends.append(images.clone())
        for slot in chain:
            apply(ends[-1], slot, mode)
    if changes.shares is None:
        return ends[0]
    shares = changes.shares.view(len(images), -1, 1, 1, 1)
    mixed = torch.empty_like(images)
    for block in _blocks(images, 0, len(images)):
        mix = images[block] * shares[block, 0]
        for number, end in enumerate(ends, 1):
            mix.addcmul_(shares[block, number], end[block])
        mixed[block] = mix
    return mixed


def apply(images: Tensor, slot: GroupedSlot, mode: Mode) -> None:
    """Change each image by its operation, those of the same one together; what stays as it is, is not touched."""
    start = slot.counts[_IDENTITY]
    for number, count in enumerate(slot.counts[1:], 1):
        for block in _blocks(images, start, start + count):
            places, own = slot.order[block], slot.values[block]
            some = images.index_select(0, places)
            if number == len(_GEOMETRIC):
                some = image_operations.warped(some, own[:, :6].view(-1, 2, 3), mode)
            else:
                some = image_operations.BY_NAME[NAMES[number]](some, own[:, 6])
            images.index_copy_(0, places, some)
        start += count


def _blocks(images: Tensor, start: int, end: int) -> Iterator[slice]:
    """Yield what is computed at once of the images from ``start`` on: on a CPU what its caches hold."""
    most = max(_CACHED // images[0].numel(), 1) if images.device.type == "cpu" else len(images)
    for first in range(start, end, most):
        yield slice(first, min(first + most, end))


def _maps(names: Tensor, strengths: Tensor, height: int, width: int) -> Tensor:
    """Return the maps (N, 2, 3) that ``image_operations.warped`` takes; of other operations they mean nothing."""
    maps = torch.eye(2, 3).repeat(len(names), 1, 1)
    shear_x, shear_y, shift_x, shift_y, turn = (names == NAMES.index(name) for name in _GEOMETRIC)
    none = torch.zeros(())
    maps[:, 0, 1] = torch.where(shear_x, strengths, none)
    maps[:, 0, 2] = torch.where(shear_x, strengths * height / 2, torch.where(shift_x, -strengths, none))
    maps[:, 1, 0] = torch.where(shear_y, strengths, none)
    maps[:, 1, 2] = torch.where(shear_y, strengths * width / 2, torch.where(shift_y, -strengths, none))
    angles = strengths[turn].double() * (math.pi / 180)
    cos, sin = angles.cos().float(), angles.sin().float()
    maps[turn, 0, 0], maps[turn, 0, 1], maps[turn, 1, 0], maps[turn, 1, 1] = cos, -sin, sin, cos
    return maps / torch.tensor([width / 2, height / 2]).view(2, 1)
