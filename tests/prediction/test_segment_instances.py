"""``segment`` with Mask R-CNN: boxes and masks are those of torchvision's own model, as COCO's run lengths."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import calibrated
import numpy as np
import pytest
import torch
from commands import exact, here, opened, sentence
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pycocotools import mask as coco
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cvjobs.images.masks import rle
from cvjobs.networks.segmentation.outlines import of_boxes, of_image

pytestmark = pytest.mark.slow

NAME = "maskrcnn_resnet50_fpn"
SIDES = {"min_size": 96, "max_size": 160, "box_detections_per_img": 30}


def expected(model: Any, folder: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """What torchvision's own model finds in each image alone."""
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image, torch.inference_mode():
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
            (one,) = model([torch.from_numpy(pixels).permute(2, 0, 1) / 255])
        found[path.name] = {key: value.numpy() for key, value in one.items()}
    return found


def compare(out: Path, found: dict[str, dict[str, NDArray[Any]]]) -> int:
    """How many objects there are, at least 98% of them the same; of nearly equal scores either may be the first.

    A box whose edge is a whole number but for rounding may have its mask a pixel aside: it is pasted by whole pixels.
    """
    count = matched = 0
    for row in opened(out).to_arrow().to_pylist():
        one, ours = found.pop(row["path"]), row["detections"]
        assert len(ours) == len(one["scores"])
        masks = one["masks"][:, 0] >= 0.5
        for detection in ours:
            near = np.abs(one["boxes"] - [detection[side] for side in ("x0", "y0", "x1", "y1")]).max(1) <= 0.5
            near &= np.abs(one["scores"] - detection["score"]) <= 1e-3
            (same,) = np.nonzero(near & (one["labels"] == detection["category_id"]))
            mine = rle.decode(detection["rle"], row["height"], row["width"])
            matched += any((mine != mask).sum() <= 0.02 * max(mask.sum(), 50) for mask in masks[same])
        count += len(ours)
    assert not found
    assert matched >= 0.98 * count
    return count


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated.pictures(tmp_path_factory.mktemp("pictures") / "source")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated.weights(NAME, tmp_path_factory)


def test_objects_are_those_of_torchvision(folder: Path, weights: Path, tmp_path: Path) -> None:
    model = calibrated.reference(NAME, weights, **SIDES)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("picture0.png", "picture2.png", "turned6.png"):  # two of one size, one on its side
        shutil.copy(folder / name, source)
    small: tuple[Any, ...] = ("--imgsz", 96, "--max-det", 30, "--batch-size", 2)
    ended = here("segment", source, "-o", out, "--model", NAME, "--weights", weights, *small)
    assert ended.code == 0, ended
    exact(out, source, 3)
    assert opened(out).snapshot.facts["task"] == "instance"
    assert compare(out, expected(model, source)) >= 80
    refused = sentence(here("segment", source, "-o", out, "--model", "lraspp_mobilenet_v3_large", "--conf", 0.5), 2)
    assert refused.startswith("--conf ") or "No weights" in refused


@pytest.mark.faults
@pytest.mark.parametrize("name", [NAME, "maskrcnn_resnet50_fpn_v2"])
@pytest.mark.parametrize("batch", [1, 8])
def test_every_model_at_its_own_size(
    name: str, batch: int, folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = calibrated.weights(name, tmp_path_factory)
    ended = here("segment", folder, "-o", tmp_path, "--model", name, "--weights", weights, "--batch-size", batch)
    assert ended.code == 0, ended
    assert compare(tmp_path, expected(calibrated.reference(name, weights), folder)) >= 200


def test_masks_are_pasted_as_torchvision_pastes_them() -> None:
    generator = torch.Generator().manual_seed(0)
    size = (97, 143)
    corner = torch.rand(200, 2, generator=generator) * torch.tensor([143.0, 97.0])
    side = torch.rand(200, 2, generator=generator) ** 3 * torch.tensor([143.0, 97.0])
    boxes = torch.cat([corner, corner + side], 1)
    boxes[:, 0::2].clamp_(0, size[1])
    boxes[:, 1::2].clamp_(0, size[0])
    boxes[0] = torch.tensor([0.0, 0.0, 143.0, 97.0])
    boxes[1] = torch.tensor([143.0, 97.0, 143.0, 97.0])
    boxes[2] = torch.tensor([30.0, 0.0, 31.0, 97.0])
    masks = torch.rand(200, 1, 28, 28, generator=generator)
    masks[::3] = 1.0
    masks[5] = 0.0
    whole = (paste_masks_in_image(masks, boxes, size)[:, 0] >= 0.5).to(torch.uint8).numpy()
    texts = [coco.encode(np.asfortranarray(mask))["counts"].decode() for mask in whole]
    assert of_boxes(masks[:, 0].numpy(), boxes.numpy(), size) == texts
    assert sum(mask.any() for mask in whole) > 100


def test_no_objects_are_no_masks() -> None:
    assert of_boxes(np.empty((0, 28, 28), np.float32), np.empty((0, 4), np.float32), (5, 6)) == []


def test_masks_of_a_whole_image_are_those_of_its_interpolated_values() -> None:
    generator = torch.Generator().manual_seed(3)
    for cells, size in (((7, 9), (40, 61)), ((16, 16), (11, 300)), ((1, 5), (20, 20)), ((30, 40), (13, 17))):
        values = torch.randn(3, *cells, generator=generator)
        values[2] = -1.0  # nothing of it is seen
        grown = torch.nn.functional.interpolate(values[None].double(), size, mode="bilinear", align_corners=False)[0]
        expected = [rle.encode(mask, (0, 0), size) for mask in (grown > 0).numpy()]
        assert of_image(values.numpy(), size) == expected


def test_masks_that_lie_on_the_line_are_as_ever() -> None:
    """Strings of the first version that made them, of masks whose numbers are halves and quarters."""
    random, found = np.random.default_rng(0), hashlib.sha256()
    for number in range(60):
        steps = 1 + 3 * (number % 2)
        masks = np.round(random.random((8, 28, 28)) * steps) / steps
        boxes = np.sort(random.uniform(-50, 550, (8, 2, 2)), 1).reshape(8, 4)
        height, width = random.integers(1, 500, 2).tolist()
        found.update("\n".join(of_boxes(masks.astype("float32"), boxes.astype("float32"), (height, width))).encode())
    assert found.hexdigest() == "9b8135c11275737d9ed95a0a0c1929fb8e35d7d8b9edc9abe7fd52c7f92dff77"
