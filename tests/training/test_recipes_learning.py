"""What each setting of a recipe does to learning: rates, decay, freezing, schedules and losses."""

from __future__ import annotations

import copy
import io
import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.training.recipe import losses, lr_finder, lr_schedule, optimizers
from cvjobs.training.recipe.averaging import Average
from cvjobs.training.recipe.recipe import Optimizer, Recipe, named


def recipe(**settings: Any) -> Recipe:
    return Recipe(**{"epochs": 4, "weight_decay": 0.0, **settings})


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


def train(model: nn.Module, settings: Recipe, steps: int = 5) -> torch.optim.Optimizer:
    optimizer = optimizers.build(model, settings, 64)
    optimizers.set_training(model, settings.freeze_until)
    images, targets = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
        optimizers.clip(model, settings)
        optimizer.step()
    return optimizer


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    now = after.state_dict()
    return {name for name, value in before.state_dict().items() if not torch.equal(value, now[name])}


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_an_optimizer_lowers_the_loss_and_its_state_is_plain_tensors(name: Optimizer) -> None:
    model = network()
    images, targets = batch()
    with torch.no_grad():
        before = float(F.cross_entropy(model(images), targets))
    optimizer = train(model, recipe(opt=name, lr=1e-3 if name == "lion" else 1e-2), 20)
    with torch.no_grad():
        assert float(F.cross_entropy(model(images), targets)) < before
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))


def test_the_rate_grows_linearly_with_the_global_batch() -> None:
    settings = named("finetune")
    rates = [optimizers.build(network(), settings, images).param_groups[0]["lr"] for images in (64, 256)]
    assert rates == pytest.approx([1e-3, 4e-3])


def test_momentum_is_the_optimizers() -> None:
    assert optimizers.build(network(), recipe(opt="sgd", momentum=0.5), 64).param_groups[0]["momentum"] == 0.5
    (plain,) = optimizers.build(network(), recipe(opt="sgd", momentum=0, weight_decay=0), 64).param_groups
    assert (plain["momentum"], plain["nesterov"]) == (0, False)


@pytest.mark.parametrize("layer_decay", [0.0, 0.5])
def test_biases_and_norms_have_no_weight_decay(layer_decay: float) -> None:
    model = network()
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optimizers.build(model, recipe(weight_decay=0.1, layer_decay=layer_decay), 64).param_groups
    decayed = {names[parameter] for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decayed == {"0.0.weight", "1.0.weight", "2.2.weight"}
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_earlier_layers_of_any_model_learn_more_slowly() -> None:
    import timm
    import torchvision

    with torch.device("meta"):
        models = [torchvision.models.mobilenet_v2(), timm.create_model("vit_tiny_patch16_224")]
    for model in models:
        optimizer = optimizers.build(model, recipe(layer_decay=0.5), 64)
        lr_schedule.set_rate(optimizer, 1.0)
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        in_order = [rates[id(parameter)] for parameter in model.parameters()]
        assert in_order[-1] == pytest.approx(1e-3)
        assert in_order[0] < 1e-3 / 2**9
        assert len(set(in_order)) > 10


def test_a_frozen_layer_does_not_move_and_the_others_do() -> None:
    model = network()
    optimizers.freeze(model, "1")
    before = copy.deepcopy(model)
    optimizer = train(model, recipe(freeze_until="1", weight_decay=0.1))
    assert {name.partition(".")[0] for name in moved(before, model)} == {"1", "2"}, "nor do its running statistics"
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert all(parameter.requires_grad for parameter in learning)
    assert len(learning) == 6


def test_a_layer_inside_another_can_be_named() -> None:
    model = network()
    optimizers.freeze(model, "1.1")
    assert next(name for name, p in model.named_parameters() if p.requires_grad) == "1.1.weight"


@pytest.mark.parametrize(
    ("until", "words"), [("layer9", "outermost are 0, 1, 2"), ("", "no layer"), ("x\n", "no layer")]
)
def test_freezing_until_a_layer_there_is_not_is_a_sentence(until: str, words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        optimizers.freeze(network(), until)


def test_freezing_everything_is_a_sentence() -> None:
    with pytest.raises(WrongUse, match="Nothing learns"):
        optimizers.freeze(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")


@pytest.mark.parametrize(("mode", "most"), [("norm", 0.1), ("value", 0.1 * 9)])
def test_gradients_are_clipped(mode: Any, most: float) -> None:
    model = nn.Linear(8, 1)
    for clipped in (False, True):
        (1000 * model(torch.ones(2, 8)).sum()).backward()
        optimizers.clip(model, recipe(clip_grad=0.1 if clipped else 0.0, clip_mode=mode))
        total = sum(float(p.grad.norm() ** 2) for p in model.parameters() if p.grad is not None) ** 0.5
        assert (total <= most * 1.001) == clipped


def test_adaptive_clipping_looks_at_the_weights() -> None:
    model = nn.Linear(8, 1, bias=False)
    (1000 * model(torch.ones(2, 8)).sum()).backward()
    optimizers.clip(model, recipe(clip_grad=0.1, clip_mode="agc"))
    assert model.weight.grad is not None
    assert float(model.weight.grad.norm()) == pytest.approx(0.1 * model.weight.norm().item(), rel=1e-3)


def curve(**settings: Any) -> list[float]:
    made = recipe(epochs=10, **settings)
    return [lr_schedule.rate(made, step, 10) for step in range(100)]


def test_the_curves_of_the_schedules() -> None:
    assert set(curve(sched="constant")) == {1.0}
    assert curve(sched="step", decay_epochs=3.0)[::15] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3])
    cosine = curve(sched="cosine")
    assert (cosine[0], cosine[-1]) == pytest.approx((1, 0), abs=1e-9)
    assert cosine[49] + cosine[50] == pytest.approx(1)
    assert curve(sched="linear")[::33] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    cycle = curve(sched="onecycle")
    assert (cycle[0], max(cycle), cycle[-1]) == pytest.approx((0.04, 1, 0), abs=1e-3)
    assert 28 <= cycle.index(max(cycle)) <= 31
    assert curve(sched="cyclic", decay_epochs=2.0)[::20] == pytest.approx([0.04, 1, 0.04, 1, 0.04])


def test_the_warm_up_rises_and_the_schedule_has_the_rest() -> None:
    warm = curve(sched="linear", warmup_epochs=2.0)
    assert warm[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert (warm[20], warm[-1]) == pytest.approx((1, 0))


def test_no_schedule_falls_below_the_lowest_rate() -> None:
    assert min(curve(sched="cosine", min_lr=0.1)) == 0.1


def test_a_single_step_has_a_rate() -> None:
    for sched in ("constant", "step", "cosine", "onecycle", "cyclic", "linear", "plateau"):
        assert 0 < lr_schedule.rate(recipe(epochs=1, sched=sched), 0, 1) <= 1


def test_a_plateau_lowers_the_rate_after_epochs_without_a_better_metric() -> None:
    made = recipe(epochs=10, sched="plateau", decay_epochs=2.0)
    metrics = [0.5, 0.6, 0.6, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1]
    shares = [lr_schedule.rate(made, 10 * epoch, 10, metrics[:epoch]) for epoch in range(10)]
    assert shares == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3])


