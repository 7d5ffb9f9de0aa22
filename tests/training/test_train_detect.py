"""Training detectors: data of each format, the losses of torchvision, runs that are models, resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from block_pictures import CLASSES, COLOURS, coco, picture
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks import detector_training, registry
from cvjobs.networks import weights as torch_weights
from cvjobs.networks.detection.trainee import PlacedTransform
from cvjobs.sources.listing import list_source
from cvjobs.training.data import box_labels
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.recipe.canvases import CanvasAugment
from cvjobs.training.recipe.recipe import Recipe


def labelled(data: Path | str) -> LabelledImages:
    return box_labels.label(str(data), list_source(box_labels.images_of(str(data)), links=True), 0.3)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn",
                                  "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn"])  # fmt: skip
def test_losses_and_gradients_are_those_of_torchvision(name: str) -> None:
    """The same batch through the detector as torchvision has it, which resizes and normalises by itself."""
    side = 128
    trained = detector_training.detector(name, weights="random", labels=CLASSES, side=side)
    module: Any = trained.module.train()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (trained.transform.mean, trained.transform.std))
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[10, 10, 70, 60.0], [0, 0, 0, 0]], [[20, 30, 90, 100], [64, 5, 120, 40.0]]])
    labels = torch.tensor([[0, -1], [1, 0]])
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.0  # or the second pass has other statistics
    torch.manual_seed(1)
    ours = module((pixels - mean) / std, boxes, labels)
    ours.sum().backward()
    gradients = {key: parameter.grad.clone() for key, parameter in module.named_parameters()}

    module.zero_grad()
    plain = module.detector
    assert isinstance(plain.transform, PlacedTransform)
    fixed = (side, side) if plain.transform.fixed_size else None
    plain.transform = GeneralizedRCNNTransform(
        side, side, plain.transform.image_mean, plain.transform.image_std, fixed_size=fixed
    )
    plain.transform.torch_choice = lambda sides: sides[0]  # which draws a random number for its one choice
    targets = [
        {"boxes": boxes[0, :1], "labels": torch.tensor([1])},
        {"boxes": boxes[1], "labels": torch.tensor([2, 1])},
    ]
    torch.manual_seed(1)
    theirs = plain(list(pixels), targets)
    assert ours.tolist() == pytest.approx([loss.item() for loss in theirs.values()], abs=1e-5, rel=1e-5)
    sum(theirs.values()).backward()
    for key, parameter in module.named_parameters():
        assert torch.allclose(parameter.grad, gradients[key], atol=1e-5, rtol=1e-3), key


def test_boxes_stay_on_their_objects() -> None:
    """Whatever the scale, crop and flips: where a box is, there is the colour of its class, and around it is not."""
    random = np.random.default_rng(3)
    recipe = Recipe(epochs=1, hflip=0.5, vflip=0.5, scale_jitter=(0.5, 2.0))
    augment = CanvasAugment(recipe, 96, (0.0,) * 3, (1 / 255,) * 3, torch.device("cpu"))
    seen = 0
    for number in range(40):
        image, objects = picture(random)
        pixels = torch.from_numpy(np.array(image))
        drawn = augment.drawn(1, torch.Generator().manual_seed(number))
        settled = augment.settled(drawn, torch.tensor([72]), torch.tensor([96]))
        canvases = augment([pixels], settled.changes(slice(None)))
        shares = torch.tensor([[[x0 / 96, y0 / 72, x1 / 96, y1 / 72] for _, (x0, y0, x1, y1) in objects]])
        boxes, labels = canvases.moved(shares, torch.tensor([[label for label, _ in objects]]))
        for (x0, y0, x1, y1), label in zip(boxes[0].tolist(), labels[0].tolist(), strict=True):
            if label < 0:
                continue
            seen += 1
            assert 0 <= x0 < x1 <= 96
            assert 0 <= y0 < y1 <= 96
            inner = canvases.images[0, :, round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2]
            assert inner.numel()
            assert (inner - torch.tensor(COLOURS[label]).view(3, 1, 1)).abs().max() < 2
            outer = canvases.images[0, :, max(round(y0) - 2, 0) : round(y1) + 2, max(round(x0) - 2, 0) : round(x1) + 2]
            assert (outer - torch.tensor(COLOURS[label]).view(3, 1, 1)).abs().max() > 10 or outer.shape == inner.shape
    assert seen > 30


def test_canvases_end_where_their_pictures_do() -> None:
    square, trimmed = (
        CanvasAugment(Recipe(epochs=1), 96, (0.0,) * 3, (1.0,) * 3, torch.device("cpu"), step) for step in (0, 32)
    )
    pictures = [torch.full((40, 96, 3), 255, dtype=torch.uint8), torch.full((66, 96, 3), 255, dtype=torch.uint8)]
    drawn = square.drawn(2, torch.Generator().manual_seed(0))
    changes = square.settled(drawn, torch.tensor([40, 66]), torch.tensor([96, 96])).changes(slice(None))
    whole, ended = square(pictures, changes), trimmed(pictures, changes)
    assert (whole.images.shape, ended.images.shape) == ((2, 3, 96, 96), (2, 3, 96, 96))
    pictures[1], changes = pictures[0], square.settled(drawn, 40, 96).changes(slice(None))
    whole, ended = square(pictures, changes), trimmed(pictures, changes)
    assert ended.images.shape == (2, 3, 64, 96)
    assert torch.equal(ended.images, whole.images[:, :, :64])
    assert whole.images[:, :, 64:].abs().max() == 0
    assert torch.equal(ended.places, whole.places)


def test_each_format_has_the_same_objects(tmp_path: Path) -> None:
    expected = labelled(coco(tmp_path / "coco", {"train": 4, "val": 2}))
    train = expected.splits["train"].objects
    assert train is not None
    assert expected.classes == CLASSES
    assert {name: len(split) for name, split in expected.splits.items()} == {"train": 4, "val": 2}

    voc, yolo, table = tmp_path / "voc", tmp_path / "yolo", tmp_path / "table"
    table.mkdir()
    rows = ["path,label,xmin,ymin,xmax,ymax,split"]
    for split in ("train", "val"):
        whole = json.loads((tmp_path / f"coco/{split}.json").read_text())
        for place in (voc / "JPEGImages", voc / "Annotations", yolo / split / "images", yolo / split / "labels"):
            place.mkdir(parents=True, exist_ok=True)
        (voc / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (voc / f"ImageSets/Main/{split}.txt").write_text("\n".join(i["file_name"][:-4] for i in whole["images"]))
        for image in whole["images"]:
            pixels = (tmp_path / "coco" / split / image["file_name"]).read_bytes()
            for place in (voc / "JPEGImages", yolo / split / "images", table):
                (place / image["file_name"]).write_bytes(pixels)
            stem, objects, lines = image["file_name"][:-4], "", ""
            for one in (one for one in whole["annotations"] if one["image_id"] == image["id"]):
                x, y, w, h = one["bbox"]
                name = CLASSES[one["category_id"] - 1]
                corners = "".join(
                    f"<{side}>{value}</{side}>"
                    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h), strict=True)
                )
                objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
                lines += f"{one['category_id'] - 1} {(x + w / 2) / 96} {(y + h / 2) / 72} {w / 96} {h / 72}\n"
                rows.append(f"{image['file_name']},{name},{x},{y},{x + w},{y + h},{split}")
            size = "<size><width>96</width><height>72</height></size>"
            (voc / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
            (yolo / split / f"labels/{stem}.txt").write_text(lines)
    (yolo / "data.yaml").write_text(f"names: {list(CLASSES)}\n")
    (table / "boxes.csv").write_text("\n".join(rows))
    for data in (voc, yolo, table / "boxes.csv"):
        found = labelled(data)
        assert found.classes == CLASSES, data
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 4, "val": 2}, data
        objects_ = found.splits["train"].objects
        assert objects_ is not None
        order, other = (
            np.argsort([path.rpartition("/")[2] for path in split.rows["path"].to_pylist()])
            for split in (expected.splits["train"], found.splits["train"])
        )
        boxes, labels = train.padded(order)
        those, named = objects_.padded(other)
        assert np.allclose(boxes, those, atol=1e-6)
        assert np.array_equal(labels, named)


def test_odd_objects_are_counted_and_bad_data_is_one_sentence(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"id": 91, "image_id": 0, "category_id": 1, "bbox": [5, 5, 0, 20], "area": 0, "iscrowd": 0},
        {"id": 92, "image_id": 0, "category_id": 1, "bbox": [200, 5, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 93, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 1},
    ]
    gone = [{"id": 50, "file_name": "gone.png", "width": 96, "height": 72}]
    found = labelled(coco(tmp_path / "odd", {"train": 3}, annotations=odd, images=gone) / "train.json")
    counts = {kind: own["count"] for kind, own in found.beside.items()}
    assert counts == {"missing": 1, "crowds": 1, "areas": 2}
    wrongs: tuple[dict[str, Any], ...] = (
        {"annotations": [{"id": 1, "image_id": 0, "category_id": 9, "bbox": [1, 1, 5, 5]}]},
        {"annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, float("nan"), 5, 5]}]},
        {"images": [{"id": 0, "file_name": "again.png", "width": 9, "height": 9}]},
    )
    for number, wrong in enumerate(wrongs):
        with pytest.raises(WrongUse):
            labelled(coco(tmp_path / f"bad{number}", {"train": 2}, **wrong))
    empty = coco(tmp_path / "empty", {"val": 2, "train": 0})
    with pytest.raises(WrongUse, match="no images to train on"):
        labelled(empty)
    yolo = tmp_path / "yolo"
    for place in ("images", "labels"):
        (yolo / place).mkdir(parents=True)
    (yolo / "data.yaml").write_text("names: [a, b, c, d]\n")
    Image.new("RGB", (32, 32)).save(yolo / "images/a.png")
    (yolo / "labels/a.txt").write_text("4 0.5 0.5 0.2 0.2\n")
    with pytest.raises(WrongUse, match="class 4"):
        labelled(yolo)


@pytest.mark.slow
def test_a_run_is_a_detector_that_finds_what_validation_found(tmp_path: Path) -> None:
    data, run = coco(tmp_path / "data", {"train": 6, "val": 3}), tmp_path / "run"
    options: dict[str, Any] = {
        "task": "detect", "model": "ssdlite320_mobilenet_v3_large", "weights": "random", "img_size": "96", "epochs": 1,
        "batch_size": 4, "recipe": "quick",
    }  # fmt: skip
    summary = cvjobs.train(data, run, **options)
    assert (summary.metric_name, summary.classes, summary.images) == ("AP", 2, {"train": 6, "val": 3})
    found = pq.read_table(run / "predictions.parquet").to_pylist()
    detector: Any = registry.detector(str(run))
    assert [category.name for category in detector.categories] == list(CLASSES)
    looking = detector.load("cpu", "fp32")
    for row in found:
        (again,) = looking([np.array(Image.open(data / row["path"]))])
        assert again.scores.tolist() == row["scores"]
        corners = np.array(row["boxes"])
        corners[:, 2:] += corners[:, :2]
        assert np.allclose(again.boxes, corners, atol=1e-4)
    page = (run / "report.html").read_text()
    assert "What it is trained on" in page
    assert "Classes" in page
    (epoch,) = pq.read_table(run / "history.parquet").to_pylist()
    assert epoch["val_loss_box"] + epoch["val_loss_class"] == pytest.approx(epoch["val_loss"])
    assert epoch["AP50"] >= epoch["metric"]
    begun = [
        detector_training.detector(options["model"], weights=str(run), labels=labels).module.state_dict()
        for labels in (CLASSES, ("disc", "cube"))
    ]
    trained = torch_weights.state(torch_weights.given(str(run)))
    other = [{key for key in trained if not torch.equal(trained[key], own[key])} for own in begun]
    assert other[0] == set()
    assert other[1]
    assert all("classification_head" in key for key in other[1])
    assert cvjobs.train(data, run, **options).up_to_date
    with pytest.raises(WrongUse, match="was begun with scale-jitter"):
        cvjobs.train(data, run, **options, scale_jitter="1:1")
    with pytest.raises(WrongUse, match="finds boxes and names no images"):
        registry.classifier(str(run))
    with pytest.raises(WrongUse, match="--cutmix is not for --task detect"):
        cvjobs.train(data, tmp_path / "other", **options, cutmix=0.2)
    with pytest.raises(WrongUse, match="goes on no other --backbone"):
        cvjobs.train(data, tmp_path / "other", **options, backbone="mobilenet_v2")


def test_a_backbone_has_maps_of_three_sizes() -> None:
    trained = detector_training.detector(
        "retinanet_resnet50_fpn", weights="random", labels=CLASSES, side=96, backbone="mobilenet_v2"
    )
    assert trained.transform.size == (96, 96)
    backbone: Any = trained.module.detector.backbone  # type: ignore[union-attr]
    shapes = [tuple(level.shape[1:]) for level in backbone(torch.zeros(1, 3, 96, 96)).values()]
    assert shapes == [(256, 12, 12), (256, 6, 6), (256, 3, 3), (256, 2, 2), (256, 1, 1)]
    with pytest.raises(WrongUse, match="cannot be a --backbone"):
        detector_training.detector(
            "fasterrcnn_resnet50_fpn", weights="random", labels=CLASSES, backbone="torchvision/vit_b_32"
        )
