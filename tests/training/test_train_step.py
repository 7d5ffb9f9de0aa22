"""The one step that training, the search for a rate, the overfit check and the trial of a batch size make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.step import Learner, StepBatch, StepPart, parted
from cvjobs.training.recipe import optimizers
from cvjobs.training.recipe import recipe as recipe_recipe

IMAGES = torch.arange(6 * 3 * 4 * 4, dtype=torch.float32).view(6, 3, 4, 4).sin()
TARGETS = torch.tensor([0, 1, 0, 1, 1, 0])
# The first step of Nesterov's momentum is 1 + momentum times that of gradient descent.
QUIET: dict[str, Any] = {"opt": "sgd", "momentum": 0.5, "weight_decay": 0.0, "lr_base_size": 6, "lr": 0.5}


def learner(precision: str = "fp32", **recipe: Any) -> Learner:
    """Return a linear layer that learns, with the same weights each time."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    made = recipe_recipe.named("quick", classes=True, **{**QUIET, "clip_grad": 0.0, "ema": 0.0, **recipe})
    found = Learner(module, made, precision, Alone(torch.device("cpu")), batch=6, steps=1)
    found.train()
    return found


def batch(accumulate: int = 1) -> StepBatch:
    """Return the images as one step."""
    return StepBatch(parts=[part(these) for these in parted(6, accumulate)], whole=6)


def part(these: slice) -> StepPart:
    """Return some of the images."""
    return StepPart(images=these.stop - these.start, given=lambda: (IMAGES[these], TARGETS[these]))


@pytest.mark.parametrize(
    ("images", "accumulate", "sizes"), [(6, 1, [6]), (6, 2, [3, 3]), (7, 3, [3, 2, 2]), (5, 9, [3, 2]), (1, 4, [1])]
)
def test_parts_are_of_two_images_at_least(images: int, accumulate: int, sizes: list[int]) -> None:
    parts = parted(images, accumulate)
    assert [part.stop - part.start for part in parts] == sizes
    assert [place for part in parts for place in range(images)[part]] == list(range(images))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_is_that_of_gradient_descent(accumulate: int) -> None:
    made = learner()
    weight = made.model[1].weight  # type: ignore[index]
    before = weight.detach().clone()
    expected = functional.cross_entropy(made.model(IMAGES), TARGETS)
    (gradient,) = torch.autograd.grad(expected, weight)
    losses = made.step(batch(accumulate), functional.cross_entropy, 0.1)
    assert sum(float(loss) * images for loss, images in losses) / 6 == pytest.approx(expected.item(), rel=1e-6)
    assert sum(images for _, images in losses) == 6
    assert len(losses) == accumulate
    torch.testing.assert_close(weight.detach(), before - 1.5 * 0.05 * gradient, rtol=1e-5, atol=1e-7)
    assert made.done == 1


def test_gradients_are_clipped_before_the_update() -> None:
    made = learner(clip_grad=0.001)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in made.model.parameters()])
    made.step(batch(), functional.cross_entropy, 1.0)
    after = torch.cat([parameter.detach().flatten() for parameter in made.model.parameters()])
    assert float((after - before).norm()) == pytest.approx(1.5 * 0.5 * 0.001, rel=0.01)


def test_the_average_follows_and_is_what_is_scored() -> None:
    made = learner(ema=0.5)
    first = [parameter.detach().clone() for parameter in made.model.parameters()]
    made.step(batch(), functional.cross_entropy, 1.0)
    for mean, before, now in zip(made.scored.parameters(), first, made.model.parameters(), strict=True):
        share = 2 ** (-2 / 3)  # of the latest weights after one step
        torch.testing.assert_close(mean, before + share * (now.detach() - before))
    plain = learner()
    assert plain.scored is plain.model


def test_a_step_that_overflows_in_float16_changes_nothing_but_the_scale() -> None:
    made = learner("fp16")
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": 2.0**120})
    made.step(batch(), functional.cross_entropy, 1.0)
    assert made.scaler.get_scale() == 2.0**119
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.model.state_dict().items())
    made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": 1.0})
    made.step(batch(), functional.cross_entropy, 1.0)
    assert not torch.equal(made.model.state_dict()["1.weight"], before["1.weight"])


@pytest.mark.parametrize("here", [True, False])
def test_a_state_of_fused_steps_goes_on_where_steps_are_not_and_the_other_way(here: bool) -> None:
    def made(fused: bool) -> Learner:
        found = learner(opt="adamw", lr=0.01)
        for group in found.optimizer.param_groups:
            group["fused"] = fused
        return found

    def steps(one: Learner) -> list[Tensor]:
        for _ in range(3):
            one.step(batch(), functional.cross_entropy, 1.0)
        return [parameter.detach().clone() for parameter in one.model.parameters()]

    first, then, straight = made(not here), made(here), made(not here)
    steps(first)
    steps(straight)
    then.model.load_state_dict(first.model.state_dict())
    optimizers.restore(then.optimizer, first.optimizer.state_dict())
    assert [group["fused"] for group in then.optimizer.param_groups] == [here] * len(then.optimizer.param_groups)
    torch.testing.assert_close(steps(then), steps(straight))
