"""Made-up weights for torchvision's detectors and segmenters, such that they find as much as trained ones would.

Batch norms know a few pictures, scores spread, and the background lies above most classes.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import photos
import torch
from PIL import Image
from processes import BENCHMARKS
from safetensors.torch import save_file
from torchvision import models

sys.path.append(str(BENCHMARKS.parent / "tests"))
import calibrated

SEED = 1
CLASSES = 91  # of a detector, with the background
# What a detector's background gets on its logits: an image has then about a thousand boxes above 0.05.
QUIET = 7.5
SCORES = re.compile(r"head\.classification_head\.module_list\.\d\.1\.bias|roi_heads\.box_predictor\.cls_score\.bias")
# A segmenter sees its background and three classes: in standard deviations of the logits, how much higher the
# background lies, and how much lower the other classes.
IN_SIGHT, GROUND, FAR = 4, 2.0, 5.0


def weights(name: str, cache: Path) -> Path:
    """Return the file of a model's weights, made once."""
    file = cache / f"{name}-{SEED}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(_segmenter(name) if name in models.list_models(models.segmentation) else _detector(name), file)
    return file


def _detector(name: str) -> dict[str, torch.Tensor]:
    tensors = calibrated.state(name)
    for key in tensors:
        if SCORES.fullmatch(key):
            tensors[key].view(-1, CLASSES)[:, 0] += QUIET
    return tensors


def _segmenter(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(SEED)
    model = models.get_model(name, weights=None, weights_backbone=None)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    prepare = models.get_model_weights(name).DEFAULT.transforms()
    opened = (Image.open(io.BytesIO(photos.photo(number))).resize((512, 512)) for number in range(4))
    batch = torch.stack([prepare(image) for image in opened])
    with torch.no_grad():
        model.train()(batch)
        logits = model.eval()(batch)["out"]
        # LR-ASPP has two such layers; the other is that of finer features.
        last = [part for part in model.classifier.modules() if isinstance(part, torch.nn.Conv2d)][-1]
        last.bias -= logits.mean((0, 2, 3))
        last.bias[0] += GROUND * logits.std()
        last.bias[IN_SIGHT:] -= FAR * logits.std()
    return dict(model.state_dict())
