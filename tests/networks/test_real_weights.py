"""Real photos and real weights: vectors and classes are those of torchvision's own pipeline, and they know a cat."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import assets
import numpy as np
import pytest
from PIL import Image, ImageCms

import cvjobs

pytestmark = pytest.mark.slow

CATS = {"Egyptian cat", "tiger cat", "tabby"}


@pytest.fixture(scope="module")
def found() -> assets.Assets:
    here = assets.Assets(assets.FOLDER / "photos", assets.FOLDER / "torch")
    if not here.weights.is_file():
        if "CI" in os.environ:
            pytest.fail("run `make test`, which fetches the photos and weights")
        pytest.skip("no photos and weights here: run `make test`, which fetches them")
    return assets.fetch()


@pytest.fixture(scope="module")
def classified(found: assets.Assets, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("classified") / "out"
    cvjobs.classify(found.photos, out, weights=str(found.weights))
    table: list[dict[str, Any]] = cvjobs.open(str(out)).to_arrow().to_pylist()
    return table


@pytest.fixture(scope="module")
def rows(found: assets.Assets, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("real") / "out"
    summary = cvjobs.embed(found.photos, out, model="torchvision/mobilenet_v2", weights=str(found.weights))
    assert (summary.ok, summary.failed) == (len(assets.FILES) - 1, 0)
    table: list[dict[str, Any]] = cvjobs.open(str(out)).to_arrow().to_pylist()
    return table


@pytest.fixture(scope="module")
def theirs(found: assets.Assets) -> dict[str, tuple[Any, Any]]:
    """The pooled features and the probabilities of the classes of every photo, by torchvision's own pipeline.

    It takes no notice of profiles: littleCMS converts them before.
    """
    import torch
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    model = mobilenet_v2()
    model.load_state_dict(torch.load(found.weights, weights_only=True))
    model.eval()
    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()

    def as_srgb(image: Image.Image) -> Image.Image:
        if (profile := image.info.get("icc_profile")) is None:
            return image
        shown = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), shown, outputMode="RGB")
        assert made is not None
        return made

    def seen(file: Path, least: int) -> Any:
        with Image.open(file) as image, torch.inference_mode():
            image.draft("RGB", (least, least))
            white = Image.new("RGBA", image.size, "white")
            upright = Image.alpha_composite(white, as_srgb(image).convert("RGBA")).convert("RGB")
            return model.features(transform(upright)[None]).mean((2, 3))

    answers = {}
    for name in assets.FILES:
        if (file := found.photos / name).is_file():
            with torch.inference_mode():
                # A large JPEG may be decoded at half its size, as long as that is twice what the model's resize wants.
                probabilities = model.classifier(seen(file, 512)).softmax(1)
            answers[name] = seen(file, 1 << 20)[0].numpy(), probabilities[0].numpy()
    return answers


def test_every_vector_is_that_of_torchvisions_own_pipeline(
    theirs: dict[str, tuple[Any, Any]], rows: list[dict[str, Any]]
) -> None:
    assert {row["path"] for row in rows} == set(theirs)
    for row in rows:
        expected, _ = theirs[row["path"]]
        vector = np.asarray(row["embedding"])
        cosine = float(vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected))
        assert cosine >= 0.999, (row["path"], cosine)


def test_the_classifier_sees_a_cat_in_the_vector_of_a_cat(found: assets.Assets, rows: list[dict[str, Any]]) -> None:
    import torch
    from torchvision.models import MobileNet_V2_Weights

    (vector,) = [np.asarray(row["embedding"]) for row in rows if row["path"] == "chelsea.png"]
    head = torch.load(found.weights, weights_only=True)
    logits = head["classifier.1.weight"].numpy() @ vector + head["classifier.1.bias"].numpy()
    names = [MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"][i] for i in np.argsort(-logits)[:3]]
    assert set(names) == CATS


def test_every_label_and_score_is_that_of_torchvisions_own_pipeline(
    theirs: dict[str, tuple[Any, Any]], classified: list[dict[str, Any]]
) -> None:
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert {row["path"] for row in classified} == set(theirs)
    for row in classified:
        _, probabilities = theirs[row["path"]]
        expected = np.argsort(-probabilities)[:5]
        assert (row["label"], row["score"]) == (row["top"][0]["label"], row["top"][0]["score"])
        assert [guess["label"] for guess in row["top"]] == [names[i] for i in expected], row["path"]
        np.testing.assert_allclose([guess["score"] for guess in row["top"]], probabilities[expected], atol=5e-3)


def test_a_cat_is_called_one(classified: list[dict[str, Any]]) -> None:
    (cat,) = [row for row in classified if row["path"] == "chelsea.png"]
    assert {guess["label"] for guess in cat["top"][:3]} == CATS


def test_a_head_that_begins_as_imagenets_knows_its_classes_before_any_step(found: assets.Assets) -> None:
    import torch
    from torchvision.models import MobileNet_V2_Weights

    from cvjobs.networks import registry

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    labels = ("espresso", "Tiger_Cat", "n02124075", "moon landing")  # n02124075 is the Egyptian cat
    trainable = registry.trainable("torchvision/mobilenet_v2", weights=str(found.weights), classes=4, labels=labels)
    assert trainable.inherited == 3
    own, theirs = trainable.module.state_dict(), torch.load(found.weights, weights_only=True)
    for number, name in enumerate(("espresso", "tiger cat", "Egyptian cat")):
        for part in ("classifier.1.weight", "classifier.1.bias"):
            assert torch.equal(own[part][number], theirs[part][names.index(name)])
    module = trainable.module.eval()
    for file, expected in (("coffee.png", {0}), ("chelsea.png", {1, 2})):
        with Image.open(found.photos / file) as image, torch.inference_mode():
            pixels = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(image.convert("RGB"))
            assert int(module(pixels[None]).argmax()) in expected
