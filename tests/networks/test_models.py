"""Models by name: the vectors are the library's own, weights are data, and every wrong use is one sentence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from reference import SMALL, TINY, pixels, refused, same, seeded, vectors
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from cvjobs import cli
from cvjobs.images.transform import Transform
from cvjobs.networks.registry import embedder, names

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]


class TestTorchvision:
    """Torchvision's classifiers against torchvision."""

    def test_vector_is_what_the_classifier_sees(self) -> None:
        found, images = vectors(SMALL)
        model = seeded(models.mobilenet_v3_small)
        with torch.inference_mode():
            features = model.classifier[:3](model.avgpool(model.features(images)).flatten(1))
            logits = model(images)
        same(found, features)
        same(model.classifier[3](torch.from_numpy(found)).detach(), logits)

    def test_convolutional_head_gives_the_mean_of_its_input(self) -> None:
        found, images = vectors("torchvision/squeezenet1_1")
        with torch.inference_mode():
            features = seeded(models.squeezenet1_1).features(images).mean((2, 3))
        same(found, features)

    def test_layer_is_its_map_averaged_even_when_the_next_module_overwrites_it(self) -> None:
        found, images = vectors("torchvision/squeezenet1_1", layer="features.0")
        with torch.inference_mode():
            expected = seeded(models.squeezenet1_1).features[0](images).mean((2, 3))
        assert expected.min() < 0  # a ReLU in place follows
        same(found, expected)

    def test_layer_with_channels_last(self) -> None:
        found, images = vectors("torchvision/swin_t", images=1, layer="features.1")
        with torch.inference_mode():
            expected = seeded(models.swin_t).features[:2](images).mean((1, 2))
        same(found, expected)

    @pytest.mark.faults(minutes=0.2)
    def test_googlenet_file_with_and_without_auxiliary_heads(self, tmp_path: Path) -> None:
        model = models.googlenet(init_weights=False, transform_input=True).eval()
        whole = model.state_dict()
        save_file(whole, tmp_path / "whole.safetensors")
        save_file({k: v for k, v in whole.items() if not k.startswith("aux")}, tmp_path / "headless.safetensors")
        model.fc = nn.Identity()
        for file in ("whole", "headless"):
            found, images = vectors("googlenet", weights=str(tmp_path / f"{file}.safetensors"))
            with torch.inference_mode():
                same(found, model(images))

    @pytest.mark.faults(minutes=0.2)
    def test_densenet_file_with_the_published_names(self, tmp_path: Path) -> None:
        model = models.densenet121().eval()
        old = {
            key.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in key else key: tensor
            for key, tensor in model.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        assert old.keys() != model.state_dict().keys()
        torch.save(old, tmp_path / "old.pth")
        model.classifier = nn.Identity()
        found, images = vectors("densenet121", images=1, weights=str(tmp_path / "old.pth"))
        with torch.inference_mode():
            same(found, model(images))

    @pytest.mark.parametrize(
        ("name", "side", "resize", "interpolation"),
        [
            ("mobilenet_v3_small", 224, 256, "bilinear"),
            ("resnet50", 224, 232, "bilinear"),
            ("efficientnet_b0", 224, 256, "bicubic"),
            ("inception_v3", 299, 342, "bilinear"),
        ],
    )
    def test_transform_is_the_one_of_the_weights(self, name: str, side: int, resize: int, interpolation: str) -> None:
        transform = embedder(f"torchvision/{name}", weights="random").transform
        preset = models.get_model_weights(name).DEFAULT.transforms()
        assert (transform.size, transform.resize, transform.fit) == ((side, side), resize, "short")
        assert transform.interpolation == interpolation
        assert (list(transform.mean), list(transform.std)) == (preset.mean, preset.std)


class TestTimm:
    """timm's models against timm."""

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
    def test_vector_is_what_the_classifier_sees(self, name: str) -> None:
        found, images = vectors(f"timm/{name}")
        model = seeded(timm.create_model, model_name=name)
        with torch.inference_mode():
            same(found, model.forward_head(model.forward_features(images), True))
            logits = model.get_classifier()(torch.from_numpy(found))
            same(logits, model(images))

    def test_layer_of_tokens_is_their_mean(self) -> None:
        found, images = vectors("timm/test_vit", layer="blocks")
        model = seeded(timm.create_model, model_name="test_vit")
        model.norm = nn.Identity()
        with torch.inference_mode():
            same(found, model.forward_features(images).mean(1))

    def test_transforms(self) -> None:
        short = embedder("timm/resnet10t", weights="random").transform
        assert (short.size, short.resize, short.fit, short.interpolation) == ((176, 176), 201, "short", "bicubic")
        squashed = embedder("timm/vit_small_patch16_lingbot", weights="random").transform
        assert squashed.size
        side = squashed.size[0]
        assert (squashed.size, squashed.fit, squashed.target) == ((side, side), "exact", side)
        for name in ("dm_nfnet_f0", "deepseek_vit_412m"):  # squashed then cropped; bordered
            assert "does not offer" in refused(f"timm/{name}", weights="random")

    def test_tag_is_part_of_the_name(self) -> None:
        bare, tagged = (embedder(name, weights="random") for name in (TINY, f"{TINY}.r160_in1k"))
        assert bare.name == tagged.name == f"{TINY}.r160_in1k"
        assert bare.facts == tagged.facts

    def test_cached_file_of_the_hub_is_used_and_hashed(self, tmp_path: Path) -> None:
        repository = tmp_path / "hub/models--timm--test_resnet.r160_in1k"
        snapshot = repository / "snapshots/abc"
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("abc")
        model: Any = timm.create_model("test_resnet").eval()
        save_file(model.state_dict(), snapshot / "model.safetensors")
        found, images = vectors(TINY, weights="pretrained")
        with torch.inference_mode():
            expected = model.forward_head(model.forward_features(images), True)
        same(found, expected)
        facts = embedder(TINY).facts
        assert facts["weights"] == "r160_in1k"
        assert facts["weights_sha256"] == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()

    def test_without_weights(self) -> None:
        sentence = refused(TINY)
        assert "timm/test_resnet.r160_in1k" in sentence
        assert "model.safetensors" in sentence
        assert "--weights FILE" in sentence
        assert "publishes no weights" in refused("timm/test_vit4")


class TestThumbnail:
    """The model without weights."""

    def test_vector_is_the_pixels(self) -> None:
        model = embedder("thumbnail/3")
        network = model.load("cpu", "fp32")
        batch = pixels(2, model.transform)
        found = network(batch)
        assert model.transform == Transform(size=(3, 3), fit="exact")
        assert found.dtype == np.float32
        assert found.shape == (2, model.dim)
        np.testing.assert_array_equal(found[1].reshape(3, 3, 3), batch[1].astype(np.float32) / np.float32(255))

    def test_needs_no_torch(self) -> None:
        code = (
            "import sys, numpy; from cvjobs.networks import registry as m, precision as p;"
            "p.resolve_precision('auto', 'cpu'); n = m.embedder('thumbnail/8').load('cpu', 'fp32');"
            "n(numpy.zeros((1, 8, 8, 3), numpy.uint8)); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize("name", ["0", "257", "x", "-1", "N", "²"])
    def test_sides(self, name: str) -> None:
        assert "from 1 to 256" in refused(f"thumbnail/{name}")

    def test_has_nothing_to_choose(self) -> None:
        assert "--weights" in refused("thumbnail/8", weights="random")
        assert "--layer" in refused("thumbnail/8", layer="0")


class TestNames:
    """What a user types after --model."""

    def test_bare_names(self) -> None:
        assert embedder("resnet18", weights="random").name == "torchvision/resnet18"
        assert embedder("test_resnet", weights="random").name == "timm/test_resnet.r160_in1k"

    @pytest.mark.parametrize(
        ("wrong", "hint"),
        [
            ("mobilnet_v2", "nearest: mobilenet_v2"),
            ("torchvison/resnet18", "nearest: torchvision"),
            ("torchvision/resnet1", "resnet18"),
            ("timm/test_resnt", "nearest: test_resnet"),
            ("timm/resnet50.nonsense", "cvjobs models"),
            ("8", "cvjobs models"),
        ],
    )
    def test_unknown_names_come_with_the_nearest(self, wrong: str, hint: str) -> None:
        assert hint in refused(wrong, weights="random")

    def test_unknown_layer(self) -> None:
        assert "features.12" in refused(SMALL, weights="random", layer="feature.12")

    def test_the_driver_lists_what_can_be_typed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["models", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        rows = listed.pop("models")
        assert listed == {family: offered for family, offered in names("embed").items() if offered}
        assert [row["model"] for row in rows] == [f"{one}/{name}" for one, every in listed.items() for name in every]
        assert {"resnet50", "swin_v2_t"} <= set(listed["torchvision"])
        assert {"resnet50", "resnet50.a1_in1k"} <= set(listed["timm"])
        assert cli.main(["models"]) == 0
        assert "\n  torchvision/resnet50 " in capsys.readouterr().out
