"""Augmentation policies on batches: each operation is torchvision's, drawn as often, whatever else is in the batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from training import plan

from cvjobs.training.loop import task_registry
from cvjobs.training.loop.feed import Feed
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.recipe import policies
from cvjobs.training.recipe.augment import generator
from cvjobs.training.recipe.policies import NAMES, Slot
from cvjobs.training.recipe.recipe import Policy

pytestmark = pytest.mark.slow

POLICIES: dict[Policy, type] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
STRENGTHS = {
    "Posterize": (2.0, 5.0, 8.0),
    "Solarize": (0.0, 0.3, 1.0),
    "Rotate": (-135.0, 4.5, 30.0),
    "TranslateX": (-32.0, 0.0, 7.0),
    "TranslateY": (-32.0, 0.0, 7.0),
}


def pictures(count: int, height: int = 23, width: int = 31) -> Tensor:
    """Smooth pictures of many levels, of which the first is of one colour."""
    draw = generator(count)
    coarse = torch.rand(count, 3, 4, 4, generator=draw) * 255
    coarse[0] = 90
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").byte()


def drawn(policy: Policy, count: int) -> Tensor:
    return torch.rand(count, policies.numbers(policy), generator=generator(7))


def changed(policy: Policy, images: Tensor, numbers: Tensor) -> Tensor:
    settled = policies.settled(policy, numbers, *images.shape[-2:])
    return policies.applied(images, settled.changes(slice(None)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_that_of_torchvision(name: str, mode: Any) -> None:
    images = pictures(6)
    strengths = torch.tensor(STRENGTHS.get(name, (-0.9, 0.0, 0.31)) * 2)
    made = images.clone()
    slot = Slot(names=torch.full((6,), NAMES.index(name)), strengths=strengths)
    policies.apply(made, policies.settled_slot(slot, *images.shape[-2:]).grouped(slice(None)), mode)
    for image, strength, found in zip(images, strengths.tolist(), made, strict=True):
        expected = v2.RandAugment()._apply_image_or_video_transform(
            image, name, strength, interpolation=InterpolationMode(mode), fill={}
        )
        assert int((found.int() - expected.int()).abs().max()) <= 1


def told(policy: Policy, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, float]]:
    """The operations that torchvision does with so many images."""
    made: Counter[tuple[str, float]] = Counter()

    def note(_: Any, image: Tensor, name: str, magnitude: float, **_more: Any) -> Tensor:
        made[name, round(int(magnitude) if name.startswith("Translate") else magnitude, 3)] += 1
        return image

    monkeypatch.setattr(POLICIES[policy], "_apply_image_or_video_transform", note)
    change, image = POLICIES[policy](), torch.zeros(3, 48, 64, dtype=torch.uint8)
    torch.manual_seed(0)
    for _ in range(count):
        change(image)
    return made


@pytest.mark.parametrize("policy", POLICIES)
def test_operations_and_strengths_are_as_frequent_as_torchvisions(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1500 if policy == "augmix" else 4000
    expected = told(policy, count, monkeypatch)
    found: Counter[tuple[str, float]] = Counter()
    choice = policies.choose(policy, drawn(policy, 5 * count), 48, 64)
    for slot in (slot for chain in choice.chains for slot in chain):
        for name, strength in zip(slot.names.tolist(), slot.strengths.tolist(), strict=True):
            found[NAMES[name], 0.0 if name == 0 else round(strength, 3)] += 1
    for key in expected.keys() | found.keys():
        if key[0] == "Identity":  # which stands for operations that are not done, too
            continue
        mean = (expected[key] + found[key]) / 6
        assert abs(expected[key] - found[key] / 5) < 5 * (mean * 1.2) ** 0.5 + 1, key


def test_the_shares_of_augmix_are_those_of_torchvision() -> None:
    shares = policies.choose("augmix", drawn("augmix", 20_000), 8, 8).shares
    assert shares is not None
    assert torch.allclose(shares.sum(1), torch.ones(20_000), atol=1e-5)
    torch.manual_seed(0)
    own = torch._sample_dirichlet(torch.ones(20_000, 2))
    rest = torch._sample_dirichlet(torch.ones(20_000, 3)) * own[:, 1:]
    expected = torch.cat([own[:, :1], rest], 1)
    points = torch.linspace(0.05, 0.95, 10)
    for mine, theirs in zip(shares.unbind(1), expected.unbind(1), strict=True):
        assert torch.allclose(mine.quantile(points), theirs.quantile(points), atol=0.02)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_is_changed_alike_whatever_else_is_in_the_batch(policy: Policy) -> None:
    images, numbers = pictures(40), drawn(policy, 40)
    before = images.clone()
    together = changed(policy, images, numbers)
    assert torch.equal(images, before)
    assert (together != images).any()
    for at in (1, 17, 39):
        alone = changed(policy, images[at : at + 1], numbers[at : at + 1])[0]
        assert int((alone.int() - together[at].int()).abs().max()) <= 1


def test_workers_change_an_image_as_one_does(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", aa="trivialaugment", scale=(0.4, 1.0), hflip=0.5, color_jitter=0.3, erasing=0.5)

    def inputs(rank: int, size: int) -> list[Tensor]:
        team: Any = (
            Alone(torch.device("cpu"))
            if size == 1
            else SimpleNamespace(rank=rank, size=size, device=torch.device("cpu"))
        )
        feed = Feed(made, team, task_registry.of(made))
        return [
            torch.cat([part.given()[0] for part in batch.parts]) for batch in feed.batches(0, 0, feed.augmentation(0))
        ]

    halves = [inputs(rank, 2) for rank in (0, 1)]
    for step, whole in enumerate(inputs(0, 1)):
        for rank in (0, 1):
            torch.testing.assert_close(halves[rank][step], whole[rank::2], rtol=0, atol=0.05)
