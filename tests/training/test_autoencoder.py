"""`cvjobs train --task autoencoder`: any images to a run that makes vectors of images, and pictures of vectors."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from training import CLASSES, SIDE, folder, loop, plan, reconstructing

import cvjobs
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.networks import registry
from cvjobs.sources.listing import list_source
from cvjobs.training.data import labels
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.recipe import recipe, reconstruction
from cvjobs.training.recipe.augment import Changes, generator
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {"task": "autoencoder", "dim": 6, "img_size": str(SIDE), "batch_size": 16, "epochs": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images in folders that say nothing, and one that is none."""
    root = folder(tmp_path_factory.mktemp("images") / "all", 20)
    (root / "red" / "bad.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A finished run."""
    summary: TrainingSummary = cvjobs.train(images, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    return summary


@pytest.mark.parametrize("side", [4, 7, 28, 33, 64])
def test_images_of_any_side_come_back_at_their_size(side: int) -> None:
    trainable = registry.autoencoder("small/autoencoder", dim=5, side=side)
    batch = torch.rand(2, 3, side, side)
    made = trainable.module.eval()(batch).detach()
    assert made.shape == batch.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert trainable.pooled(trainable.module)(batch).shape == (2, 5)
    assert trainable.transform.size == (side, side)


def test_any_images_will_do(trained: TrainingSummary) -> None:
    assert trained.classes == 0
    assert trained.failed == 1
    assert trained.unlabelled == 0
    assert sum(trained.images.values()) == 60
    assert trained.metric_name == "PSNR"
    assert " dB in epoch" in str(trained)
    scores = pd.read_parquet(Path(trained.out) / "reconstructions.parquet")
    assert len(scores) == trained.images["val"]
    assert scores["psnr"].mean() == pytest.approx(trained.metric, abs=1e-4)
    assert (-10 * np.log10(scores["mse"])).tolist() == pytest.approx(scores["psnr"].tolist(), abs=1e-3)
    assert scores["loss"].tolist() == pytest.approx(scores["mse"].tolist())
    history = pd.read_parquet(Path(trained.out) / "history.parquet")
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_page_shows_originals_beside_reconstructions(trained: TrainingSummary) -> None:
    page = (Path(trained.out) / "report.html").read_text()
    for text in ("What it makes of images", 'alt="original"', 'alt="reconstruction"', "that it is worst at", "bad.png"):
        assert text in page
    assert 'alt="noisy"' not in page
    assert "calibration" not in page


def test_a_run_makes_vectors_and_names_nothing(trained: TrainingSummary, images: Path, tmp_path: Path) -> None:
    cvjobs.embed(images, tmp_path / "vectors", model=trained.out)
    found = cvjobs.open(tmp_path / "vectors").to_pandas()
    assert {len(vector) for vector in found["embedding"]} == {6}
    assert len(found) == 60
    with pytest.raises(WrongUse, match=r"knows no classes: give it to `cvjobs embed`"):
        cvjobs.classify(images, tmp_path / "labels", model=trained.out)


def test_vectors_are_what_the_pictures_are_painted_from(trained: TrainingSummary, images: Path) -> None:
    pixels = np.stack([np.asarray(_opened(file)) for file in sorted(images.glob("blue/*.png"))])
    vectors = torch.from_numpy(registry.embedder(trained.out).load("cpu", "fp32")(pixels))
    about = registry.autoencoder("small/autoencoder", dim=6, side=SIDE)
    from safetensors.torch import load_file

    about.module.load_state_dict(load_file(Path(trained.out) / "model.safetensors"))
    module: Any = about.module.eval()
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        assert torch.allclose(module.decoded(vectors), module(batch), atol=1e-4)


def _opened(file: Path) -> Any:
    from PIL import Image

    with Image.open(file) as image:
        return image.convert("RGB").copy()


def test_the_same_command_is_up_to_date_and_another_dim_is_refused(trained: TrainingSummary, images: Path) -> None:
    assert cvjobs.train(images, trained.out, **OPTIONS).up_to_date
    with pytest.raises(WrongUse, match="begun with dim 6, not 7"):
        cvjobs.train(images, trained.out, **{**OPTIONS, "dim": 7})
    with pytest.raises(WrongUse, match="begun with task autoencoder, not classify"):
        cvjobs.train(images, trained.out, model="small/cnn", img_size=str(SIDE))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixup": 0.2}, "--mixup is about classes"),
        ({"sampling": "balanced"}, "--sampling is about classes"),
        ({"loss": "focal"}, "--loss focal is about classes: use mse, l1 or ssim"),
        ({"loss": "ssim"}, "at least 11"),
        ({"img_size": "8:16"}, "images of one size"),
        ({"model": "small/cnn"}, "of another task"),
        ({"model": "torchvision/resnet18"}, "--task autoencoder"),
        ({"weights": "own.safetensors"}, "There is no weights file .*own.safetensors"),
    ],
)
def test_what_an_autoencoder_cannot_have(images: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        cvjobs.train(images, tmp_path / "run", **{**OPTIONS, **options})
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "said"), [({"denoise": 0.1}, "--denoise is for"), ({"loss": "l1"}, "--loss l1 is for --task auto")]
)
def test_what_a_classifier_cannot_have(images: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        cvjobs.train(images, tmp_path / "run", model="small/cnn", img_size=str(SIDE), **options)
    assert not (tmp_path / "run" / "config.json").exists()


class TestNoise:
    """`--denoise`."""

    def test_the_network_is_given_noise_and_is_to_paint_without(self, tmp_path: Path) -> None:
        task = task_registry.of(reconstructing(plan(tmp_path, "run", denoise=0.1)))
        images = torch.full((4, 3, SIDE, SIDE), 0.5)
        nothing = Changes(policy=None, crop=torch.zeros(4, 2, 3), shares=None, erased=None)
        inputs, targets = task.prepared(images, task.drawn(np.arange(4), SIDE, generator(0), nothing))
        assert torch.equal(targets, images)
        assert float((inputs - images).std()) == pytest.approx(0.1, abs=0.02)

    def test_validation_has_the_same_noise_every_time_whoever_computes_it(self, tmp_path: Path) -> None:
        plan_ = reconstructing(plan(tmp_path, "run", denoise=0.2))
        task = task_registry.of(plan_)
        module = plan_.subject.trainable().module
        pictures = Pictures(plan_.val.decoded)
        team = Alone(torch.device("cpu"))
        whole = task.scores(module, pictures, plan_.val, team)
        assert np.array_equal(task.scores(module, pictures, plan_.val, team).each, whole.each)
        clean = task_registry.of(reconstructing(plan(tmp_path, "run"))).scores(module, pictures, plan_.val, team)
        assert not np.array_equal(clean.each, whole.each)

    def test_it_learns_to_remove_it(self, tmp_path: Path) -> None:
        plan_ = reconstructing(plan(tmp_path, "run", denoise=0.3, epochs=25, lr=3e-3))
        loop(plan_).run()
        table = pd.read_parquet(Path(plan_.run) / "reconstructions.parquet")
        noise = 0.3**2 * 0.75  # what is left of its variance by clipping to the range, at least
        assert table["mse"].mean() < noise / 2


@pytest.mark.parametrize("kind", ["mse", "l1", "ssim"])
def test_each_loss_is_least_for_the_image_itself_and_grows_with_the_difference(kind: recipe.Loss) -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 16, generator=random)
    noise = torch.randn(image.shape, generator=random)
    same, near, far = (reconstruction.losses(kind, image + strength * noise, image) for strength in (0.0, 0.05, 0.2))
    assert same == pytest.approx(torch.zeros(2), abs=1e-6)
    assert bool((near > same).all())
    assert bool((far > near).all())


