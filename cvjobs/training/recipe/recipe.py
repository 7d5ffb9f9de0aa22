"""Every setting of a recipe, in plain values, and the named recipes; what they do lives in the modules beside this."""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.training.recipe.setting import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Setting, option_of

Name = Literal["finetune", "from-scratch", "quick", "autoencoder", "segment", "segment-many", "detect", "detect-many"]
Optimizer = Literal["sgd", "rmsprop", "adam", "adamw", "nadamw", "lamb", "lars", "lion"]
Schedule = Literal["constant", "step", "cosine", "onecycle", "cyclic", "linear", "plateau"]
Loss = Literal["auto", "ce", "focal", "bce", "mse", "l1", "ssim", "dice", "lovasz"]
ClassWeights = Literal["none", "inverse", "effective"]
Sampling = Literal["shuffle", "balanced"]
Policy = Literal["none", "autoaugment", "randaugment", "trivialaugment", "augmix"]
AnchorChoice = Literal["default", "auto"]
BoxLoss = Literal["auto", "smooth-l1", "giou", "diou", "ciou"]
ClipMode = Literal["norm", "value", "agc"]

MOST_SCALE = 10  # of --scale-jitter
CLIMBING = ("onecycle", "cyclic")  # schedules that start low by themselves
RECONSTRUCTION = ("mse", "l1", "ssim")  # losses of an autoencoder
SIZE = "Model, data and size"  # a group of options
OF_PIXELS = ("dice", "lovasz")  # losses of a segmenter alone
OF_CLASSES = ("smoothing", "focal_gamma", "class_weights", "logit_adjustment", "sampling", "mixup", "cutmix", "erasing")
# Settings about images of one class each, or that move pixels of an image and not of its mask.
NOT_OF_MASKS = (
    "smoothing", "logit_adjustment", "sampling", "mixup", "cutmix", "erasing", "scale", "ratio", "aa", "copy_paste",
)  # fmt: skip
OF_BOXES = ("anchors", "box_loss", "mosaic")  # settings of a detector alone
NOT_OF_BOXES = ("smoothing", "logit_adjustment", "sampling", "cutmix", "erasing", "scale", "ratio", "aa")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Zero, ``""`` and ``"none"`` switch a setting off; each field's ``Setting`` says what it does.

    ``lr_base_size`` is the number of images of a step at which the learning rate is ``lr``.
    """

    epochs: Annotated[int, Setting(SIZE, "The number of times that training sees every image.", POSITIVE)]
    opt: Annotated[Optimizer, Setting("Optimizer", "The optimizer.")] = "adamw"
    lr: Annotated[
        float,
        Setting("Optimizer", "The highest learning rate for steps of 64 images; it grows with --batch-size.", POSITIVE),
    ] = 1e-3
    lr_base_size: int = 64
    momentum: Annotated[float, Setting("Optimizer", "The momentum of an optimizer that has one.", BELOW_ONE)] = 0.9
    weight_decay: Annotated[
        float, Setting("Optimizer", "The weight decay; biases and norms have none.", NOT_NEGATIVE)
    ] = 0.05
    layer_decay: Annotated[
        float,
        Setting(
            "Optimizer", "The learning rate of a layer as a share of the next layer's; 0 gives all the same.", SHARE
        ),
    ] = 0.0
    freeze_until: Annotated[
        str,
        Setting(
            "Optimizer",
            "The first layer that learns; the layers before it stay as they are.",
            metavar="LAYER",
            off="all learn",
        ),
    ] = ""
    clip_grad: Annotated[
        float, Setting("Optimizer", "The size above which gradients are clipped; 0 clips none.", NOT_NEGATIVE)
    ] = 0.0
    clip_mode: Annotated[
        ClipMode,
        Setting("Optimizer", "What --clip-grad limits: the norm, each value, or the share of the weights' norm (agc)."),
    ] = "norm"
    accumulate: Annotated[
        int, Setting("Optimizer", "The number of parts in which a step is computed, to save memory.", POSITIVE)
    ] = 1
    sched: Annotated[Schedule, Setting("Schedule", "The course of the learning rate.")] = "cosine"
    warmup_epochs: Annotated[
        float,
        Setting(
            "Schedule",
            "The epochs in which the learning rate grows from 0; by default at most a tenth of all.",
            NOT_NEGATIVE,
        ),
    ] = 0.0
    decay_epochs: Annotated[
        float,
        Setting(
            "Schedule",
            "The epochs between decays of --sched step, without a better metric before one of plateau, or in half a "
            "cycle of cyclic.",
            POSITIVE,
        ),
    ] = 2.0
    decay_rate: Annotated[
        float, Setting("Schedule", "The factor of the learning rate at each decay of --sched step and plateau.", SHARE)
    ] = 0.1
    min_lr: Annotated[
        float, Setting("Schedule", "The lowest learning rate of any schedule, as a share of --lr.", SHARE)
    ] = 0.0
    patience: Annotated[
        int,
        Setting(
            "Schedule", "The epochs without a better metric that end the training early; 0 ends none.", NOT_NEGATIVE
        ),
    ] = 0
    loss: Annotated[
        Loss,
        Setting(
            "Loss and imbalance",
            "The loss: ce, focal and bce of classes, mse, l1 and ssim of an autoencoder, ce, focal, dice and lovasz of "
            "a segmenter; auto is ce, bce for several labels, mse for an autoencoder, of a detector its own.",
        ),
    ] = "auto"
    box_loss: Annotated[
        BoxLoss,
        Setting("Loss and imbalance", "The loss of a detector's boxes; auto is its own, of a Faster R-CNN smooth-l1."),
    ] = "auto"
    smoothing: Annotated[
        float,
        Setting("Loss and imbalance", "The share of every label that is spread over all classes.", BELOW_ONE),
    ] = 0.0
    focal_gamma: Annotated[
        float,
        Setting("Loss and imbalance", "The gamma of --loss focal; more of it counts easy images less.", NOT_NEGATIVE),
    ] = 2.0
    class_weights: Annotated[
        ClassWeights,
        Setting(
            "Loss and imbalance",
            "The weights of classes in the loss: none, or by the inverse or the effective number of their images, of "
            "their pixels to segment, of their objects to detect.",
        ),
    ] = "none"
    logit_adjustment: Annotated[
        float,
        Setting(
            "Loss and imbalance",
            "The factor of the log class frequencies that are added to the logits in training; 0 adds none.",
            NOT_NEGATIVE,
        ),
    ] = 0.0
    sampling: Annotated[
        Sampling, Setting("Loss and imbalance", "The order of images: shuffled, or balanced over the classes.")
    ] = "shuffle"
    drop_last: Annotated[
        bool, Setting("Schedule", "Leave out the images at the end of an epoch that do not fill a step.")
    ] = False
    scale: Annotated[
        tuple[float, float],
        Setting("Augmentation", "The area of a random crop as a share of the image's.", metavar="LOW:HIGH"),
    ] = (1.0, 1.0)
    ratio: Annotated[
        tuple[float, float],
        Setting("Augmentation", "The width of a random crop as a share of its height.", metavar="LOW:HIGH"),
    ] = (1.0, 1.0)
    scale_jitter: Annotated[
        tuple[float, ...],
        Setting(
            "Augmentation",
            "The random scale of images with masks or boxes, of which 1 is how validation sees them.",
            metavar="LOW:HIGH",
            off="0.5:2, or 0.6:1.4 to detect",
        ),
    ] = ()
    hflip: Annotated[float, Setting("Augmentation", "The share of images mirrored left to right.", SHARE)] = 0.5
    vflip: Annotated[float, Setting("Augmentation", "The share of images mirrored top to bottom.", SHARE)] = 0.0
    color_jitter: Annotated[
        float, Setting("Augmentation", "The strength of random changes of brightness, contrast and colour.", SHARE)
    ] = 0.0
    aa: Annotated[Policy, Setting("Augmentation", "The policy of automatic augmentation.")] = "none"
    erasing: Annotated[
        float, Setting("Augmentation", "The share of images in which a random box is blanked.", SHARE)
    ] = 0.0
    mixup: Annotated[
        float, Setting("Augmentation", "The alpha of mixup, which blends two images; 0 blends none.", NOT_NEGATIVE)
    ] = 0.0
    cutmix: Annotated[
        float,
        Setting(
            "Augmentation", "The alpha of CutMix, which pastes a box of another image; 0 pastes none.", NOT_NEGATIVE
        ),
    ] = 0.0
    mosaic: Annotated[
        float,
        Setting(
            "Augmentation",
            "The share of a detector's images that become mosaics of four; none in the last tenth of the epochs.",
            SHARE,
        ),
    ] = 0.0
    copy_paste: Annotated[
        float,
        Setting("Augmentation", "The share of images into which objects of another one are pasted, with masks.", SHARE),
    ] = 0.0
    ema: Annotated[
        float,
        Setting("Averages", "The decay of an exponential moving average of the weights; 0 keeps none.", BELOW_ONE),
    ] = 0.0
    swa: Annotated[
        float,
        Setting(
            "Averages", "The share of the epochs, the last ones, whose weights are averaged; 0 averages none.", SHARE
        ),
    ] = 0.0
    denoise: Annotated[
        float,
        Setting(
            "Augmentation",
            "The deviation of the noise that an autoencoder learns to remove, as a share of the range of pixels.",
            SHARE,
        ),
    ] = 0.0
    img_size: Annotated[
        tuple[int, ...],
        Setting(
            SIZE,
            "The side of the images in pixels; two, as in 128:224, are those of the first and the last epoch.",
            metavar="SIDE[:SIDE]",
            off="the model's own",
        ),
    ] = ()

    anchors: Annotated[
        AnchorChoice,
        Setting(
            SIZE,
            "The anchors of a detector: its own, or of --weights RUN that run's; auto fits as many to the boxes.",
        ),
    ] = "default"

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            _check(name, setting, getattr(self, name))
        if self.scale[1] > 1:
            raise WrongUse(f"--scale is a share of the image's area: {self.scale[1]:g} is more than all of it.")
        if self.sched in CLIMBING and self.warmup_epochs:
            raise WrongUse(f"--sched {self.sched} starts low by itself: leave out --warmup-epochs.")
        if self.warmup_epochs >= self.epochs:
            raise WrongUse(f"--warmup-epochs {self.warmup_epochs:g} leaves none of {self.epochs}: lower it.")
        if self.ema and self.swa:
            raise WrongUse("--ema and --swa both average the weights: choose one.")
        if self.loss == "bce" and self.logit_adjustment:
            raise WrongUse("--logit-adjustment is for classes that exclude each other: leave it out with --loss bce.")


def _settings() -> dict[str, tuple[Any, Setting]]:
    """Return the type and the Setting of each field that is an option, by name."""
    hints = get_type_hints(Recipe, include_extras=True)
    return {field.name: get_args(hints[field.name]) for field in fields(Recipe) if get_args(hints[field.name])}


SETTINGS = _settings()


def _check(name: str, known: tuple[Any, Setting], value: Any) -> None:
    kind, setting = known
    if setting.limit and not setting.limit.holds(value):
        raise WrongUse(f"{option_of(name)} must be {setting.limit.words}, not {value:g}.")
    choices = get_args(kind)
    if get_origin(kind) is Literal and value not in choices:
        hint = nearest(value, choices, 1)
        raise WrongUse(f"{option_of(name)} must be one of {', '.join(choices)}, not {value!r}{hint}.")
    if kind == tuple[float, float] and (len(value) != 2 or not 0 < value[0] <= value[1] < math.inf):
        raise WrongUse(f"{option_of(name)} must be two numbers above 0, the lower first, as in 0.5:1.")
    if name == "scale_jitter" and value and (len(value) != 2 or not 0 < value[0] <= value[1] <= MOST_SCALE):
        raise WrongUse(f"--scale-jitter must be two numbers above 0 up to {MOST_SCALE}, the lower first, as in 0.5:2.")
    if kind == tuple[int, ...] and (len(value) > 2 or any(side < 8 for side in value)):
        raise WrongUse(f"{option_of(name)} must be at least 8 pixels, or two sizes as in 128:224.")


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
    "segment": Recipe(epochs=60, lr=4e-3, weight_decay=0.01, warmup_epochs=1.0, clip_grad=1.0, color_jitter=0.3),
    "segment-many": Recipe(epochs=20, lr=4e-3, weight_decay=0.01, warmup_epochs=1.0, clip_grad=1.0, color_jitter=0.2),
    "detect": Recipe(epochs=30, lr=8e-3, weight_decay=0.01, warmup_epochs=1.0, clip_grad=1.0, color_jitter=0.2),
    "detect-many": Recipe(epochs=12, lr=2e-3, weight_decay=0.01, warmup_epochs=1.0, clip_grad=1.0),
}


def named(recipe: str, *, classes: bool = True, masks: bool = False, boxes: bool = False, **overrides: Any) -> Recipe:
    """Return a named recipe with some settings replaced; one that is None stays the recipe's own.

    Without ``classes`` to learn, a recipe's settings that are about those are off; with ``masks`` those that are about
    images of one class each, or would move an image and not its mask. With ``boxes`` it is of a detector.

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
            raise WrongUse(
                f"{option_of(wrong[0])} is about classes, which --task autoencoder has none of: leave it out."
            )
        own |= {field.name: field.default for field in fields(Recipe) if field.name in OF_CLASSES}
    if not boxes and (wrong := [name for name in OF_BOXES if name in given]):
        raise WrongUse(f"{option_of(wrong[0])} is for --task detect: leave it out.")
    if given.get("copy_paste") and not boxes:
        raise WrongUse("--copy-paste is for --task segment --kind instance, whose objects have masks: leave it out.")
    if given.get("scale_jitter") and not (masks or boxes):
        raise WrongUse("--scale-jitter is for --task detect and segment: leave it out.")
    if masks:
        if wrong := [name for name in NOT_OF_MASKS if name in given]:
            remedy = "take --scale-jitter" if wrong[0] in ("scale", "ratio") else "leave it out"
            raise WrongUse(f"{option_of(wrong[0])} does not go with the masks of --task segment: {remedy}.")
        own |= {field.name: field.default for field in fields(Recipe) if field.name in NOT_OF_MASKS}
    if classes and given.get("denoise"):
        raise WrongUse("--denoise is for --task autoencoder: leave it out.")
    values = own | given
    if "warmup_epochs" not in given:
        climbs = values["sched"] in CLIMBING
        values["warmup_epochs"] = 0.0 if climbs else shortened(values["warmup_epochs"], values["epochs"])
    return Recipe(**values)


def shortened(warmup_epochs: float, epochs: int) -> float:
    """Return a warm-up that nobody asked for: at most a tenth of the epochs."""
    return min(warmup_epochs, epochs / 10)