def test_a_training_ends_with_its_epochs_or_its_patience() -> None:
    assert [lr_schedule.finished(recipe(), [0.5] * done) for done in (0, 3, 4)] == [False, False, True]
    patient = recipe(epochs=9, patience=2)
    ends = [lr_schedule.finished(patient, metrics) for metrics in ([0.5, 0.4], [0.5, 0.4, 0.5], [0.5, 0.4, 0.6])]
    assert ends == [False, True, False]


def test_the_images_grow_from_one_size_to_another() -> None:
    sizes = [lr_schedule.size(recipe(epochs=5, img_size=(100, 224)), epoch, 0) for epoch in range(5)]
    assert sizes == [100, 128, 160, 192, 224]
    assert lr_schedule.size(recipe(img_size=(96,)), 3, 224) == 96
    assert lr_schedule.size(recipe(), 3, 224) == 224
    assert lr_schedule.size(recipe(epochs=1, img_size=(96, 224)), 0, 1) == 96


LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
TARGETS = torch.tensor([0, 1, 0, 2])
COUNTS = [80, 15, 5]


def loss(multilabel: bool = False, logits: Tensor = LOGITS, targets: Tensor = TARGETS, **settings: Any) -> float:
    return float(losses.build(recipe(**settings), COUNTS, multilabel)(logits, targets))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_and_takes_numbers_or_shares(smoothing: float) -> None:
    expected = float(F.cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing))
    assert loss(smoothing=smoothing) == pytest.approx(expected)
    assert loss(smoothing=smoothing, targets=F.one_hot(TARGETS, 3)) == pytest.approx(expected)


def test_the_focal_loss_forgets_what_is_easy() -> None:
    assert loss(loss="focal", focal_gamma=0.0) == pytest.approx(loss())
    easy = torch.tensor([[4.0, 0.0, 0.0]])
    hard = torch.tensor([[0.0, 4.0, 0.0]])
    first = TARGETS[:1]
    ratios = [
        loss(loss="focal", logits=logits, targets=first) / loss(logits=logits, targets=first) for logits in (easy, hard)
    ]
    probability = [float(logits.softmax(1)[0, 0]) for logits in (easy, hard)]
    assert ratios == pytest.approx([(1 - p) ** 2 for p in probability], rel=1e-4)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_focal_loss_of_a_sure_prediction_has_a_gradient(multilabel: bool) -> None:
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    losses.build(recipe(loss="focal", focal_gamma=0.5), COUNTS, multilabel)(logits, torch.eye(3)[:1]).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_binary_losses_are_those_of_several_labels() -> None:
    several = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1]])
    expected = float(F.binary_cross_entropy_with_logits(LOGITS, several.float()))
    assert loss(True, targets=several) == pytest.approx(expected)
    assert loss(True, targets=several, loss="focal", focal_gamma=0.0) == pytest.approx(expected)
    assert loss(True, targets=several, loss="focal") < expected
    assert loss(loss="bce") == pytest.approx(
        float(F.binary_cross_entropy_with_logits(LOGITS, F.one_hot(TARGETS).float()))
    )
    smoothed = several * 0.8 + 0.1
    assert loss(True, targets=several, smoothing=0.2) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(LOGITS, smoothed))
    )


