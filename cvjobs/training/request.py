"""What a user asks of a training, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cvjobs.config.options import Device
from cvjobs.config.spending import Spending
from cvjobs.evaluation.void import USUAL, Void
from cvjobs.images.transform import Truncated
from cvjobs.training.checks.compilation import Compile
from cvjobs.training.plan import TaskName
from cvjobs.training.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a user asks for; see the options of ``jobs/train.py``."""

    data: str
    out: str
    task: TaskName
    model: str
    dim: int
    weights: str
    init_head_from_labels: bool
    recipe: Recipe
    warmup_asked: bool  # or the recipe's follows from its epochs
    batch_size: int  # ``batch_size.AUTO``: as many as fit
    seed: int
    precision: str
    compile: Compile
    val: float
    workers: int | str | None
    cache: str | None
    cache_size: int = 0  # bytes, 0 for all
    cache_side: int | None = None  # of whole pictures
    max_pixels: int
    bits: int | None
    truncated: Truncated
    max_error_rate: float = 0.1
    mask_names: tuple[str, ...] = ()
    void: Void = field(default_factory=lambda: Void(value=USUAL, chosen=False))
    overwrite: bool
    find_lr: bool
    tensorboard: bool
    overfit_check: bool
    storage: Mapping[str, str] = field(repr=False)
    confine: bool = False
    exclude: tuple[str, ...] = ()
    backbone: str = ""
    accept_licence: tuple[str, ...] = ()
    address: str | None
    device: Device = "auto"
    spending: Spending = field(default_factory=Spending)
