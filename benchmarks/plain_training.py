"""What a good engineer trains with without any framework: a DataLoader of two workers, and the loop around a model.

python benchmarks/plain_training.py FOLDER --model NAME --side N [--epochs N] [--decoded]

The images are read and decoded in every epoch; with ``--decoded`` they are all in memory before the first one, as uint8
of the size that the command keeps them in. Crops and flips are torchvision's, in the workers; the model, its memory
format, the optimizer and the loss are the command's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_image
from torchvision.transforms import v2

from cvjobs.images.transform import Transform
from cvjobs.networks import registry

BATCH = 64
WORKERS = 2
SCALE, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)


class Images(Dataset[tuple[Tensor, int]]):
    """The JPEGs of class folders, from files or from memory, each cropped and flipped at random as it is taken."""

    def __init__(self, source: Path, side: int, decoded: int) -> None:
        self._paths = sorted(source.glob("*/*.jpg"))
        classes = sorted({path.parent.name for path in self._paths})
        self._labels = [classes.index(path.parent.name) for path in self._paths]
        self._change = v2.Compose(
            [v2.RandomResizedCrop(side, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip()],
        )
        self._pixels: list[Tensor] | None = None
        if decoded:
            small = v2.Resize(decoded, antialias=True)
            self._pixels = [small(decode_image(str(path))) for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = decode_image(str(self._paths[number])) if self._pixels is None else self._pixels[number]
        return self._change(image), self._labels[number]


def _kept(transform: Transform) -> int:
    """Return the shorter side in pixels of the images that `cvjobs train` keeps decoded."""
    return round(1.5 * min(transform.size or (0,)))


def main() -> None:
    """Train, and print the images per second and the loss of each epoch as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--decoded", action="store_true")
    options = parser.parse_args()
    classes = len(list(options.source.iterdir()))
    trainable = registry.trainable(options.model, weights="random", classes=classes, side=options.side)
    images = Images(options.source, options.side, _kept(trainable.transform) if options.decoded else 0)
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    model = trainable.module.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (trainable.transform.mean, trainable.transform.std))
    speeds, losses = [], []
    for _ in range(options.epochs):
        began, total = time.perf_counter(), 0.0
        for pixels, labels in loader:
            inputs = ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(inputs), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(labels)
        speeds.append(len(images) / (time.perf_counter() - began))
        losses.append(total / len(images))
    print(json.dumps({"images": len(images), "images_per_second": speeds, "losses": losses}))


if __name__ == "__main__":
    main()
