"""`cvjobs train --task segment`: what it learns, what it leaves, and that a kill costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import masked
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks.segmenters_to_train import trainable_segmenter
from cvjobs.storage.store import open_store
from cvjobs.training.data.mask_store import StoredMasks
from cvjobs.training.recipe import padded_crops, pixel_losses
from cvjobs.training.recipe import recipe as recipe_recipe
from cvjobs.training.recipe.whole_crops import PictureBoxes

OPTIONS: dict[str, Any] = {
    "task": "segment",
    "model": "torchvision/lraspp+shufflenet_v2_x0_5",
    "weights": "random",
    "img_size": "48",
    "batch_size": 4,
    "epochs": 2,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked.folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    place = tmp_path_factory.mktemp("runs") / "run"
    cvjobs.train(images, place, **OPTIONS)
    return place


@pytest.mark.faults(minutes=1)
def test_class_weights_are_learnt_by(run: Path, images: Path, tmp_path: Path) -> None:
    """The first epoch's loss is another, also that of validation; the run is begun anew without them."""
    weighted = tmp_path / "weighted"
    cvjobs.train(images, weighted, **OPTIONS, class_weights="inverse")
    plain, other = (pq.read_table(place / "history.parquet").to_pylist()[0] for place in (run, weighted))
    assert other["train_loss"] != pytest.approx(plain["train_loss"], rel=1e-3)
    assert other["val_loss"] != pytest.approx(plain["val_loss"], rel=1e-3)


