"""What a good engineer trains a segmenter with without any framework: a DataLoader of two workers, and torchvision.

python benchmarks/plain_segmentation.py FOLDER --side N [--epochs N] [--lr RATE] [--void N]

FOLDER has images and masks below train and val. The model is LR-ASPP on the command's dilated MobileNetV2 with its
ImageNet weights; images are decoded, scaled, cropped, flipped and coloured in the workers, as torchvision's reference
does it, and the optimizer and its schedule are those of the command. The mIoU is that of all pixels of val.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from plain_detection import CLIP, WORKERS, share
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from cvjobs.networks import segmenters_to_train

BATCH = 8


class Masked(Dataset[tuple[Tensor, Tensor]]):
    """Images with their masks: as they are trained on, or scaled to their shorter side alone."""

    def __init__(self, folder: Path, side: int, void: int, *, training: bool) -> None:
        self._images = sorted((folder / "images").iterdir())
        self._masks = folder / "masks"
        self._plain = v2.Resize(side, antialias=True)
        self._training = training
        low, high = side // 2, 2 * side
        self._change = v2.Compose(
            [
                v2.RandomShortestSize(list(range(low, high + 1)), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomCrop(side, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: void}),
                v2.ColorJitter(0.3, 0.3, 0.3),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        path = self._images[number]
        image = tv_tensors.Image(decode_image(str(path), mode=ImageReadMode.RGB))
        mask = tv_tensors.Mask(decode_image(str(self._masks / f"{path.stem}.png"), mode=ImageReadMode.UNCHANGED)[0])
        if not self._training:
            return self._plain(image), mask
        seen, classes = self._change(image, mask)
        return seen, classes.long()


def main() -> None:
    """Train, and print the images per second and the loss of each epoch, and the mIoU, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--side", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--void", type=int, default=11)
    parser.add_argument("--lr", type=float, default=5e-4)
    options = parser.parse_args()
    torch.manual_seed(0)
    data = Masked(options.source / "train", options.side, options.void, training=True)
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    made = segmenters_to_train.trainable_segmenter(
        "torchvision/lraspp+mobilenet_v2", classes=options.classes, side=options.side
    )
    model = made.module.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (made.transform.mean, made.transform.std))
    groups = [
        {"params": [one for one in model.parameters() if (one.ndim > 1) == heavy], "weight_decay": decay}
        for heavy, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, options.lr)
    speeds, losses, step = [], [], 0
    for _ in range(options.epochs):
        model.train()
        began, total = time.perf_counter(), 0.0
        for images, masks in loader:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * share(step, len(loader), options.epochs)
            inputs = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(inputs)[:, 0], masks, ignore_index=options.void)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            total += loss.item() * len(images)
            step += 1
        speeds.append(len(data) / (time.perf_counter() - began))
        losses.append(total / len(data))
    counts = torch.zeros(options.classes, options.classes, dtype=torch.int64)
    model.eval()
    with torch.inference_mode():
        for image, mask in Masked(options.source / "val", options.side, options.void, training=False):  # type: ignore[attr-defined]
            scores = model(((image.float() / 255 - mean) / std)[None])
            scores = functional.interpolate(scores, mask.shape, mode="bilinear", align_corners=False)
            said, true = scores[0].argmax(0)[mask < options.classes], mask[mask < options.classes].long()
            counts += torch.bincount(true * options.classes + said, minlength=options.classes**2).view_as(counts)
    shared = counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag()).clamp(min=1)
    there = (counts.sum(0) + counts.sum(1)) > 0
    answer = {"images_per_second": speeds, "losses": losses, "miou": float(shared[there].mean())}
    print(json.dumps({"images": len(data), **answer}))


if __name__ == "__main__":
    main()
