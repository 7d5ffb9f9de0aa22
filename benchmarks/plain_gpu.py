"""What a good engineer writes for one GPU with torch and torchvision alone; on a CPU the same in less.

python benchmarks/plain_gpu.py train --model NAME --side N --batch N --images N --steps N [--compile]
python benchmarks/plain_gpu.py embed SOURCE --model NAME --batch N
python benchmarks/plain_gpu.py predict SOURCE --model NAME --weights FILE --batch N [--side N]

train: the pixels are in the GPU's memory, and a step indexes them there. embed: a DataLoader with a process for each
core, and the model without any images. predict: a detector or segmenter on images that are decoded before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from gpu_images import CLASSES
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from cvjobs.common import devices
from cvjobs.images.transform import Transform
from cvjobs.networks import registry
from cvjobs.networks.precision import resolve_precision
from cvjobs.networks.torch_network import TYPES

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KIND = TYPES[resolve_precision("auto", DEVICE.type)]
WARM = 10 if DEVICE.type == "cuda" else 1
ALONE = 30 if DEVICE.type == "cuda" else 2


def _autocast() -> torch.autocast:
    low = KIND in (torch.bfloat16, torch.float16)
    return torch.autocast(DEVICE.type, KIND if low else torch.bfloat16, enabled=low)


def _rate(step: Callable[[], object], steps: int, batch: int) -> float:
    """Return the images a second of so many steps, after some that are not counted."""
    for _ in range(WARM):
        step()
    _finish()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    _finish()
    return steps * batch / (time.perf_counter() - began)


def _finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _scale(transform: Transform) -> Callable[[Tensor], Tensor]:
    """Return a function from uint8 images (B, 3, H, W) on the device to normalised floats."""
    mean, std = (torch.tensor(values, device=DEVICE).view(3, 1, 1) for values in (transform.mean, transform.std))
    return lambda images: (images.float() / 255 - mean) / std


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Return the images a second of a training loop on random pixels."""
    trainable = registry.trainable(options.model, weights="random", classes=CLASSES, side=options.side)
    model: nn.Module = trainable.module.to(DEVICE, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05, fused=True)
    if options.compile:
        # On a CPU the compiler would take minutes: it only traces there.
        model.compile(backend="inductor" if DEVICE.type == "cuda" else "eager")
    shape = (options.images, options.side, options.side, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE).permute(0, 3, 1, 2)
    labels = torch.randint(0, CLASSES, (options.images,), device=DEVICE)
    scale = _scale(trainable.transform)

    def step() -> None:
        which = torch.randint(0, options.images, (options.batch,), device=DEVICE)
        with _autocast():
            answers = model(scale(pixels[which]).contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(answers.float(), labels[which], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return {"images_per_second": _rate(step, options.steps, options.batch)}


class _Images(Dataset[Tensor]):
    """JPEGs as a model wants them, uint8 (3, H, W)."""

    def __init__(self, source: Path, transform: Transform) -> None:
        assert transform.size is not None
        self._paths = sorted(map(str, source.rglob("*.jpg")))
        self._change = v2.Compose([v2.Resize(transform.resize, antialias=True), v2.CenterCrop(transform.size)])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor:
        image: Tensor = self._change(decode_image(self._paths[number], ImageReadMode.RGB))
        return image


def embed(options: argparse.Namespace) -> dict[str, Any]:
    """Return the images a second from the first to the last batch, and those of the model alone."""
    embedder: Any = registry.embedder(options.model, weights="random")
    images = _Images(options.source, embedder.transform)
    loader = DataLoader(images, options.batch, num_workers=devices.cpus(), pin_memory=DEVICE.type == "cuda")
    model = embedder.module.eval().to(DEVICE, KIND, memory_format=torch.channels_last)
    scale, vectors, ready = _scale(embedder.transform), [], []
    with torch.inference_mode():
        sample = torch.randn(options.batch, 3, *embedder.transform.size, device=DEVICE).to(KIND)
        sample = sample.contiguous(memory_format=torch.channels_last)
        began = time.perf_counter()
        alone = _rate(lambda: model(sample), ALONE, options.batch)
        alone_seconds = time.perf_counter() - began
        for batch in loader:
            inputs = scale(batch.to(DEVICE, non_blocking=True)).to(KIND).contiguous(memory_format=torch.channels_last)
            vectors.append(model(inputs).float().cpu())
            ready.append(time.perf_counter())
    return {
        "images_per_second": (len(images) - options.batch) / (ready[-1] - ready[0]),
        "alone": alone,
        "alone_seconds": alone_seconds,
        "vectors": sum(map(len, vectors)),
    }


def predict(options: argparse.Namespace) -> dict[str, Any]:
    """Return the images a second of a detector or segmenter, from pixels in the CPU's memory to boxes or classes."""
    found = [decode_image(str(path), ImageReadMode.RGB) for path in sorted(options.source.rglob("*.jpg"))]
    state = torch.load(options.weights, weights_only=True)
    if options.model in models.list_models(models.segmentation):
        model = models.get_model(options.model, weights=None, weights_backbone=None)
        prepare = models.get_model_weights(options.model).DEFAULT.transforms(resize_size=options.side or 520)

        def answer(batch: list[Tensor]) -> None:
            model(prepare(torch.stack(batch).to(DEVICE)))["out"].argmax(1).to(torch.uint8).cpu()
    else:
        size = {"min_size": options.side} if options.side else {}
        model = models.get_model(options.model, weights=None, weights_backbone=None, **size)

        def answer(batch: list[Tensor]) -> None:
            for row in model([image.to(DEVICE).float() / 255 for image in batch]):
                row["boxes"].cpu()

    model.load_state_dict(state)
    model.eval().to(DEVICE, memory_format=torch.channels_last)
    batches = list(_batches(found, options.batch))
    with torch.inference_mode(), _autocast():
        for batch in batches[:2]:
            answer(batch)
        _finish()
        began = time.perf_counter()
        for batch in batches:
            answer(batch)
        _finish()
    return {"images_per_second": len(found) / (time.perf_counter() - began)}


def _batches(images: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield batches of images of one shape."""
    for _, alike in groupby(sorted(images, key=lambda image: image.shape), lambda image: image.shape):
        rows = list(alike)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def main() -> None:
    """Measure one of them, and print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "embed", "predict"])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--side", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    print(json.dumps({"train": train, "embed": embed, "predict": predict}[options.what](options)))


if __name__ == "__main__":
    main()
