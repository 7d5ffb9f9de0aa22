"""``--anchors auto``: what detectors are given, what they reach, and that a run's anchors go where its model goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_pictures import CLASSES, coco
from safetensors.torch import save_file
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks import detector_training, registry
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.families import training_run
from cvjobs.networks.torchvision import anchor_shapes
from cvjobs.sources.listing import list_source
from cvjobs.training.data import box_labels, fitted_anchors
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.predecessor import predecessor
from cvjobs.training.recipe import anchors, default_boxes
from cvjobs.training.recipe.default_boxes import DefaultBoxes


def labelled(data: Path) -> LabelledImages:
    return box_labels.label(str(data), list_source(box_labels.images_of(str(data)), links=True), 0.3)


def test_boxes_are_as_large_as_in_training(tmp_path: Path) -> None:
    data = labelled(coco(tmp_path / "data", {"train": 4, "val": 1}))
    objects = data.splits["train"].objects
    assert objects is not None
    expected = objects.boxes[:, 2:] * (96, 72) * (192 / 96)  # pictures of 96 x 72 pixels, whose longer side becomes 192
    assert np.allclose(fitted_anchors.training_boxes(data, 192), expected)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("fasterrcnn_resnet50_fpn", "mobilenet_v2"), ("fasterrcnn_mobilenet_v3_large_320_fpn", ""),
     ("retinanet_resnet50_fpn", ""), ("ssd300_vgg16", "")],
)  # fmt: skip
def test_fitted_anchors_reach_more_and_are_as_many(tmp_path: Path, name: str, backbone: str) -> None:
    data = labelled(coco(tmp_path / "data", {"train": 20, "val": 1}))
    own = detector_training.own_anchors(name, on_backbone=bool(backbone))
    found = fitted_anchors.fitted(data, name, backbone, 96)
    assert [len(level) for level in found.sizes] == [len(level) for level in own.sizes]
    assert [len(level) for level in found.aspect_ratios] == [len(level) for level in own.aspect_ratios]
    assert len(found.scales) == len(own.scales)
    assert list(found.recall) > list(found.default_recall)
    assert found.recall[1] > 0.9
    assert DetectorAnchors.of(found.record()) == found


def test_default_boxes_are_those_of_torchvision() -> None:
    made = DefaultBoxes(scales=(0.1, 0.3, 0.8), aspect_ratios=((2.0,), (2.0, 3.0)))
    generator: Any = DefaultBoxGenerator([[2.0], [2.0, 3.0]], scales=[0.1, 0.3, 0.8])
    theirs = torch.cat([pairs.clamp(0, 1) for pairs in generator._wh_pairs])
    assert np.allclose(made.shapes, theirs.numpy())
    random = np.random.default_rng(0)
    boxes = random.uniform(0.02, 0.1, (300, 1)) * [1.0, 3.0]
    found = default_boxes.fitted(boxes, made)
    assert anchors.best_overlaps(boxes, found.shapes).mean() > anchors.best_overlaps(boxes, made.shapes).mean() + 0.2
    assert default_boxes.fitted(boxes[::-1], made) == found
    assert list(found.scales) == sorted(found.scales)


def test_layers_for_another_number_of_anchors_are_told() -> None:
    head, conv = "rpn.head.bbox_pred.weight", "rpn.head.conv.0.0.weight"
    expected = {head: torch.zeros(12, 4), conv: torch.zeros(4, 4)}
    found = anchor_shapes.fitting({head: torch.ones(24, 4), conv: torch.ones(8, 4)}, expected)
    assert list(found) == [conv]  # which fits nowhere, and is said to
    assert list(anchor_shapes.fitting({head: torch.ones(12, 4)}, expected)) == [head]


@pytest.mark.faults(minutes=1)
def test_weights_of_another_number_of_anchors_begin_anew(tmp_path: Path) -> None:
    name, file = "fasterrcnn_mobilenet_v3_large_320_fpn", tmp_path / "other.safetensors"
    own = detector_training.own_anchors(name, on_backbone=False)
    made: Any = detector_training.detector(name, weights="random", labels=CLASSES, side=96, seed=5)
    tensors = dict(made.module.detector.state_dict())
    for key, rows in (("rpn.head.cls_logits", 2), ("rpn.head.bbox_pred", 8)):
        for part in ("weight", "bias"):
            tensors[f"{key}.{part}"] = tensors[f"{key}.{part}"][:rows].clone()
    save_file(tensors, file)
    with pytest.raises(WrongUse):
        detector_training.detector(name, weights=str(file), labels=CLASSES, side=96)
    found: Any = detector_training.detector(name, weights=str(file), labels=CLASSES, side=96, anchors=own)
    begun = found.module.detector.state_dict()
    assert begun["rpn.head.cls_logits.weight"].shape[0] == 15
    assert torch.equal(begun["rpn.head.conv.0.0.weight"], tensors["rpn.head.conv.0.0.weight"])


def test_what_has_no_anchors_or_no_boxes_is_refused(tmp_path: Path) -> None:
    data = coco(tmp_path / "data", {"train": 3, "val": 1})
    with pytest.raises(WrongUse, match="fcos_resnet50_fpn has no anchors: leave out --anchors"):
        fitted_anchors.fitted(labelled(data), "fcos_resnet50_fpn", "", 96)
    with pytest.raises(WrongUse, match="needs 15 boxes or more"):
        fitted_anchors.fitted(labelled(data), "fasterrcnn_mobilenet_v3_large_320_fpn", "", 96)
    with pytest.raises(WrongUse, match="--anchors is not for --kind instance"):
        cvjobs.train(data, tmp_path / "run", task="segment", anchors="auto")


@pytest.mark.slow
def test_a_run_keeps_its_anchors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, run = coco(tmp_path / "data", {"train": 12, "val": 3}), tmp_path / "run"
    options: dict[str, Any] = {
        "task": "detect", "model": "ssdlite320_mobilenet_v3_large", "weights": "random", "img_size": "96", "epochs": 1,
        "batch_size": 4, "recipe": "quick",
    }  # fmt: skip
    cvjobs.train(data, run, **options, anchors="auto")
    assert "of the boxes can have an IoU of 0.5 with one" in capfd.readouterr().err
    page = (run / "report.html").read_text()
    assert "anchors reach" in page
    about = training_run.about(run / "model.safetensors")
    given = DetectorAnchors.of(about["anchors"])
    assert given is not None
    own = detector_training.own_anchors(options["model"], on_backbone=False)
    assert given.scales != own.scales
    opened: Any = training_run.opened(str(run)).trainable.module
    assert tuple(opened.detector.anchor_generator.scales) == given.scales
    detector: Any = registry.detector(str(run))
    assert tuple(detector.module.anchor_generator.scales) == given.scales
    file: Any = registry.detector(options["model"], weights=str(run / "model.safetensors"), labels=CLASSES)
    assert tuple(file.module.anchor_generator.scales) == given.scales
    before = predecessor(str(run))
    assert before is not None
    assert before.anchors == given


@pytest.mark.faults(minutes=1)
def test_what_begins_with_a_run_has_its_anchors(tmp_path: Path) -> None:
    data, runs = coco(tmp_path / "data", {"train": 12, "val": 3}), [tmp_path / "run", tmp_path / "nearer"]
    options: dict[str, Any] = {"task": "detect", "img_size": "96", "epochs": 1, "batch_size": 4, "recipe": "quick"}
    own_model: dict[str, Any] = {**options, "model": "ssdlite320_mobilenet_v3_large", "weights": "random"}
    cvjobs.train(data, runs[0], **own_model, anchors="auto")
    assert cvjobs.train(data, runs[0], **own_model, anchors="auto").up_to_date
    with pytest.raises(WrongUse, match="was begun with anchors auto, not default"):
        cvjobs.train(data, runs[0], **own_model)
    cvjobs.train(data, runs[1], **options, weights=str(runs[0]))
    own, given = (training_run.about(run / "model.safetensors")["anchors"] for run in runs)
    assert own == given
