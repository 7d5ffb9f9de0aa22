"""Training segmenters of objects: masks and their geometry, the losses of torchvision, copy-paste, runs as models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from blob_pictures import CLASSES, COLOURS, HIGH, WIDE, coco, mask_of, picture, yolo
from faster_coco_eval.core import mask as rles
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks import detector_training, registry
from cvjobs.networks.segmentation import outlines
from cvjobs.sources.listing import list_source
from cvjobs.training.data import box_labels, segment_kind
from cvjobs.training.data.instance_store import ImageMasks
from cvjobs.training.data.instance_truth import InstanceTruth
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.loop.instance_task import window
from cvjobs.training.recipe import copy_paste, packed_masks
from cvjobs.training.recipe.canvases import CanvasAugment
from cvjobs.training.recipe.copy_paste import CanvasObjects
from cvjobs.training.recipe.packed_masks import Window
from cvjobs.training.recipe.recipe import Recipe


def labelled(data: Path) -> LabelledImages:
    return box_labels.label(str(data), list_source(box_labels.images_of(str(data)), links=True), 0.3, masks=True)


def masks_of(found: LabelledImages) -> dict[str, list[Any]]:
    assert isinstance(found.truth, InstanceTruth)
    each = {path.rpartition("/")[2]: found.truth.image(path) for path in found.listing.images["path"].to_pylist()}
    return {name: [rles.decode(mask) for mask in own] for name, own in each.items()}


def square(top: int, left: int, side: int, size: int = 32) -> np.ndarray[Any, Any]:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def packed(*masks: np.ndarray[Any, Any]) -> CanvasObjects:
    made = np.packbits(np.stack(masks), axis=2, bitorder="little")
    return CanvasObjects(boxes=packed_masks.boxes(made), labels=np.arange(len(masks)), masks=made)


def test_losses_and_gradients_are_those_of_torchvision() -> None:
    """The same batch through the model as torchvision has it, which resizes and normalises by itself."""
    side = 64
    trained = detector_training.detector(
        "maskrcnn_resnet50_fpn", weights="random", labels=CLASSES, side=side, masks=True, backbone="resnet18"
    )
    module: Any = trained.module.train()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (trained.transform.mean, trained.transform.std))
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[5, 5, 35, 30.0], [0, 0, 0, 0]], [[10, 15, 45, 50], [32, 2, 60, 20.0]]])
    labels = torch.tensor([[0, -1], [1, 0]])
    masks = torch.zeros(3, side, side, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes[labels >= 0].int().tolist(), strict=True):
        mask[y0:y1, x0 : (x0 + x1) // 2] = 1
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.0  # or the second pass has other statistics
    torch.manual_seed(1)
    ours = module((pixels - mean) / std, boxes, labels, masks)
    assert dict(zip(module.parts, ours.tolist(), strict=True))["mask"] > 0
    ours.sum().backward()
    gradients = {key: parameter.grad.clone() for key, parameter in module.named_parameters()}

    module.zero_grad()
    plain = module.detector
    plain.transform = GeneralizedRCNNTransform(side, side, plain.transform.image_mean, plain.transform.image_std)
    plain.transform.torch_choice = lambda sides: sides[0]  # which draws a random number for its one choice
    targets = [
        {"boxes": boxes[0, :1], "labels": torch.tensor([1]), "masks": masks[:1]},
        {"boxes": boxes[1], "labels": torch.tensor([2, 1]), "masks": masks[1:]},
    ]
    torch.manual_seed(1)
    theirs = plain(list(pixels), targets)
    assert list(theirs)[2] == "loss_mask"
    assert ours.tolist() == pytest.approx([loss.item() for loss in theirs.values()], abs=1e-5, rel=1e-5)
    sum(theirs.values()).backward()
    for key, parameter in module.named_parameters():
        assert torch.allclose(parameter.grad, gradients[key], atol=1e-5, rtol=1e-3), key


def test_masks_move_with_the_pixels_of_their_pictures() -> None:
    """A picture drawn as its own mask: cropped, resized and turned as the pictures are, by numpy."""
    random = np.random.default_rng(0)
    for number in range(20):
        _, blobs = picture(random)
        masks = [mask_of(polygon) for _, polygon in blobs]
        texts = [rles.encode(np.asfortranarray(mask))["counts"] for mask in masks]
        top, left = (int(value) for value in random.integers(0, 20, 2))
        seen = Window(
            top=top, bottom=HIGH - 3, left=left, right=WIDE - 7, height=HIGH, width=WIDE, rows=30 + number,
            columns=50 - number, mirrored=bool(number % 2), upturned=number % 3 == 0,
        )  # fmt: skip
        found = packed_masks.unpacked(torch.from_numpy(packed_masks.placed(texts, (HIGH, WIDE), seen, 50)), 50, 50)
        for mask, made in zip(masks, found.numpy(), strict=True):
            part = mask[top : HIGH - 3, left : WIDE - 7]
            rows = ((np.arange(seen.rows) + 0.5) * part.shape[0] / seen.rows).astype(int)
            columns = ((np.arange(seen.columns) + 0.5) * part.shape[1] / seen.columns).astype(int)
            expected = part[rows[:, None], columns]
            expected = expected[:, ::-1] if seen.mirrored else expected
            expected = expected[::-1] if seen.upturned else expected
            assert np.array_equal(made[: seen.rows, : seen.columns], expected)
            assert not made[seen.rows :].any()
            assert not made[:, seen.columns :].any()


def test_masks_lie_on_the_colours_of_their_objects() -> None:
    """Whatever the scale, crop and flips: where a mask is, there is the colour of its class, and around it is not."""
    recipe = Recipe(epochs=1, hflip=0.5, vflip=0.5, scale_jitter=(0.5, 2.0))
    augment = CanvasAugment(recipe, 96, (0.0,) * 3, (1 / 255,) * 3, torch.device("cpu"))
    random, seen = np.random.default_rng(3), 0
    for number in range(30):
        image, blobs = picture(random)
        texts = [rles.encode(np.asfortranarray(mask_of(polygon)))["counts"] for _, polygon in blobs]
        drawn = augment.drawn(1, torch.Generator().manual_seed(number))
        changes = augment.settled(drawn, torch.tensor([HIGH]), torch.tensor([WIDE])).changes(slice(None))
        canvas = augment([torch.from_numpy(np.array(image))], changes).images[0]
        masks = packed_masks.placed(texts, (HIGH, WIDE), window(changes, 0), 96)
        for (label, _), mask in zip(blobs, packed_masks.unpacked(torch.from_numpy(masks), 96, 96).float(), strict=True):
            inner = -torch.nn.functional.max_pool2d(-mask[None], 5, 1, 2)[0] > 0
            outer = (torch.nn.functional.max_pool2d(mask[None], 5, 1, 2)[0] > 0) & (mask == 0)
            off = (canvas - torch.tensor(COLOURS[label]).view(3, 1, 1)).abs().amax(0)
            assert (off[inner] < 3).all()
            assert (off[outer] > 3).float().mean() > 0.5 or not outer.any()
            seen += int(inner.any())
    assert seen > 30


def test_masks_of_another_size_are_the_nearest_pixels() -> None:
    mask = mask_of(picture(np.random.default_rng(2))[1][0][1])
    one = ImageMasks(HIGH, WIDE, [rles.encode(np.asfortranarray(mask))["counts"]])
    (smaller,) = one.resized(31, 40).rles
    rows, columns = (((np.arange(to) + 0.5) * (of / to)).astype(int) for of, to in ((HIGH, 31), (WIDE, 40)))
    assert np.array_equal(rles.decode(smaller), mask[rows[:, None], columns])
    assert rles.area(one.resized(1, 1).rles[0]) in (0, 1)


def test_what_is_pasted_lies_above() -> None:
    """The first object is covered but for a stripe and keeps that, the second loses all but a corner and goes."""
    below, above = packed(square(0, 0, 10), square(10, 10, 20)), packed(square(0, 2, 31))
    pasted = copy_paste.paste([below, above], 1.0, torch.Generator().manual_seed(0))
    assert pasted.partners.tolist() == [1, 0]
    one = pasted.objects[0]
    assert one.labels.tolist() == [0, 0]
    assert one.boxes.tolist() == [[0, 0, 2, 10], [2, 0, 32, 31]]
    assert packed_masks.areas(one.masks).tolist() == [20, 930]
    assert np.array_equal(pasted.cover[0], above.masks[0])
    other = pasted.objects[1]  # into which one of the two is pasted, or both
    assert not (other.masks[0] & np.bitwise_or.reduce(other.masks[1:], 0)).any()
    nothing = copy_paste.paste([below, above], 0.0, torch.Generator().manual_seed(0))
    assert nothing.objects == [below, above]
    assert not nothing.cover.any()
    alone = copy_paste.paste([below], 1.0, torch.Generator().manual_seed(0))
    assert alone.objects == [below]


def test_each_format_has_the_same_masks(tmp_path: Path) -> None:
    data = coco(tmp_path / "polygons", {"train": 4, "val": 2})
    expected = masks_of(labelled(data))
    for place in (coco(tmp_path / "lengths", {"train": 4, "val": 2}, lengths=True), yolo(tmp_path / "yolo", data)):
        found = labelled(place)
        assert found.classes == CLASSES
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 4, "val": 2}
        own = masks_of(found)
        assert own.keys() == expected.keys()
        for name, masks in expected.items():
            assert len(masks) == len(own[name])
            assert all((one != other).mean() < 1e-3 for one, other in zip(masks, own[name], strict=True))


def test_odd_masks_are_counted_and_bad_data_is_one_sentence(tmp_path: Path) -> None:
    def one(number: int, outline: Any, **more: Any) -> dict[str, Any]:
        own = {"id": number, "image_id": 0, "category_id": 1, "bbox": [5, 5, 9, 9], "area": 81, "iscrowd": 0}
        return {**own, "segmentation": outline, **more}

    odd = [
        one(91, [[5, 5, 20, 20]]),  # two points
        one(92, [[200, 200, 220, 200, 220, 220]]),  # outside
        one(93, {"size": [HIGH, WIDE], "counts": [HIGH * WIDE]}),  # empty
        one(94, []),
        one(95, {"size": [HIGH, WIDE], "counts": [0, HIGH * WIDE]}, iscrowd=1),
        one(96, [[5, 5, 20, 20], [5, 5, 25, 5, 25, 25, 5, 25]]),  # one of them is a polygon
    ]
    found = labelled(coco(tmp_path / "odd", {"train": 3, "val": 1}, annotations=odd) / "train.json")
    counts = {kind: own["count"] for kind, own in found.beside.items()}
    assert counts == {"masks": 4, "crowds": 1}
    for number, (outline, words) in enumerate(
        [
            ([[5, 5, float("nan"), 20, 20, 30]], "makes no sense"),
            ({"size": [9, 9], "counts": [81]}, "9 rows and 9 columns"),
            ({"size": [HIGH, WIDE], "counts": "#!"}, "segmentation"),
            (7, "segmentation"),
        ]
    ):
        with pytest.raises(WrongUse, match=words):
            labelled(coco(tmp_path / f"bad{number}", {"train": 2}, annotations=[one(9, outline)]))
    boxes = coco(tmp_path / "boxes", {"train": 2})
    whole = json.loads((boxes / "train.json").read_text())
    whole["annotations"] = [{**own, "segmentation": []} for own in whole["annotations"]]
    (boxes / "train.json").write_text(json.dumps(whole))
    with pytest.raises(WrongUse, match="has no masks of objects"):
        labelled(boxes)


def test_the_kind_follows_from_the_model_and_the_data(tmp_path: Path) -> None:
    data = coco(tmp_path / "data", {"train": 1})
    assert segment_kind.of(str(data), None, None) == "instance"
    assert segment_kind.of(str(data / "train.json"), None, None) == "instance"
    assert segment_kind.of(str(yolo(tmp_path / "yolo", data)), None, None) == "instance"
    assert segment_kind.of(str(data), "fcn_resnet50", None) == "semantic"
    assert segment_kind.of(str(data), None, "segment") == "semantic"
    assert segment_kind.of(str(tmp_path), "torchvision/maskrcnn_resnet50_fpn_v2", None) == "instance"
    (data / "masks").mkdir()
    assert segment_kind.of(str(data), None, None) == "semantic"


@pytest.mark.faults(minutes=1)
def test_a_run_is_a_segmenter_that_finds_what_validation_found(tmp_path: Path) -> None:
    data, run = coco(tmp_path / "data", {"train": 2, "val": 1}), tmp_path / "run"
    options: dict[str, Any] = {
        "task": "segment", "backbone": "mobilenet_v2", "weights": "random", "img_size": "64", "epochs": 1,
        "batch_size": 2, "recipe": "quick", "copy_paste": 0.5,
    }  # fmt: skip
    summary = cvjobs.train(data, run, **options)
    assert (summary.metric_name, summary.classes, summary.images) == ("mask_AP", 2, {"train": 2, "val": 1})
    (epoch,) = pq.read_table(run / "history.parquet").to_pylist()
    parts = ("class", "box", "mask", "objectness", "proposal")
    assert sum(epoch[f"val_loss_{name}"] for name in parts) == pytest.approx(epoch["val_loss"])
    assert {"mask_AP50", "box_AP", "box_AP50"} <= epoch.keys()
    segmenter: Any = registry.segmenter(str(run))
    looking = segmenter.load("cpu", "fp32")
    rows = pq.read_table(run / "instances.parquet").to_pylist()
    # Together, as validation looked at them: of untrained proposals the last bit decides which are kept.
    for row, again in zip(rows, looking([np.array(Image.open(data / row["path"])) for row in rows]), strict=True):
        assert (row["height"], row["width"]) == (HIGH, WIDE)
        assert again.scores.tolist() == row["scores"]
        assert outlines.of_boxes(again.masks, again.boxes, (HIGH, WIDE)) == row["masks"]
    page = (run / "report.html").read_text()
    assert "masks found" in page
    assert cvjobs.train(data, run, **options).up_to_date
    with pytest.raises(WrongUse, match="was begun with copy-paste"):
        cvjobs.train(data, run, **{**options, "copy_paste": 0.1})
    with pytest.raises(WrongUse, match="--mixup is not for --kind instance"):
        cvjobs.train(data, tmp_path / "other", **options, mixup=0.2)
    with pytest.raises(WrongUse, match="gives no masks of objects"):
        cvjobs.train(data, tmp_path / "other", **options, kind="instance", model="fcn_resnet50")
    with pytest.raises(WrongUse, match="--kind is for --task segment"):
        cvjobs.train(data, tmp_path / "other", task="detect", kind="instance")
    with pytest.raises(WrongUse, match="--copy-paste is not for --task detect"):
        cvjobs.train(data, tmp_path / "other", task="detect", copy_paste=0.5)
