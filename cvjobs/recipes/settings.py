"""Every setting of a recipe, in plain values, and the named recipes; what they do lives in the modules beside this."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from cvjobs.errors import WrongUse, nearest

Name = Literal["finetune", "from-scratch", "quick", "autoencoder"]
Optimizer = Literal["sgd", "rmsprop", "adam", "adamw", "nadamw", "lamb", "lars", "lion"]
Schedule = Literal["constant", "step", "cosine", "onecycle", "cyclic", "linear", "plateau"]
Loss = Literal["auto", "ce", "focal", "bce", "mse", "l1", "ssim"]
ClassWeights = Literal["none", "inverse", "effective"]
Sampling = Literal["shuffle", "balanced"]
Policy = Literal["none", "autoaugment", "randaugment", "trivialaugment", "augmix"]
ClipMode = Literal["norm", "value", "agc"]

CLIMBING = ("onecycle", "cyclic")  # schedules that start low by themselves
RECONSTRUCTION = ("mse", "l1", "ssim")  # losses of an autoencoder
OF_CLASSES = ("smoothing", "focal_gamma", "class_weights", "logit_adjustment", "sampling", "mixup", "cutmix", "erasing")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Zero, ``""`` and ``"none"`` switch a setting off.

    Attributes:
        opt: The optimizer, by timm's name; ``momentum`` is for those that have one.
        lr: The highest learning rate where a step sees ``lr_base_size`` images; it grows linearly with that number.
        layer_decay: Each layer learns at this share of the rate of the layer after it.
        freeze_until: The first layer that learns; those before it stay as they are.
        clip_grad: Clip gradients to this norm, value, or share of the weights' norm (``clip_mode``).
        accumulate: Parts that a step is computed in, to save memory.
        decay_epochs: ``step``: epochs between decays; ``plateau``: epochs without a better metric before one;
            ``cyclic``: epochs of half a cycle.
        decay_rate: ``step`` and ``plateau``: what a decay multiplies the rate by.
        min_lr: The share of ``lr`` that no schedule falls below.
        patience: Stop after so many epochs without a better metric.
        logit_adjustment: Times the log of the classes' frequencies, added to the logits in training.
        mixup, cutmix: Each the alpha of its Beta distribution; with both, each batch is mixed in one of the two ways.
        erasing: The share of images of which a box is blanked.
        scale, ratio: Share of the area, and the width over the height, of the box that is cut out of an image.
        ema: The decay of an exponential moving average of the weights.
        swa: The share of the epochs, the last ones, whose weights are averaged equally.
        denoise: The deviation of the noise that an autoencoder is to remove, as a share of the range of pixels.
        img_size: Side in pixels, one or from the first to the last epoch's; empty is the model's own.
        drop_last: Leave out the images that fill no whole step at the end of an epoch.
    """

    epochs: int
    opt: Optimizer = "adamw"
    lr: float = 1e-3
    lr_base_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 0.05
    layer_decay: float = 0.0
    freeze_until: str = ""
    clip_grad: float = 0.0
    clip_mode: ClipMode = "norm"
    accumulate: int = 1
    sched: Schedule = "cosine"
    warmup_epochs: float = 0.0
    decay_epochs: float = 2.0
    decay_rate: float = 0.1
    min_lr: float = 0.0
    patience: int = 0
    loss: Loss = "auto"
    smoothing: float = 0.0
    focal_gamma: float = 2.0
    class_weights: ClassWeights = "none"
    logit_adjustment: float = 0.0
    sampling: Sampling = "shuffle"
    drop_last: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    aa: Policy = "none"
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    swa: float = 0.0
    denoise: float = 0.0
    img_size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.sched in CLIMBING and self.warmup_epochs:
            raise WrongUse(f"--sched {self.sched} starts low by itself: leave out --warmup-epochs.")
        if self.warmup_epochs >= self.epochs:
            raise WrongUse(f"--warmup-epochs {self.warmup_epochs:g} leaves none of {self.epochs}: lower it.")
        if self.ema and self.swa:
            raise WrongUse("--ema and --swa both average the weights: choose one.")
        if self.loss == "bce" and self.logit_adjustment:
            raise WrongUse("--logit-adjustment is for classes that exclude each other: leave it out with --loss bce.")


_RANGES: tuple[tuple[Callable[[float], bool], str, tuple[str, ...]], ...] = (
    (lambda value: 0 < value < math.inf, "more than 0", ("epochs", "lr", "lr_base_size", "accumulate", "decay_epochs")),
    (
        lambda value: 0 <= value <= 1,
        "from 0 to 1",
        ("layer_decay", "decay_rate", "min_lr", "hflip", "vflip", "color_jitter", "erasing", "swa", "denoise"),
    ),
    (lambda value: 0 <= value < 1, "from 0 to below 1", ("momentum", "smoothing", "ema")),
    (
        lambda value: 0 <= value < math.inf,
        "at least 0",
        (
            "weight_decay",
            "clip_grad",
            "warmup_epochs",
            "patience",
            "focal_gamma",
            "logit_adjustment",
            "mixup",
            "cutmix",
        ),
    ),
)
_CHOICES = {
    "opt": Optimizer, "clip_mode": ClipMode, "sched": Schedule, "loss": Loss, "class_weights": ClassWeights,
    "sampling": Sampling, "aa": Policy,
}  # fmt: skip


