"""Classification: the classes and scores are the model's own, and the classes are named by whoever knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from commands import aged
from PIL import Image
from reference import SMALL, TINY, normalised, pixels, same, seeded
from safetensors.torch import save_file
from torchvision import models

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks.registry import classifier, embedder, names
from cvjobs.prediction.tasks.classify import ClassifyStep, best

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]
NAMED = {"labels": json.dumps(["cat", "=dog", "<b>"]), "activation": "sigmoid"}


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """The weights of a small model with three classes of its own, which its file does not name."""
    file = tmp_path / "three.pth"
    torch.save(seeded(timm.create_model, model_name="test_resnet", num_classes=3).state_dict(), file)
    return file


def named(weights: Path, **metadata: str) -> Path:
    """The same weights in a file with metadata."""
    file = weights.with_name(f"{len(list(weights.parent.iterdir()))}.safetensors")
    save_file(torch.load(weights, weights_only=True), file, metadata)
    return file


class TestScores:
    """The best classes of a batch, and their probabilities."""

    @pytest.mark.parametrize("count", [1, 5, 40])
    @pytest.mark.parametrize("several", [False, True])
    def test_they_are_torchs(self, count: int, several: bool) -> None:
        logits = torch.from_numpy(np.random.default_rng(0).normal(0, 20, (30, 40)).astype(np.float32))
        expected = (logits.sigmoid() if several else logits.softmax(1)).gather(1, logits.topk(count)[1])
        indices, scores = best(logits.numpy(), count, several=several)
        assert np.array_equal(indices, logits.topk(count)[1])
        assert scores.dtype == np.float32
        assert scores.shape == (30, count)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-30)

    def test_of_equal_classes_the_first_is_the_better(self) -> None:
        indices, scores = best(np.array([[1, 3, 0, 3, 1], [3, 1, 0, 1, 3]], np.float32), 3, several=False)
        assert indices.tolist() == [[1, 3, 0], [0, 4, 1]]
        assert np.array_equal(scores[0], scores[1])

    def test_large_numbers_are_no_infinity(self) -> None:
        logits = np.array([[1e30, -1e30, 0]], np.float32)
        for several, expected in ((False, [1, 0, 0]), (True, [1, 0.5, 0])):
            assert best(logits, 3, several=several)[1].tolist() == [expected]

    def test_an_image_without_finite_scores_is_a_failure(self) -> None:
        class Broken:
            def __call__(self, pixels: Any) -> Any:
                return np.array([[0, 1], [np.nan, 1], [np.inf, np.inf]], np.float32)[: len(pixels)]

        columns = ClassifyStep(Broken(), ["a", "b"], 2, several=False)(np.zeros((3, 1, 1, 3), np.uint8))
        assert {at: failure.code for at, failure in columns.failures.items()} == dict.fromkeys(
            (1, 2), "infer_nonfinite"
        )
        assert columns.arrays[0].to_pylist()[0] == "b"


class TestModels:
    """Classifiers against their own library."""

    @pytest.mark.parametrize("name", [SMALL, TINY])
    def test_logits_are_the_models_own(self, name: str) -> None:
        model = classifier(name, weights="random")
        batch = pixels(2, model.transform)
        family, _, bare = name.partition("/")
        build = models.get_model if family == "torchvision" else timm.create_model
        with torch.inference_mode():
            expected = seeded(lambda: build(bare))(normalised(batch, model.transform))
        same(model.load("cpu", "fp32")(batch), expected)
        assert len(model.labels) == len(set(model.labels)) == 1000

    def test_labels_are_those_of_the_library(self) -> None:
        ours = classifier(SMALL, weights="random")
        assert list(ours.labels) == models.MobileNet_V3_Small_Weights.DEFAULT.meta["categories"]
        assert ours.facts["categories"][281] == [281, "tabby"]
        timms = classifier(TINY, weights="random").labels
        assert timms[281] == "tabby, tabby cat"
        assert [timms[134], timms[517]] == ["crane (n02012849)", "crane (n03126707)"]  # a bird and a machine

    @pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "googlenet"])
    def test_a_file_brings_a_head_of_its_own(self, tmp_path: Path, name: str) -> None:
        options = {"init_weights": False} if name == "googlenet" else {}
        state = seeded(lambda: models.get_model(name, num_classes=3, **options)).state_dict()
        save_file(state, tmp_path / "own.safetensors", NAMED)
        model = classifier(f"torchvision/{name}", weights=str(tmp_path / "own.safetensors"))
        assert (model.labels, model.activation) == (("cat", "=dog", "<b>"), "sigmoid")
        assert model.load("cpu", "fp32")(pixels(2, model.transform)).shape == (2, 3)

    def test_a_file_with_another_head_embeds(self, three: Path) -> None:
        model = embedder(TINY, weights=str(three))
        batch = pixels(2, model.transform)
        theirs = seeded(timm.create_model, model_name="test_resnet", num_classes=3)
        with torch.inference_mode():
            features = theirs.forward_features(normalised(batch, model.transform)).mean((2, 3))
        same(model.load("cpu", "fp32")(batch), features)

    def test_only_models_whose_classes_have_names_are_listed(self) -> None:
        listed = names("classify")
        assert {"test_resnet", "resnet50.a1_in1k", "beit_base_patch16_224.in22k_ft_in22k"} <= set(listed["timm"])
        assert not {"vit_base_patch16_clip_224.openai", "vit_small_patch14_dinov2"} & set(listed["timm"])
        assert "mobilenet_v2" in listed["torchvision"]
        assert listed["thumbnail"] == []

    def test_a_model_of_vectors_is_refused(self) -> None:
        with pytest.raises(WrongUse, match="has no classifier"):
            classifier("timm/vit_tiny_patch16_dinov3_qkvb", weights="random")


class TestNames:
    """Who names the classes of a file."""

    def test_the_user_does(self, three: Path) -> None:
        assert classifier(TINY, weights=str(three), labels=["a", "b", "c"]).labels == ("a", "b", "c")
        model = classifier(TINY, weights=str(named(three, **NAMED)), labels=["a", "b", "c"])
        assert (model.labels, model.activation) == (("a", "b", "c"), "sigmoid")

    @pytest.mark.parametrize(
        ("metadata", "sentence"),
        [
            ({}, "have 3 classes that only you can name: give --labels FILE"),
            ({"labels": '["a", "b"]'}, "The metadata of the file .* has 2 names and the weights .* have 3 classes"),
            ({"labels": "a, b, c"}, "are no JSON list of names"),
            ({"labels": '["a", "", 3]'}, "are no JSON list of names"),
            ({"activation": "sigmoide"}, "no activation 'sigmoide' .nearest: sigmoid.*softmax or sigmoid"),
        ],
    )
    def test_a_file_that_does_not_is_refused(self, three: Path, metadata: dict[str, str], sentence: str) -> None:
        with pytest.raises(WrongUse, match=sentence):
            classifier(TINY, weights=str(named(three, **metadata)))

    def test_a_wrong_number_of_names_is_refused(self, three: Path) -> None:
        with pytest.raises(
            WrongUse, match=r"--labels has 2 names and the weights of timm/test_resnet.* have 3 classes"
        ):
            classifier(TINY, weights=str(three), labels=["a", "b"])


def test_the_command(three: Path, tmp_path: Path) -> None:
    source, out, words = tmp_path / "photos", tmp_path / "out", tmp_path / "labels.txt"
    source.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(source / f"{number}.png")
    (source / "broken.png").write_bytes(b"no image")
    aged(source)
    words.write_text("cat\n=dog\n<b>\n")
    options: dict[str, Any] = {"model": TINY, "weights": str(three), "labels": str(words), "max_error_rate": 1}
    summary = cvjobs.classify(source, out, **options)
    assert (summary.ok, summary.failed, summary.exit_code) == (3, 1, 0)
    rows = cvjobs.open(str(out)).to_arrow().sort_by("path").to_pylist()
    model = classifier(TINY, weights=str(three), labels=["cat", "=dog", "<b>"])
    images = np.stack([np.asarray(Image.open(source / row["path"]))[20:180, 20:180] for row in rows])
    assert model.transform.size == (160, 160)
    logits = torch.from_numpy(model.load("cpu", "fp32")(images))
    for row, scores in zip(rows, logits.softmax(1), strict=True):
        assert len(row["top"]) == 3  # of the five that are the default
        assert (row["label"], row["score"]) == (row["top"][0]["label"], row["top"][0]["score"])
        for guess in row["top"]:
            assert guess["score"] == pytest.approx(float(scores[model.labels.index(guess["label"])]), abs=0.05)
    facts = cvjobs.open(str(out)).snapshot.facts
    assert (facts["task"], facts["top"], facts["activation"]) == ("classify", 3, "softmax")
    assert facts["categories"] == [[0, "cat"], [1, "=dog"], [2, "<b>"]]
    assert cvjobs.classify(source, out, **options).computed == 0
    words.write_text("a\nb\nc\n")
    with pytest.raises(WrongUse, match=r"was computed otherwise \(categories .* there, .* here\)"):
        cvjobs.classify(source, out, **options)
