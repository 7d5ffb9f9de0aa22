"""`small/cnn` and `small/autoencoder`: networks of our own, which `cvjobs train` trains from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import head_transfer
from cvjobs.networks import weights as files
from cvjobs.networks.small.autoencoder import Autoencoder
from cvjobs.networks.small.cnn import Cnn
from cvjobs.networks.trainable import Trainable
from cvjobs.networks.weights import Weights

_NAMES = {"train": ["cnn"], "autoencoder": ["autoencoder"]}
_SIDE, _LEAST = 32, 4
_PICTURE = 64  # the side of what an autoencoder reconstructs without ``side``


def names(task: str) -> list[str]:
    """Return ``cnn`` for the task ``train``, and ``autoencoder`` for that; there are no published weights."""
    return _NAMES.get(task, [])


def trainable(name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]) -> Trainable:
    """Return the classifier with random weights, or a file's, for images squashed to 32x32 or to ``side``."""
    _check(name, "train", side)
    full = f"small/{name}"
    with files.seeded(seed):
        module = Cnn(classes)
    chosen, inherited = _chosen(weights), None
    if chosen.file is not None:
        tensors, chosen = files.of_model(chosen, module.state_dict)
        classes_before = len(tensors.get("head.weight", range(classes)))
        before = Cnn(classes_before)
        files.fitted(lambda: before.load_state_dict(tensors), full, chosen, tensors)
        module.features = before.features
        if labels:
            known = head_transfer.names(chosen, (), classes_before, full)
            inherited = head_transfer.inherit(module.head, before.head, labels, known, full)
    elif labels:
        raise WrongUse(
            f"Without --weights of a file or a run {full} knows no classes: leave out {head_transfer.OPTION}."
        )
    size = side or _SIDE
    return Trainable(
        name=full,
        transform=Transform(size=(size, size), fit="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        weights=chosen,
        module=module,
        pooled=Cnn.backbone,
        inherited=inherited,
    )


def autoencoder(name: str, weights: str, dim: int, side: int | None, seed: int) -> Trainable:
    """Return the autoencoder with random weights or a file's, for images squashed to 64x64 or ``side``, from 0 to 1."""
    _check(name, "autoencoder", side)
    size = side or _PICTURE
    with files.seeded(seed):
        module = Autoencoder(dim, size)
    chosen = _chosen(weights)
    if chosen.file is not None:
        tensors, chosen = files.of_model(chosen, module.state_dict)
        files.fitted(lambda: module.load_state_dict(tensors), f"small/{name}", chosen, tensors)
    transform = Transform(size=(size, size), fit="exact")
    encoder = Autoencoder.encoding
    return Trainable(name=f"small/{name}", transform=transform, weights=chosen, module=module, pooled=encoder)


def _chosen(weights: str) -> Weights:
    """Return a file's weights; nobody publishes any, and ``pretrained`` are random."""
    return files.RANDOM if weights in ("pretrained", "random") else files.given(weights)


def _check(name: str, task: str, side: int | None) -> None:
    for own, offered in _NAMES.items():
        if name in offered and own != task:
            option = "--task autoencoder" if own == "autoencoder" else "leave out --task autoencoder"
            raise WrongUse(f"small/{name} is of another task: {option}, or choose another --model.")
    if name not in names(task):
        choices = names(task)
        raise WrongUse(f"There is no model small/{name}{nearest(name, choices)}: choose small/{choices[0]}.")
    if side is not None and side < _LEAST:
        raise WrongUse(f"small/{name} halves its images twice: give --img-size at least {_LEAST}.")