@pytest.mark.slow
class TestRun:
    """A run that has ended."""

    def test_the_run_segments_as_it_was_validated(self, run: Path, images: Path, tmp_path: Path) -> None:
        ended = cvjobs.segment(images / "val" / "images", tmp_path / "out", model=str(run))
        assert ended.ok == 4
        found = cvjobs.eval(tmp_path / "out", images / "val" / "masks")
        history = pq.read_table(run / "history.parquet").to_pylist()
        assert found.metrics["mIoU"] == pytest.approx(max(row["metric"] for row in history), abs=1e-9)

    def test_pixels_of_the_masks_to_train_with_are_counted(self, run: Path, images: Path) -> None:
        stored = StoredMasks(open_store(str(run)))
        paths = [f"train/images/{file.name}" for file in sorted((images / "train" / "images").iterdir())]
        found = [stored.to_train(path) for path in paths]
        counts = stored.pixels(3)
        assert counts == [sum(int((mask == number).sum()) for mask in found) for number in range(3)]
        assert min(counts) > 0
        assert sum(counts) < sum(mask.size for mask in found)  # void is left out

    def test_its_classes_are_in_the_model_and_each_image_is_a_row(self, run: Path) -> None:
        rows = pq.read_table(run / "segmentation.parquet").to_pylist()
        assert sorted(row["path"] for row in rows) == [f"val/images/{number}.png" for number in range(4)]
        pixels = masked.SIZE[0] * masked.SIZE[1] - masked.SIZE[1]  # the first row is void
        assert [sum(row["truth"]) for row in rows] == [pixels] * 4

    def test_the_page_shows_masks_over_samples_and_each_class(self, run: Path) -> None:
        page = (run / "report.html").read_text()
        assert all(said in page for said in ("class 2", "Worst images", 'alt="truth"'))

    def test_it_has_nothing_more_to_do(self, run: Path, images: Path) -> None:
        assert cvjobs.train(images, run, **OPTIONS).up_to_date

    def test_other_masks_are_refused(self, run: Path, images: Path) -> None:
        with pytest.raises(WrongUse, match="was begun with other classes"):
            cvjobs.train(images, run, **OPTIONS, void="none")

    def test_only_segment_takes_it(self, run: Path, images: Path, tmp_path: Path) -> None:
        with pytest.raises(WrongUse, match="is a segmenter"):
            cvjobs.classify(images / "val" / "images", tmp_path / "labels", model=str(run))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aa": "randaugment"}, "--aa does not go with the masks of --task segment"),
        ({"scale": "0.5:1"}, "--scale does not go with the masks of --task segment: take --scale-jitter"),
        ({"loss": "bce"}, "--loss bce is none of --task segment"),
        ({"model": "timm/resnet18"}, "timm"),
        ({"backbone": "vit_b_16"}, "has no feature maps"),
    ],
)
def test_what_does_not_fit_is_a_sentence(images: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        cvjobs.train(images, tmp_path / "run", **{**OPTIONS, **options})
    assert not (tmp_path / "run" / "config.json").exists()


class TestCrops:
    """Crops at a random scale, with masks that follow their images."""

    def test_masks_are_cropped_as_their_images(self) -> None:
        random = np.random.default_rng(0)
        mask = random.integers(0, 3, (4, 5)).astype(np.int16).repeat(40, 0).repeat(40, 1)
        picture = torch.from_numpy((mask[..., None] * 100).astype(np.uint8).repeat(3, 2))
        draws = torch.rand(32, 22, generator=torch.Generator().manual_seed(1))
        flips = torch.rand(32, 2, generator=torch.Generator().manual_seed(2))
        recipe = recipe_recipe.named("segment", masks=True, vflip=0.5)
        sizes = torch.tensor([160] * 32), torch.tensor([200] * 32)
        boxes = padded_crops.padded_boxes(recipe, draws, flips, *sizes, 64)
        made = padded_crops.crop_padded([picture] * 32, boxes, 64)[:, 0]
        truth = padded_crops.crop_masks([mask] * 32, boxes, 64)
        beyond = truth == padded_crops.VOID
        assert 0 < int(beyond.sum()) < beyond.numel()
        assert int(made[beyond].max()) == 0
        near = (made[~beyond].long() - truth[~beyond].long() * 100).abs() <= 50  # bilinear is off at edges alone
        assert float(near.float().mean()) > 0.97

    @pytest.mark.parametrize(("size", "side"), [(24, 30), (32, 32)])
    def test_scale_1_is_what_validation_sees(self, size: int, side: int) -> None:
        recipe = recipe_recipe.named("segment", masks=True, scale_jitter=(1.0, 1.0), hflip=0.0)
        boxes = padded_crops.padded_boxes(
            recipe, torch.rand(1, 22), torch.rand(1, 2), torch.tensor([30]), torch.tensor([50]), size
        )
        top, bottom, left, right = boxes.edges[0].tolist()
        assert (bottom - top, right - left) == (side, side)

    def test_a_box_around_a_picture_is_black_and_void_beyond(self) -> None:
        boxes = PictureBoxes(
            edges=torch.tensor([[-2, 6, 0, 8]]), mirrored=torch.tensor([True]), upturned=torch.tensor([False])
        )
        truth = padded_crops.crop_masks([np.ones((4, 4), np.int16)], boxes, 8)
        wanted = np.full((8, 8), -1)
        wanted[2:6, 4:] = 1
        assert truth[0].tolist() == wanted.tolist()


class TestLosses:
    """Losses of pixels."""

    @pytest.mark.parametrize("model", ["torchvision/fcn_resnet50", "torchvision/lraspp_mobilenet_v3_large"])
    def test_loss_and_gradients_are_those_of_torchvisions_reference(self, model: str) -> None:
        module = trainable_segmenter(model, weights="random", classes=4, side=64).module
        module.train()
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        targets = torch.randint(-1, 4, (2, 64, 64), generator=torch.Generator().manual_seed(1))
        recipe = recipe_recipe.named("segment", masks=True)

        def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
            module.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            return [weight.grad.clone() for weight in module.parameters() if weight.grad is not None]

        def reference() -> torch.Tensor:  # references/segmentation/train.py
            part: Any = module
            features = part.backbone(images)
            outputs = {"out": part.classifier(features if "low" in features else features["out"])}
            if part.aux_classifier is not None:
                outputs["aux"] = part.aux_classifier(features["aux"])
            full = [F.interpolate(one, (64, 64), mode="bilinear", align_corners=False) for one in outputs.values()]
            losses = [F.cross_entropy(one, targets, ignore_index=padded_crops.VOID) for one in full]
            return losses[0] if len(losses) == 1 else losses[0] + 0.5 * losses[1]

        for each in module.modules():
            if isinstance(each, torch.nn.Dropout):
                each.eval()
        wanted, own = reference(), pixel_losses.of_heads(recipe, module(images), targets)
        assert own.item() == pytest.approx(wanted.item(), abs=1e-5)
        for one, other in zip(gradients(own), gradients(reference()), strict=True):
            assert torch.allclose(one, other, atol=1e-5)

    @pytest.mark.parametrize("loss", pixel_losses.KINDS)
    def test_what_is_right_costs_little_and_void_nothing(self, loss: str) -> None:
        recipe = recipe_recipe.named("segment", masks=True, loss=loss)
        targets = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
        sure = 20 * F.one_hot(targets, 3).permute(0, 3, 1, 2).float()
        assert float(pixel_losses.of_pixels(recipe, sure, targets)) < 0.01
        assert float(pixel_losses.of_pixels(recipe, -sure, targets)) > 0.5
        nothing = torch.full_like(targets, padded_crops.VOID)
        assert float(pixel_losses.of_pixels(recipe, sure, nothing)) in (0.0, 1.0)
        spoilt = sure.clone().index_fill_(2, torch.tensor([0]), 7.0)
        partly = targets.clone()
        partly[:, 0] = padded_crops.VOID
        assert float(pixel_losses.of_pixels(recipe, spoilt, partly)) < 0.01

    def test_lovasz_is_the_jaccard_loss_of_hard_predictions(self) -> None:
        targets = torch.tensor([[[0, 0, 1, 1]]])
        said = torch.tensor([[[0, 1, 1, 1]]])
        logits = 50 * F.one_hot(said, 2).permute(0, 3, 1, 2).float()
        # IoU of class 0 is 1/2, of class 1 it is 2/3.
        assert float(pixel_losses.lovasz(logits, targets)) == pytest.approx(1 - (1 / 2 + 2 / 3) / 2, abs=1e-5)
