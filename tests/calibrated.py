"""Seeded detectors that find something: without real weights, and still hundreds of boxes above the threshold.

Batch norms have the statistics of a few pictures, and the last layers are scaled until their outputs spread as those
of a trained model: so scores differ, boxes overlap, and there is much for NMS to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

SIZE = (160, 266)  # the shorter and the longer side in pixels at which detectors are calibrated, for speed
ABOVE = 1_500  # class scores of RetinaNet and FCOS above their threshold, at that size
DETECTIONS = 20  # enough to know how wide the outputs for masks spread
SILENT = -40.0
RESIDUAL = 0.3  # the weight of the last batch norm in a residual branch


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with coarse and fine structure: shapes of all sizes on a rough ground, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    ground = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    draw = ImageDraw.Draw(ground)
    for _ in range(40):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = (random.lognormal(3, 0.8, 2) * (width + height) / 800 + 2).astype(int).tolist()
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape([x - w, y - h, x + w, y + h], fill=tuple(random.integers(0, 256, 3).tolist()))
    noise = random.normal(0, 12, (height, width, 3))
    return (np.asarray(ground) + noise).clip(0, 255).astype(np.uint8)


def pictures(folder: Path) -> Path:
    """A folder of pictures of mixed sizes, three of them turned by their EXIF orientation, one of these a JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [(150, 200), (200, 150), (150, 200), (120, 260), (181, 203), (150, 200)]
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(pixels(height, width, number)).save(folder / f"picture{number}.png")
    for name, orientation in (("turned6.png", 6), ("turned8.png", 8), ("turned3.jpg", 3)):
        image = Image.fromarray(pixels(150, 200, orientation))
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(folder / name, exif=exif, quality=95)
    return folder


def weights(name: str, factory: pytest.TempPathFactory, classes: int = 91) -> Path:
    """The file of a torchvision detector's calibrated weights, made once for all tests of a session."""
    base = factory.getbasetemp()
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # which the processes of pytest-xdist share
    file = session / "calibrated" / f"{name}-{classes}.safetensors"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        own = file.with_name(f"{os.getpid()}-{file.name}")
        save_file(state(name, classes), own)
        own.rename(file)
    return file


def reference(name: str, file: Path | dict[str, Tensor], classes: int = 91, **options: Any) -> Any:
    """Return torchvision's own model with those weights."""
    with torch.device("meta"):
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **options)
    if isinstance(file, Path):
        from safetensors.torch import load_file

        file = load_file(file)
    model.load_state_dict(file, assign=True)
    return model.eval()


def state(name: str, classes: int = 91) -> dict[str, Tensor]:
    """The state dict of a torchvision detector that finds hundreds of boxes in ``pictures``."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
        if model.transform.fixed_size is None:
            model.transform.min_size, model.transform.max_size = SIZE[:1], SIZE[1]
        if hasattr(model, "roi_heads"):
            model.roi_heads.detections_per_img = DETECTIONS
        batch = [torch.from_numpy(pixels(150, 200, seed)).permute(2, 0, 1) / 255 for seed in range(2)]
        _normalise(model, batch)
        silent = [0, *_nameless(name)] if classes == 91 else [0]
        for layers, spread in _last_layers(model):
            outputs = _outputs(model, layers, batch)
            for layer, output in zip(layers, outputs, strict=True):
                # Each channel around 0, and all together as wide as wanted.
                factor = spread / (output - output.mean((0, 1))).std()
                layer.weight *= factor
                layer.bias.copy_((layer.bias - output.mean((0, 1))) * factor)
        _choose(model, batch, classes, silent)
        return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


def _normalise(model: nn.Module, batch: list[Tensor]) -> None:
    """Give the batch norms the statistics of a batch.

    Residual branches add little to what they branch off from, as in a trained network: otherwise the layers amplify
    rounding until torchvision's own float32 and float64 results differ.
    """
    for part in model.modules():
        if isinstance(part, Bottleneck):
            nn.init.constant_(part.bn3.weight, RESIDUAL)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    if norms:
        model(batch)
    model.eval()


def _nameless(name: str) -> list[int]:
    categories = models.get_model_weights(name).DEFAULT.meta["categories"]
    return [i for i, label in enumerate(categories) if label == "N/A"]


def _last_layers(model: Any) -> Iterator[tuple[list[Any], float]]:
    """The layers that give scores, boxes and masks, in the order in which they depend on each other."""
    if hasattr(model, "roi_heads"):
        kept = model.rpn._post_nms_top_n
        model.rpn._post_nms_top_n = dict.fromkeys(kept, 1)  # what follows on the proposals is not looked at yet
        yield [model.rpn.head.cls_logits], 2.0
        yield [model.rpn.head.bbox_pred], 0.2
        model.rpn._post_nms_top_n = kept
        yield [model.roi_heads.box_predictor.cls_score], 2.0
        yield [model.roi_heads.box_predictor.bbox_pred], 1.0
        if model.roi_heads.mask_predictor is not None:
            yield [model.roi_heads.mask_predictor.mask_fcn_logits], 3.0
        return
    head, boxes = model.head.classification_head, model.head.regression_head
    if hasattr(head, "module_list"):
        yield [_last(part) for part in head.module_list], 2.0
        yield [_last(part) for part in boxes.module_list], 1.0
        return
    yield [head.cls_logits], 1.0
    yield [boxes.bbox_reg], 0.3
    if hasattr(boxes, "bbox_ctrness"):
        yield [boxes.bbox_ctrness], 1.0


def _last(module: nn.Module) -> Any:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)][-1]


@contextmanager
def _recorded(layers: list[Any]) -> Iterator[list[list[Tensor]]]:
    """The outputs of layers while the model runs, each as (B, places, channels)."""
    found: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, kept=kept: kept.append(
                output.flatten(2).transpose(1, 2) if output.ndim == 4 else output[:, None]
            )
        )
        for layer, kept in zip(layers, found, strict=True)
    ]
    yield found
    for hook in hooks:
        hook.remove()


def _outputs(model: nn.Module, layers: list[Any], batch: list[Tensor]) -> list[Tensor]:
    with _recorded(layers) as found:
        model(batch)
    return [torch.cat([output.reshape(1, -1, output.shape[2]) for output in outputs], 1) for outputs in found]


def _choose(model: Any, batch: list[Tensor], classes: int, silent: list[int]) -> None:
    """Shift the classes' scores: the background and the nameless below all, the others about the threshold."""
    if hasattr(model, "roi_heads"):
        model.roi_heads.box_predictor.cls_score.bias[silent[1:]] = SILENT
        return
    head = model.head.classification_head
    if hasattr(head, "module_list"):
        for part in head.module_list:
            _last(part).bias.view(-1, classes)[:, silent[1:]] = SILENT
        return
    (logits,) = _outputs(model, [head.cls_logits], batch)
    # FCOS multiplies by the centerness, a half on the whole, and takes the root.
    needed = model.score_thresh**2 * 2 if hasattr(model.head.regression_head, "bbox_ctrness") else model.score_thresh
    at = torch.logit(torch.tensor(needed)) - logits.flatten().topk(ABOVE * len(batch)).values[-1]
    head.cls_logits.bias += at
    head.cls_logits.bias.view(-1, classes)[:, silent] = SILENT
