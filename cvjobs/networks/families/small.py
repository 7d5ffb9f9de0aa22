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

_NAMES = {"train": ["cnn"], "autoencoder": ["autoencoder"]}
_SIDE, _LEAST = 32, 4
_PICTURE = 64  # the side of what an autoencoder reconstructs without ``side``


def names(task: str) -> list[str]:
    """Return ``cnn`` for the task ``train``, and ``autoencoder`` for that; there are no published weights."""
    return _NAMES.get(task, [])


def trainable(name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]) -> Trainable:
    """Return the classifier with random weights, for images squashed to 32x32 or to ``side``."""
    _check(name, "train", weights, side)
    if labels:
        raise WrongUse(f"small/{name} is trained from scratch: leave out {head_transfer.OPTION}.")
    with files.seeded(seed):
        module = Cnn(classes)
    size = side or _SIDE
    transform = Transform(size=(size, size), fit="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Trainable(
        name=f"small/{name}", transform=transform, weights=files.RANDOM, module=module, pooled=Cnn.backbone
    )


def autoencoder(name: str, weights: str, dim: int, side: int | None, seed: int) -> Trainable:
    """Return the autoencoder with random weights, for images squashed to 64x64 or to ``side``, from 0 to 1."""
    _check(name, "autoencoder", weights, side)
    size = side or _PICTURE
    with files.seeded(seed):
        module = Autoencoder(dim, size)
    transform = Transform(size=(size, size), fit="exact")
    encoder = Autoencoder.encoding
    return Trainable(name=f"small/{name}", transform=transform, weights=files.RANDOM, module=module, pooled=encoder)


def _check(name: str, task: str, weights: str, side: int | None) -> None:
    for own, offered in _NAMES.items():
        if name in offered and own != task:
            option = "--task autoencoder" if own == "autoencoder" else "leave out --task autoencoder"
            raise WrongUse(f"small/{name} is of another task: {option}, or choose another --model.")
    if name not in names(task):
        choices = names(task)
        raise WrongUse(f"There is no model small/{name}{nearest(name, choices)}: choose small/{choices[0]}.")
    if weights not in ("pretrained", "random"):
        raise WrongUse(f"small/{name} is trained from scratch: leave out --weights.")
    if side is not None and side < _LEAST:
        raise WrongUse(f"small/{name} halves its images twice: give --img-size at least {_LEAST}.")