def test_losses_by_hand() -> None:
    made, wanted = torch.full((1, 3, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.25)
    assert float(reconstruction.losses("mse", made, wanted)) == pytest.approx(0.25)
    assert float(reconstruction.losses("l1", made, wanted)) == pytest.approx(0.5)
    assert float(reconstruction.noise_ratio(torch.tensor(0.01))) == pytest.approx(20)
    assert float(reconstruction.noise_ratio(torch.tensor(0.0))) == 100


@pytest.mark.parametrize("kind", ["l1", "ssim"])
def test_the_loss_that_was_asked_for_falls(tmp_path: Path, kind: str) -> None:
    plan_ = reconstructing(plan(tmp_path, "run", side=16, loss=kind, epochs=8, lr=3e-3), dim=16)
    for part in (plan_.train, plan_.val):  # slopes, which can be learnt
        file = Path(part.decoded.folders[0]) / "pixels.npy"
        slopes = np.arange(len(part)) % 15 + 1
        rows, columns = np.mgrid[:16, :16]
        picture = (rows * slopes[:, None, None] + columns * (16 - slopes[:, None, None])).astype(np.uint8)
        np.save(file, np.repeat(picture[..., None], 3, 3))
    loop(plan_).run()
    losses = pd.read_parquet(Path(plan_.run) / "history.parquet")["val_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


class TestUnlabelled:
    """Which images are in which split; nothing is decoded."""

    def test_folders_say_nothing_unless_one_is_called_train(self, tmp_path: Path) -> None:
        folder(tmp_path / "all" / "deep" / "er", 10)
        found = labels.unlabelled(list_source(str(tmp_path / "all")), 0.3)
        assert found.classes == ()
        assert sum(map(len, found.splits.values())) == 30
        folder(tmp_path / "all" / "train", 2)
        folder(tmp_path / "all" / "val", 1)
        found = labels.unlabelled(list_source(str(tmp_path / "all")), 0.3)
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 6, "val": 3}
        assert found.unlabelled == 30

    def test_a_list_needs_no_label(self, tmp_path: Path) -> None:
        folder(tmp_path, 2)
        lines = [f"{name}/00{i}.png,{'val' if i else 'train'}" for name in CLASSES for i in range(2)]
        (tmp_path / "list.csv").write_text("\n".join(["path,split", *lines]))
        found = labels.unlabelled(list_source(str(tmp_path / "list.csv")), 0.2)
        assert {name: len(split) for name, split in found.splits.items()} == {"train": 3, "val": 3}


def test_one_json_object_says_which_task(trained: TrainingSummary) -> None:
    assert json.loads(json.dumps(trained.as_dict()))["task"] == "autoencoder"


def test_without_room_for_the_decoded_images_nothing_is_decoded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(
        JobFailed, match=r"need [0-9.]+ kB in .*cache, where 5 kB are free: make room, name a larger disk"
    ):
        cvjobs.train(images, tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run" / "cache").exists()


def test_a_disk_that_is_full_all_the_same_keeps_nothing_half_made(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(JobFailed, match=r"No space left in .*cache: make room"):
        cvjobs.train(images, tmp_path / "run", **OPTIONS, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
