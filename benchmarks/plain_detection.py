"""What a good engineer trains a detector with without any framework: a DataLoader of two workers, and torchvision.

python benchmarks/plain_detection.py FOLDER --side N [--epochs N] [--lr RATE] [--ap]

FOLDER has train.json and val.json in COCO's form and their images in train and val. The model is torchvision's Faster
R-CNN on a feature pyramid of MobileNetV2 with its ImageNet weights, images are read and decoded in every epoch, and
flipped at random; the optimizer and its schedule are those of the command. ``--ap`` finds the boxes of val at the end,
and their AP by ``cvjobs eval``'s code.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import models, tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms import v2

from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.objects import Detections, Truths

BATCH = 4
WORKERS = 2
CLIP = 1.0
STAGES = {"6": "0", "13": "1", "18": "2"}  # of MobileNetV2, at an eighth, a 16th and a 32nd of the side
CHANNELS = [32, 96, 1280]
ANCHORS = ((24, 34), (48, 68), (96, 136), (192, 272))


class Objects(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The images of a COCO file with the boxes and labels in them, flipped at random where they are to train with."""

    def __init__(self, folder: Path, split: str) -> None:
        content = json.loads((folder / f"{split}.json").read_bytes())
        self.images = content["images"]
        self.numbers = {own["id"]: number for number, own in enumerate(content["categories"], 1)}
        self._folder = folder / split
        self.objects: dict[Any, list[tuple[list[float], int]]] = {image["id"]: [] for image in self.images}
        for one in content["annotations"]:
            left, top, width, height = one["bbox"]
            if width > 0 and height > 0 and not one.get("iscrowd"):
                box = [left, top, left + width, top + height]
                self.objects[one["image_id"]].append((box, self.numbers[one["category_id"]]))
        self._change = v2.RandomHorizontalFlip(0.5 if split == "train" else 0.0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self.images[number]
        pixels = decode_image(str(self._folder / image["file_name"]), mode=ImageReadMode.RGB)
        own = self.objects[image["id"]]
        boxes = torch.tensor([box for box, _ in own], dtype=torch.float32).reshape(-1, 4)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(pixels.shape[1:])),
            "labels": torch.tensor([label for _, label in own], dtype=torch.int64),
        }
        seen, target = self._change(pixels, target)
        return seen.float() / 255, target


def detector(classes: int, side: int) -> FasterRCNN:
    """Return Faster R-CNN on MobileNetV2, whose batch norms stay as they are."""
    body = models.mobilenet_v2(weights=models.MobileNet_V2_Weights.IMAGENET1K_V1).features
    for part in body.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.requires_grad_(False)
    return FasterRCNN(
        BackboneWithFPN(body, STAGES, CHANNELS, 256),
        classes + 1,
        min_size=side,
        max_size=side,
        rpn_anchor_generator=AnchorGenerator(ANCHORS, ((0.5, 1.0, 2.0),) * len(ANCHORS)),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        box_batch_size_per_image=128,
        rpn_post_nms_top_n_test=300,
    )


def learning(model: FasterRCNN) -> None:
    """Let a detector learn, all but its batch norms."""
    model.train()
    for part in model.backbone.body.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()


def average_precision(model: FasterRCNN, data: Objects) -> tuple[float, float]:
    """Return AP and AP50 of what the model finds in images."""
    model.eval()
    boxes, areas, labels, scores, image = [], [], [], [], []
    with torch.inference_mode():
        for number in range(len(data)):
            (found,) = model([data[number][0]])
            corners = found["boxes"].double().numpy()
            boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1))
            areas.append(boxes[-1][:, 2] * boxes[-1][:, 3])
            labels.append(found["labels"].numpy() - 1)
            scores.append(found["scores"].double().numpy())
            image.append(np.full(len(corners), number))
    join = np.concatenate
    own = Detections(image=join(image), category=join(labels), boxes=join(boxes), area=join(areas), score=join(scores))
    scored = coco_ap.evaluate(truths(data), own, len(data.numbers))
    return scored.average("AP"), scored.average("AP50")


def truths(data: Objects) -> Truths:
    """Return the objects in images as an evaluation takes them."""
    rows = [(at, *one) for at, image in enumerate(data.images) for one in data.objects[image["id"]]]
    corners = np.array([box for _, box, _ in rows])
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    none = np.zeros(len(rows), bool)
    return Truths(
        image=np.array([at for at, _, _ in rows]),
        category=np.array([label - 1 for _, _, label in rows]),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=none,
        ignored=none,
        unnumbered=none,
    )


def share(step: int, steps: int, epochs: int) -> float:
    """Return the rate of a step as a share of the highest: an epoch's warm-up, and a cosine to 0."""
    warmup = steps * min(1.0, epochs / 10)
    if step < warmup:
        return (step + 1) / (math.floor(warmup) + 1)
    return (1 + math.cos(math.pi * (step - warmup) / max(steps * epochs - 1 - warmup, 1))) / 2


def main() -> None:
    """Train, and print the images per second and the loss of each epoch as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--ap", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    data = Objects(options.source, "train")
    loader = DataLoader(
        data, options.batch, shuffle=True, num_workers=WORKERS, persistent_workers=True, collate_fn=lambda batch: batch
    )
    model = detector(len(data.numbers), options.side)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in learned if (one.ndim > 1) == heavy], "weight_decay": decay}
        for heavy, decay in ((True, options.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, options.lr)
    speeds, losses, step = [], [], 0
    for _ in range(options.epochs):
        learning(model)
        began, total = time.perf_counter(), 0.0
        for batch in loader:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * share(step, len(loader), options.epochs)
            images, targets = zip(*batch, strict=True)
            loss = sum(model(list(images), list(targets)).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, CLIP)
            optimizer.step()
            total += loss.item() * len(images)
            step += 1
        speeds.append(len(data) / (time.perf_counter() - began))
        losses.append(total / len(data))
    found = average_precision(model, Objects(options.source, "val")) if options.ap else None
    print(json.dumps({"images": len(data), "images_per_second": speeds, "losses": losses, "ap": found}))


if __name__ == "__main__":
    main()
