"""Made-up ONNX files for the benchmarks: a classifier, and a detector with YOLO's outputs, on MobileNetV2."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

SIDES = {"classify": 224, "detect": 320}
CLASSES, STRIDE, BOX = 80, 32, 60.0
CARDS = {"classify": "", "detect": f"output: yolov8\nstrides: [{STRIDE}]\n"}


class YoloLike(nn.Module):
    """Boxes (B, 4 + classes, cells) of one grid: centres in their cells, sides of about ``BOX`` pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = models.mobilenet_v2(weights=None).features
        self.head = nn.Conv2d(1280, 4 + CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs of (B, 3, H, W) images."""
        said = self.head(self.features(images))
        rows, columns = said.shape[2], said.shape[3]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = (torch.stack([x, y])[None] + said[:, :2].sigmoid()) * STRIDE
        size = said[:, 2:4].exp() * BOX
        return torch.cat([centre, size, (said[:, 4:] - 1).sigmoid()], 1).flatten(2)


def file(task: str, cache: Path) -> Path:
    """Return the file of a task's model, made once, with its card beside it."""
    place = cache / f"{task}-mobilenet_v2.onnx"
    if not place.exists():
        torch.manual_seed(1)
        model = (models.mobilenet_v2(weights=None) if task == "classify" else YoloLike()).eval()
        images = torch.rand(2, 3, SIDES[task], SIDES[task])
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (images,),
                str(place),
                input_names=["images"],
                output_names=["output0"],
                dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
                dynamo=False,
            )
        place.with_suffix(".yaml").write_text(CARDS[task])
    return place
