"""Detectors and segmenters as files for other programs: they find what the run finds, on pictures of any size."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.images.picture import Picture
from cvjobs.images.resizing import fit
from cvjobs.images.transform import Transform
from cvjobs.networks import licences, registry, sealed_model
from cvjobs.networks import weights as files
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.detection.trainee import DetectionTrainee
from cvjobs.networks.families.training_run import OpenedRun, whole_pictures
from cvjobs.networks.segmentation.segmenter import Segmenter
from cvjobs.networks.torchvision import detectors, segmenters, trained_detectors
from cvjobs.networks.torchvision.segmenter_training import PixelLogits
from cvjobs.networks.trainable import Trainable
from cvjobs.training import plan as training_plan
from cvjobs.training.plan import MODEL, Subject
from cvjobs.training.portable import likeness, onnx_format, portable_tasks
from cvjobs.training.portable.likeness import ListedBoxes
from cvjobs.training.run_export import ExportedModel

NAMES = ("disc", "a [b]: 'c'", "square")
SIZES = ((60, 90), (90, 60), (33, 200), (300, 50), (64, 64), (121, 97))
_LAST = ("cls_logits", "bbox_pred", "bbox_reg", "cls_score", "bbox_ctrness")


def made(place: Path, model: str, *, task: Any = "detect", backbone: str = "", side: int = 64) -> Path:
    """The folder of a run as its first epoch leaves it, with weights that see different things in different places."""
    classes = NAMES if task == "detect" else ("background", *NAMES)
    subject = Subject(
        task=task,
        model=model,
        weights="random",
        classes=classes,
        dim=0,
        side=side,
        seed=0,
        init_head=False,
        backbone=backbone,
    )
    trainable = subject.trainable()
    module: Any = trainable.module
    images = torch.randn(2, 3, max(side, 128), max(side, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
        network = module.detector if task == "detect" else module
        network.backbone.train()(images)
        module.eval()
        if task == "detect":
            _enliven(network, images)
    said = training_plan.metadata(subject, trainable.transform, 3, 0.5, multilabel=False)
    tensors = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    place.mkdir()
    (place / MODEL).write_bytes(sealed_model.seal(save(tensors, said)))
    return place


@torch.no_grad()
def _enliven(detector: nn.Module, images: torch.Tensor) -> None:
    """Scale the last layers until what they say varies, as that of random ones does not."""

    def scaled(deviation: float, mean: float = 0.0) -> Any:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
            if module in done:  # the same for each level
                return output
            done.append(module)
            factor = deviation / max(float(output.std()), 1e-12)
            module.weight.mul_(factor)
            module.bias.fill_(mean)
            return (output - output.mean()) * factor

        return hook

    handles: list[Any] = []
    done: list[nn.Module] = []
    for name, module in detector.named_modules():
        parts = name.split(".")
        last = parts[-1] in _LAST or (
            "module_list" in parts and isinstance(module, nn.Conv2d) and module.bias is not None
        )
        if last and isinstance(module, nn.Conv2d | nn.Linear):
            boxes = "bbox_pred" in parts or "bbox_reg" in parts or "regression_head" in parts
            sparse = "classification_head" in parts and "cls_logits" in parts  # each with a sigmoid of its own
            handles.append(module.register_forward_hook(scaled(0.3 if boxes else 2.0, -5.0 if sparse else 0.0)))
    network = detectors.architecture(detector)(detector)
    side = images.shape[2]
    network.candidates(images, [(side, side)] * 2, 0.05)
    for handle in handles:
        handle.remove()


def pictures() -> list[NDArray[np.uint8]]:
    """Noise of several grains."""
    random = np.random.default_rng(5)
    found = []
    for height, width in SIZES:
        coarse = random.integers(0, 256, (height // 15 + 1, width // 15 + 1, 3)).repeat(15, 0).repeat(15, 1)
        grain = random.integers(-40, 40, (height, width, 3))
        found.append((coarse[:height, :width] + grain).clip(0, 255).astype(np.uint8))
    return found


def boxes(name: str, settings: Settings | None = None, first: int = len(SIZES)) -> list[PictureDetections]:
    """What a detector finds in the first pictures."""
    network = registry.detector(name).ruled(settings or Settings()).load("cpu", "fp32")
    found = network(pictures()[:first])
    assert None not in found
    return [one for one in found if one is not None]


@dataclass
class Alike:
    """How many boxes or pixels were compared, how many are others, and by how much scores of the same differ."""

    every: int = 0
    others: int = 0
    score: float = 0.0


def same_boxes(one: Sequence[PictureDetections], other: Sequence[PictureDetections]) -> Alike:
    """Both found the same, but for one box in a hundred, where two are as good."""
    found = Alike()
    for first, second in zip(one, other, strict=True):
        apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(2) <= 0.5
        differs = np.abs(first.scores[:, None] - second.scores[None])
        same = apart & (differs <= 1e-3) & (first.classes[:, None] == second.classes[None])
        nearest = np.where(same, differs, np.inf)
        found.others += int((~same.any(1)).sum()) + int((~same.any(0)).sum())
        found.every += same.shape[0] + same.shape[1]
        found.score = max([found.score, *nearest.min(1, initial=np.inf)[same.any(1)].tolist()])
    assert found.others <= found.every / 100, found
    return found


def exported(run: Path, file: Path, name: str) -> ExportedModel:
    """What was written of a run."""
    found = cvjobs.export(run, file, name)
    assert isinstance(found, ExportedModel)
    return found


def class_maps(model: Any) -> list[NDArray[Any]]:
    """What a segmenter says of the pictures."""
    network, found = model.load("cpu", "fp32"), []
    for pixels in pictures():
        seen = fit(pixels, model.transform)
        found += network([Picture(pixels=seen, height=pixels.shape[0], width=pixels.shape[1])])
    return found


def same_pixels(one: Any, other: Any) -> Alike:
    """Both are one segmenter."""
    assert one.categories == other.categories
    assert one.transform == other.transform
    found = Alike()
    for first, second in zip(class_maps(one), class_maps(other), strict=True):
        assert first.shape == second.shape
        assert len(np.unique(first)) > 1
        differs = first != second
        assert differs.mean() <= 1e-3
        found.every, found.others = found.every + differs.size, found.others + int(differs.sum())
    return found


def leaves(place: Path, model: str, backbone: str, record: Any) -> Alike:
    """Export a detector in each format; return what its file and its run find alike."""
    run, file = made(place / "run", model, backbone=backbone, side=160), f"onnx/{place / 'm.onnx'}"
    for name in ("onnx", "pt2", "safetensors"):
        record(f"{name}: difference in the check", exported(run, place / f"m.{name}", name).difference)
    one, other = registry.detector(str(run)), registry.detector(file)
    for said in ("conf", "max_det", "categories"):
        assert one.facts[said] == other.facts[said]
    found = boxes(str(run))
    alike = same_boxes(found, boxes(file))
    record("onnx", alike)
    # So high that no look has max_det boxes above it, of which the file's are of all classes.
    high = float(np.quantile(np.concatenate([some.scores for some in found]), 0.9))
    strict = Settings(conf=high, classes=NAMES[0], tile=80, tta="flip")
    record("onnx, tiles and flip", same_boxes(boxes(str(run), strict, 2), boxes(file, strict, 2)))
    return alike


class Stages(nn.Module):
    """Two convolutions, whose maps are those of a backbone."""

    out_channels = (8, 8)

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.names = names

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        low = self.first(images).relu()
        return OrderedDict(zip(self.names, (low, self.second(low).relu()), strict=True))


def opened(place: Path, task: str, module: nn.Module, classes: Sequence[str], fit: Any, side: int = 64) -> OpenedRun:
    """A run of a module that no family has."""
    transform = Transform(size=(side, side), resize=side, fit=fit, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    about = {"task": task, "model": "tiny", "classes": len(classes), "transform": transform.record(), "epoch": 2}
    said = {"labels": json.dumps(classes), "cvjobs": json.dumps(about)}
    tensors = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    (place / MODEL).write_bytes(sealed_model.seal(save(tensors, said)))
    found = files.from_file(place / MODEL)
    return OpenedRun(
        task,
        Trainable(name="tiny", transform=transform, weights=found, module=module.eval(), pooled=nn.Module),
        transform,
        found,
    )


def test_a_detector_is_read_back_with_equal_boxes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = DefaultBoxGenerator([[1], [1]], scales=[0.2, 0.4, 0.6])
    ssd = SSD(Stages("01"), generator, (64, 64), 4, head=SSDHead([8, 8], generator.num_anchors_per_location(), 4))
    _enliven(ssd.eval(), torch.randn(2, 3, 64, 64))
    run = opened(tmp_path, "detect", DetectionTrainee(ssd, frozen_norms=False), NAMES, "native")
    model, file = portable_tasks.of_opened("run", run, licences.UNSAID), tmp_path / "m.onnx"
    onnx_format.write(model, file)
    assert onnx_format.check(model, file) < 1e-5
    network = trained_detectors.detector(run.trainable, NAMES, run.weights).load("cpu", "fp32")
    found = network(pictures())
    assert None not in found
    assert same_boxes([one for one in found if one is not None], boxes(f"onnx/{file}")).every > 100
    with pytest.raises(WrongUse, match="takes images of 64 × 64 pixels only: leave out --imgsz"):
        registry.detector(f"onnx/{file}").ruled(Settings(imgsz=96))
    images = model.samples()[0]
    corners, labels, scores = model.expected(images)
    assert model.compare(images, [corners, labels, scores]) == 0
    assert float(corners[:, 3].max()) <= images.shape[2], "boxes end where the picture does"
    with pytest.raises(JobFailed, match="are others in the file: choose another --format"):
        model.compare(images, [corners + 1, labels, scores])


def test_a_segmenter_is_read_back_with_equal_masks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = nn.Module()
    parts.backbone, parts.classifier = Stages(("low", "out")), nn.Conv2d(8, 4, 3, padding=1)
    run = opened(tmp_path, "segment", PixelLogits(parts), ("nothing", *NAMES), "short")
    model, file = portable_tasks.of_opened("run", run, licences.UNSAID), tmp_path / "m.onnx"
    onnx_format.write(model, file)
    assert onnx_format.check(model, file) < 1e-4
    images = model.samples()[0]
    even = replace(model, module=portable_tasks.OneOutput(nn.Conv2d(3, 4, 1)))
    level = 1e-4 * torch.tensor([1.0, -1, 1, -1]).view(1, 4, 1, 1)
    with torch.no_grad():
        for weight in even.module.parameters():
            weight.fill_(1.0)
    with pytest.raises(JobFailed, match="are of another class in the file than run says in torch"):
        even.compare(images, [even.expected(images)[0] - level])
    own = Segmenter(
        name="tiny",
        weights=run.weights,
        transform=whole_pictures(run.transform),
        categories=[Category(at, name) for at, name in enumerate(model.labels)],
        module=run.trainable.module,
    )
    same_pixels(own, registry.segmenter(f"onnx/{file}"))


@pytest.mark.faults(minutes=20)
@pytest.mark.parametrize(
    ("model", "backbone"),
    [*((name, "") for name in trained_detectors.names()), ("fasterrcnn_resnet50_fpn", "mobilenet_v2"),
     ("retinanet_resnet50_fpn", "timm/resnet18")],
)  # fmt: skip
def test_each_detector(model: str, backbone: str, tmp_path: Path, record_property: Any) -> None:
    assert leaves(tmp_path, model, backbone, record_property).every > 40
    said = {"metadata.json": ""}
    module = torch.export.load(tmp_path / "m.pt2", extra_files=said).module()
    about = json.loads(said["metadata.json"])
    mean, std = (torch.tensor(about[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    pixels = torch.from_numpy(pictures()[0]).permute(2, 0, 1)[None] / 255  # 60 × 90, that is 106 × 160 in the file
    seen = nn.functional.interpolate(pixels, (106, 160), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        corners, labels, scores = module((seen - mean) / std)
    rows = scores > about["conf"]
    expected = boxes(str(tmp_path / "run"), first=1)[0]
    corners = corners[rows] * torch.tensor([90 / 160, 60 / 106] * 2)
    found = PictureDetections(corners.numpy(), scores[rows].numpy(), labels[rows].numpy())
    record_property("pt2", same_boxes([expected], [found]))


@pytest.mark.faults(minutes=20)
@pytest.mark.parametrize(
    "model", [*segmenters.names(), "fcn+mobilenet_v2", "deeplabv3+resnet18", "lraspp+mobilenet_v3_small"]
)
def test_each_segmenter(model: str, tmp_path: Path, record_property: Any) -> None:
    run = made(tmp_path / "run", f"torchvision/{model}", task="segment")
    for name in ("onnx", "pt2", "safetensors"):
        record_property(f"{name}: difference in the check", exported(run, tmp_path / f"m.{name}", name).difference)
    own = registry.segmenter(str(run))
    record_property("onnx", same_pixels(own, registry.segmenter(f"onnx/{tmp_path / 'm.onnx'}")))
    images = torch.randn(2, 3, 64, 83)
    module = torch.export.load(tmp_path / "m.pt2").module()
    with torch.inference_mode():
        (logits,) = module(images)
        expected = portable_tasks.of_run(str(run), licences.UNSAID).module(images)[0]
    assert torch.allclose(logits, expected, atol=1e-4)


def test_boxes_are_alike_by_place_class_and_score() -> None:
    corners = torch.tensor([[0, 0, 9, 9], [20, 20, 40, 40], [5, 5, 30, 30], [0, 0, 0, 0.0]])
    one = ListedBoxes(corners, torch.tensor([1, 2, 1, 0]), torch.tensor([0.9, 0.8, 0.1, 0.0]))
    none = ListedBoxes(corners[:0], one.labels[:0], one.scores[:0])
    assert likeness.compared(one, one) == likeness.compared(none, none) == (0.0, 0.0)
    assert likeness.compared(one, none) == likeness.compared(none, one) == (0.0, 1.0)
    swapped = ListedBoxes(corners[[1, 0, 2, 3]], one.labels[[1, 0, 2, 3]], torch.tensor([0.8005, 0.9, 0.1, 0.0]))
    most, unlike = likeness.compared(one, swapped)
    assert unlike == 0
    assert most == pytest.approx(0.0005, abs=1e-6)
    for other in (
        ListedBoxes(corners + torch.tensor([[0.6, 0, 0, 0], *[[0.0] * 4] * 3]), one.labels, one.scores),
        ListedBoxes(corners, torch.tensor([2, 2, 1, 0]), one.scores),
        ListedBoxes(corners, one.labels, one.scores + torch.tensor([0.01, 0, 0, 0])),
        ListedBoxes(corners * float("nan"), one.labels, one.scores),
    ):
        assert likeness.compared(one, other)[1] >= 0.5
