"""Whose tensors a file holds that does not fit the model it was given with: torchvision's architectures, by name."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import models

from cvjobs.common.formatting import counted, shortened

MOST = 24  # architectures that are built to compare, the nearest in size first; 0.1 s each
LEAST, LARGEST = 0.45, 2.0  # of an architecture's parameters, that a file of it has with another number of classes
HEAD = 12  # tensors that follow the number of classes, at most
NAMED = 3  # classes that a sentence names
_TASKS = {models: "classify", models.detection: "detect", models.segmentation: "segment"}
_PUBLISHED = {"classify": 1000, "detect": 91, "segment": 21}  # classes, with the background
_KINDS = {"classify": "a classifier", "detect": "a detector", "segment": "a segmenter"}
_COMMANDS = {"classify": "`cvjobs classify` or `embed`", "detect": "`cvjobs detect`", "segment": "`cvjobs segment`"}
_COUNTERS = ("running_mean", "running_var", "num_batches_tracked")
_NAMES = ("labels", "classes", "names", "class_names", "categories", "idx_to_class", "id2label")


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """An architecture (``torchvision/resnet18``), the task it is for, and how many classes its head has here."""

    model: str
    task: str
    classes: int


def recognised(tensors: Mapping[str, Any]) -> Lookalike | None:
    """Return the architecture that a state dict is of, whatever the number of its classes; None where none is."""
    own = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    size = sum(tensor.numel() for name, tensor in own.items() if not name.endswith(_COUNTERS))
    for task, name in _by_size(size)[:MOST]:
        if (classes := _classes(own, _shapes(task, name), task)) is not None:
            return Lookalike(model=f"torchvision/{name}", task=task, classes=classes)
    return None


def class_names(found: Mapping[str, Any]) -> list[str]:
    """Return the names of classes that a checkpoint holds under a usual name, none where there are none."""
    for key in _NAMES:
        value = found.get(key)
        every = list(value.values()) if isinstance(value, Mapping) else value
        if isinstance(every, (list, tuple)) and every and all(isinstance(name, str) for name in every):
            return list(every)
    return []


def described(tensors: Mapping[str, Any], names: list[str], model: str) -> str:
    """Return what a file holds and what to do with it, as the rest of a sentence.

    Empty where nothing is recognised, or nothing but the ``model`` that it was given with.
    """
    found = recognised(tensors)
    if found is None or found.model == model:
        return ""
    listed = ", ".join(map(shortened, names[:NAMED])) + (", …" if len(names) > NAMED else "")
    named = f" ({listed})" if len(names) == found.classes else ""
    return (
        f"it holds {found.model}, {_KINDS[found.task]} of {counted(found.classes, 'classes')}{named}, so give "
        f"--model {found.model} to {_COMMANDS[found.task]}"
    )


def _by_size(size: int) -> list[tuple[str, str]]:
    """Return the task and name of each architecture that may have this many parameters, the nearest first."""
    near = []
    for module, task in _TASKS.items():
        for name in models.list_models(module=module):
            usual = models.get_model_weights(name).DEFAULT.meta["num_params"]
            if LEAST * usual <= size <= LARGEST * usual:
                near.append((abs(size - usual) / usual, task, name))
    return [(task, name) for _, task, name in sorted(near)]


def _shapes(task: str, name: str) -> dict[str, torch.Size]:
    options: dict[str, Any] = {} if task == "classify" else {"weights_backbone": None}
    with _quiet(), torch.device("meta"):
        try:
            built = models.get_model(name, weights=None, **options)
        except NotImplementedError:  # RegNet computes its widths with tensors
            with torch.device("cpu"):
                built = models.get_model(name, weights=None, **options)
    return {key: tensor.shape for key, tensor in built.state_dict().items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _classes(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], task: str) -> int | None:
    """Return the number of classes of tensors that are those of an architecture but for its head, else None."""
    without = {name for name in shapes if not name.startswith(("aux", "AuxLogits"))}
    extra = {name for name in tensors if name not in shapes}
    if extra or any(name not in tensors for name in without):
        return None
    other = [name for name, tensor in tensors.items() if tensor.shape != shapes[name]]
    if len(other) > HEAD or any(tensors[name].shape[1:] != shapes[name][1:] for name in other):
        return None
    # A detector's head has a multiple of the classes, such as one row for each of its anchors.
    classes = {_PUBLISHED[task] * len(tensors[name]) / shapes[name][0] for name in other} or {_PUBLISHED[task]}
    found = next(iter(classes))
    return int(found) - (task != "classify") if len(classes) == 1 and found == int(found) else None