def test_class_weights_raise_the_rare_and_leave_the_mean() -> None:
    counts = torch.tensor(COUNTS)
    inverse = losses.class_weights("inverse", COUNTS)
    assert (inverse * counts).tolist() == pytest.approx([100 / 3] * 3)
    effective = losses.class_weights("effective", COUNTS)
    assert float((effective * counts).sum()) == pytest.approx(100)
    assert inverse[0] < effective[0] < 1 < effective[2] < inverse[2]
    assert effective.tolist() == pytest.approx(
        ((1 / (1 - 0.999 ** counts.double())) / (1 / (1 - 0.999**80)) * effective[0]).tolist()
    )
    rare, common = (loss(class_weights="inverse", logits=LOGITS * 0, targets=torch.tensor([c])) for c in (2, 0))
    assert rare / common == pytest.approx(16)
    assert losses.class_weights("inverse", [10, 0]).isfinite().all()


def test_logit_adjustment_asks_more_of_rare_classes() -> None:
    assert loss(logit_adjustment=1.0, logits=LOGITS * 0, targets=torch.tensor([2])) == pytest.approx(math.log(20))
    assert loss(logit_adjustment=1.0, logits=LOGITS * 0, targets=torch.tensor([0])) == pytest.approx(-math.log(0.8))


@pytest.mark.parametrize("settings", [{"loss": "ce"}, {"logit_adjustment": 1.0}])
def test_a_loss_of_one_class_each_is_refused_for_several(settings: dict[str, Any]) -> None:
    with pytest.raises(WrongUse, match="of one class each"):
        losses.build(recipe(**settings), COUNTS, True)


def test_a_loss_of_bfloat16_logits_is_computed_in_float32() -> None:
    assert losses.build(recipe(), COUNTS, False)(LOGITS.bfloat16(), TARGETS).dtype == torch.float32


def test_the_moving_average_trails_the_weights_and_forgets_the_start() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, recipe(ema=0.9), 10)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(3.0)  # type: ignore[union-attr]
    seen = []
    for done in range(1, 60):
        average.update(model, done)
        seen.append(average.module.state_dict()["weight"].item())
    assert seen == sorted(seen)
    assert seen[0] < 4.9
    assert 4.9 < seen[-1] < 5
    assert average.module.state_dict()["running_mean"].item() > 2.9


def test_the_equal_average_is_of_the_last_epochs() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, recipe(epochs=4, swa=0.5), 3)
    for done in range(1, 13):
        with torch.no_grad():
            model.weight.fill_(done)
            model.num_batches_tracked.fill_(done)  # type: ignore[union-attr]
        average.update(model, done)
    assert average.module.state_dict()["weight"].item() == pytest.approx((6 + 9 + 12) / 3)
    assert average.module.state_dict()["num_batches_tracked"].item() == 12


def test_an_average_continues_from_its_modules_state() -> None:
    whole, half = (Average(network(), recipe(ema=0.99), 10) for _ in range(2))
    model = network()
    train(model, recipe(lr=0.1))
    for done in range(1, 9):
        whole.update(model, done)
    for done in range(1, 5):
        half.update(model, done)
    rest = Average(network(), recipe(ema=0.99), 10)
    rest.module.load_state_dict(half.module.state_dict())
    for done in range(5, 9):
        rest.update(model, done)
    assert not moved(whole.module, rest.module)


def test_the_rate_finder_suggests_where_the_loss_falls_fastest() -> None:
    def step(rate: float) -> float:
        return 1 - 0.8 / (1 + (1e-3 / rate) ** 2) + 10 * rate**2

    found = lr_finder.find(step, steps=200)
    assert found.suggestion is not None
    assert 3e-4 < found.suggestion < 3e-2
    assert len(found.rates) == len(found.losses) < 200, "it stops where the loss explodes"


def test_the_rate_finder_on_a_real_network() -> None:
    model = network()
    images, targets = batch()
    optimizer = optimizers.build(model, recipe(opt="sgd"), 64)

    def step(rate: float) -> float:
        lr_schedule.set_rate(optimizer, rate / optimizer.defaults["lr"])
        optimizer.zero_grad()
        value = F.cross_entropy(model(images), targets)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.item()

    found = lr_finder.find(step, 1e-4, 10.0, 60)
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < 10


@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_a_loss_that_never_falls_suggests_nothing(value: float) -> None:
    assert lr_finder.find(lambda rate: value, steps=20).suggestion is None  # noqa: ARG005
