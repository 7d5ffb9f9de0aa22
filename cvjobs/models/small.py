"""`small/cnn`: a convolutional network of our own for small images, which `cvjobs train` trains from scratch."""

from __future__ import annotations

from torch import Tensor, nn

from cvjobs import weights as files
from cvjobs.errors import WrongUse, nearest
from cvjobs.records import Transform
from cvjobs.trainees import Trainee, resized

SIDE = 32
WIDTHS = (32, 64, 128)


def names(task: str) -> list[str]:
    """Return ``cnn`` for the task ``train``; nobody publishes weights of it."""
    return ["cnn"] if task == "train" else []


def trainee(name: str, weights: str, classes: int, side: int | None, seed: int) -> Trainee:
    """Return the network with random weights, for images squashed to 32x32 or to ``side``."""
    if name != "cnn":
        raise WrongUse(f"There is no model small/{name}{nearest(name, ['cnn'])}: the family has small/cnn alone.")
    if weights not in ("pretrained", "random"):
        raise WrongUse("small/cnn is trained from scratch: leave out --weights.")
    size = side or SIDE
    if size < 4:
        raise WrongUse("small/cnn halves its images twice: give --img-size at least 4.")
    transform = Transform(size=(size, size), fit="exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    with files.seeded(seed):
        module = Cnn(classes)
    return Trainee(
        name="small/cnn", transform=resized(transform, side), weights=files.RANDOM, module=module, pooled=beheaded
    )


class Cnn(nn.Module):
    """Five convolutions of 3x3 with batch norms in three resolutions, the mean over the last map, one linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.features = nn.Sequential(
            *_block(3, first),
            nn.MaxPool2d(2),
            *_block(first, second),
            *_block(second, second),
            nn.MaxPool2d(2),
            *_block(second, third),
            *_block(third, third),
        )
        self.head: nn.Module = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def beheaded(module: nn.Module) -> nn.Module:
    """Return the network without its head: the mean of the last map, (B, 128)."""
    assert isinstance(module, Cnn)
    module.head = nn.Identity()
    return module
