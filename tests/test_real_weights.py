"""Real photos and real weights: the vectors are those of torchvision's own pipeline, and they know a cat."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvjobs

sys.path.insert(0, str(Path(__file__).parent.parent / "demo"))
import assets

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
def rows(found: assets.Assets, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("real") / "out"
    summary = cvjobs.embed(found.photos, out, model="torchvision/mobilenet_v2", weights=str(found.weights))
    assert (summary.ok, summary.failed) == (len(assets.FILES) - 1, 0)
    table: list[dict[str, Any]] = cvjobs.open(str(out)).to_arrow().to_pylist()
    return table


def test_every_vector_is_that_of_torchvisions_own_pipeline(found: assets.Assets, rows: list[dict[str, Any]]) -> None:
    import torch
    from PIL import Image
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    model = mobilenet_v2()
    model.load_state_dict(torch.load(found.weights, weights_only=True))
    model.classifier = torch.nn.Identity()
    model.eval()
    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    for row in rows:
        with Image.open(found.photos / row["path"]) as image, torch.inference_mode():
            white = Image.new("RGBA", image.size, "white")
            upright = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
            expected = model(transform(upright)[None])[0].numpy()
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