def _check_numbers(recipe: Recipe) -> None:
    for good, wanted, names in _RANGES:
        for name in names:
            if not good(getattr(recipe, name)):
                raise WrongUse(f"{_option(name)} must be {wanted}, not {getattr(recipe, name):g}.")
    for name, choices in _CHOICES.items():
        value = getattr(recipe, name)
        if value not in get_args(choices):
            hint = nearest(value, get_args(choices), 1)
            raise WrongUse(f"{_option(name)} must be one of {', '.join(get_args(choices))}, not {value!r}{hint}.")
    for name in ("scale", "ratio"):
        pair = getattr(recipe, name)
        if len(pair) != 2 or not 0 < pair[0] <= pair[1] < float("inf"):
            raise WrongUse(f"{_option(name)} must be two numbers above 0, the lower first, as in 0.5:1.")
    if recipe.scale[1] > 1:
        raise WrongUse(f"--scale is a share of the image's area: {recipe.scale[1]:g} is more than all of it.")
    if len(recipe.img_size) > 2 or any(side < 8 for side in recipe.img_size):
        raise WrongUse("--img-size must be at least 8 pixels, or two sizes as in 128:224.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


NAMED: dict[Name, Recipe] = {
    "finetune": Recipe(
        epochs=10,
        clip_grad=1.0,
        warmup_epochs=1.0,
        smoothing=0.1,
        scale=(0.5, 1.0),
        ratio=(3 / 4, 4 / 3),
        color_jitter=0.1,
    ),
    "from-scratch": Recipe(
        epochs=100,
        warmup_epochs=5.0,
        smoothing=0.1,
        scale=(0.25, 1.0),
        ratio=(3 / 4, 4 / 3),
        aa="trivialaugment",
        erasing=0.1,
        mixup=0.2,
        ema=0.9998,
    ),
    "quick": Recipe(epochs=3, sched="linear", warmup_epochs=0.2, clip_grad=1.0),
    "autoencoder": Recipe(epochs=30, weight_decay=0.01, warmup_epochs=1.0, clip_grad=1.0),
}


def named(recipe: str, *, classes: bool = True, **overrides: Any) -> Recipe:
    """Return a named recipe with some settings replaced; one that is None stays the recipe's own.

    Without ``classes`` to learn, a recipe's settings that are about those are off.

    A warm-up that was not asked for is shortened to a tenth of fewer epochs, and left out where the schedule starts
    low by itself.

    Raises:
        WrongUse: a name, value or combination that there is not; the sentence names the option.
    """
    if recipe not in NAMED:
        raise WrongUse(f"There is no --recipe {recipe}{nearest(recipe, NAMED)}: choose one of {', '.join(NAMED)}.")
    own = {field.name: getattr(NAMED[recipe], field.name) for field in fields(Recipe)}
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in own:
            raise WrongUse(f"A recipe has no setting {name}{nearest(name, own)}.")
    if not classes:
        if wrong := [name for name in OF_CLASSES if name in given]:
            raise WrongUse(f"{_option(wrong[0])} is about classes, which --task autoencoder has none of: leave it out.")
        own |= {field.name: field.default for field in fields(Recipe) if field.name in OF_CLASSES}
    elif given.get("denoise"):
        raise WrongUse("--denoise is for --task autoencoder: leave it out.")
    values = own | given
    if "warmup_epochs" not in given:
        climbs = values["sched"] in CLIMBING
        values["warmup_epochs"] = 0.0 if climbs else min(values["warmup_epochs"], values["epochs"] / 10)
    return Recipe(**values)


def span(text: str, option: str, example: str = "0.5:1") -> tuple[float, ...]:
    """Return the one or two numbers of ``224``, ``128:224`` or ``0.5:1``.

    Raises:
        WrongUse: it is something else.
    """
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise WrongUse(f"{option} must be a number, or two as in {example}, not {text!r}.")
    return numbers


def sides(text: str) -> tuple[int, ...]:
    """Return the one or two sides in pixels of an ``--img-size``; see ``span``."""
    numbers = span(text, "--img-size", "128:224")
    if any(side != int(side) for side in numbers):
        raise WrongUse(f"--img-size must be whole pixels, as in 224 or 128:224, not {text!r}.")
    return tuple(map(int, numbers))
