"""Whether `cvjobs train` compiles the network: what was asked for, what this machine has, and whether it pays."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from cvjobs.common.errors import WrongUse
from cvjobs.common.gpu_peaks import bf16_peak
from cvjobs.training.checks.batch_size import Case
from cvjobs.training.loop.resources import torch_device
from cvjobs.training.recipe import lr_schedule
from cvjobs.training.recipe.recipe import Recipe

Compile = Literal["auto", "on", "off"]

SECONDS = 60.0  # about what compiling takes, for each size of images
SAVED = 0.2  # of the time of a training, about
USED = 0.3  # of its peak that a GPU reaches in training, about


def decided(asked: Compile, before: bool | None, case: Case, tell: Callable[[str], None]) -> bool:
    """Return whether to compile.

    Args:
        asked: ``auto`` is what the run was begun with and, where one begins, what pays.
        before: What the run was begun with, None where one begins.
        case: What is trained, and where.
        tell: Is told where compiling would pay and cannot be done.

    Raises:
        WrongUse: it is asked for, and this machine, which trains, cannot.
    """
    resources = case.resources
    if asked == "off":
        return False
    if asked == "on":
        missing = "" if resources.address else lacking(resources.device)
        if missing:
            raise WrongUse(f"--compile on needs {missing}: install it, or leave --compile out.")
        return True
    if before is not None:
        return before
    # Of other machines' GPUs nothing is known.
    if resources.address or torch_device(resources) != "cuda" or not _pays(case):
        return False
    missing = lacking(resources.device)
    if missing:
        tell(f"compiling the model would pay, and needs {missing}: it trains as it is")
    return not missing


def lacking(device: str) -> str:
    """Return what compiling for a device needs and this machine lacks, in words; empty where it has all."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    own, usual = ("CC", ("gcc", "clang")) if device == "cuda" else ("CXX", ("g++", "clang++"))
    if not any(map(shutil.which, filter(None, (os.environ.get(own), *usual)))):
        return f"a {'C' if device == 'cuda' else 'C++'} compiler ({usual[0]})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers (the package python3-dev or python3-devel)"
    return ""


def worth(seconds: float, sizes: int) -> bool:
    """Return whether a training of so many seconds, with images of so many sizes, gains more than compiling takes."""
    return SAVED * seconds > SECONDS * sizes


def seconds(flops: float, images: float, peak: float) -> float:
    """Return about how long a GPU trains on images whose forward pass takes so many operations each."""
    return 3 * flops * images / (USED * peak)


def sizes(recipe: Recipe, side: int) -> int:
    """Return how many sizes of images the epochs have; ``side`` is the model's own."""
    if len(recipe.img_size) < 2:
        return 1
    return len({lr_schedule.size(recipe, epoch, side) for epoch in range(recipe.epochs)})


def _pays(case: Case) -> bool:
    peak = bf16_peak(torch.cuda.get_device_name(0))
    if peak is None or case.needed is None:
        return False
    images = case.images * case.recipe.epochs / case.resources.most
    side = min(case.trainable.transform.size or (0,))
    return worth(seconds(case.needed.flops, images, peak), sizes(case.recipe, side))
