"""Models by name: the vectors are the library's own, weights are data, and every wrong use is one sentence."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from cvjobs import weights
from cvjobs.errors import WrongUse
from cvjobs.models import embedder, names, resolve_precision
from cvjobs.networks import Tap, TorchEmbedder, vector_length
from cvjobs.records import Transform

Pixels = NDArray[np.uint8]
driver = importlib.import_module("cvjobs.jobs.models")
SMALL = "torchvision/mobilenet_v3_small"
TINY = "timm/test_resnet"


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and a network on which every connection is refused at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def pixels(count: int, transform: Transform, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, *transform.size, 3), dtype=np.uint8)


def normalised(images: Pixels, transform: Transform) -> Tensor:
    """What torchvision's own transform hands to a model."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    return (scaled - mean) / std


def seeded(build: Any, **options: Any) -> Any:
    """The model as anybody gets it after ``torch.manual_seed(0)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(**options).eval()


def vectors(name: str, images: int = 2, **options: str) -> tuple[NDArray[np.float32], Tensor]:
    """The vectors of random images, and the images as the model's own library would see them."""
    model = embedder(name, **{"weights": "random", **options})
    batch = pixels(images, model.transform)
    result = model.load("cpu", "fp32")(batch)
    assert result.dtype == np.float32
    assert result.shape == (images, model.dim)
    return result, normalised(batch, model.transform)


def same(found: Any, expected: Any) -> None:
    """Equal but for rounding; random weights may make all numbers tiny, so nothing is compared with 0."""
    found, expected = (np.asarray(torch.as_tensor(values).detach()) for values in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))
    assert float(np.abs(expected).max()) > 0


def refused(name: str, **options: str) -> str:
    with pytest.raises(WrongUse) as caught:
        embedder(name, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


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
        batch = network.batch(2)
        batch[:] = pixels(2, model.transform)
        found = network(batch)
        assert model.transform == Transform(size=(3, 3), fit="exact")
        assert found.dtype == np.float32
        assert found.shape == (2, model.dim)
        np.testing.assert_array_equal(found[1].reshape(3, 3, 3), batch[1].astype(np.float32) / np.float32(255))

    def test_needs_no_torch(self) -> None:
        code = "import sys; from cvjobs import models as m; m.resolve_precision('auto', 'cpu')"
        code += "; n = m.embedder('thumbnail/8').load('cpu', 'fp32'); n(n.batch(1)); assert 'torch' not in sys.modules"
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
        driver.run(driver.Config(json=True))
        listed = json.loads(capsys.readouterr().out)
        assert listed == names("embed")
        assert {"resnet50", "swin_v2_t"} <= set(listed["torchvision"])
        assert {"resnet50", "resnet50.a1_in1k"} <= set(listed["timm"])
        driver.run(driver.Config())
        assert "  torchvision/resnet50\n" in capsys.readouterr().out


class TestWeights:
    """Weight files, good and bad."""

    def test_random_is_always_the_same_and_leaves_the_generator_alone(self) -> None:
        before = torch.random.get_rng_state()
        first, second = vectors(SMALL)[0], vectors(SMALL)[0]
        np.testing.assert_array_equal(first, second)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert embedder(SMALL, weights="random").facts == {
            "model": SMALL,
            "weights": "random",
            "weights_sha256": "seed 0",
            "layer": "pooled",
        }

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", TINY])
    def test_file(self, tmp_path: Path, name: str, suffix: str) -> None:
        family, _, model = name.partition("/")
        build = models.get_model if family == "torchvision" else timm.create_model
        tensors = seeded(build, **{"name" if family == "torchvision" else "model_name": model}).state_dict()
        file = tmp_path / f"mine.{suffix}"
        torch.save(tensors, file) if suffix == "pth" else save_file(tensors, file)
        np.testing.assert_array_equal(vectors(name, weights=str(file))[0], vectors(name)[0])
        facts = embedder(name, weights=str(file)).facts
        assert facts["weights"] == file.name
        assert facts["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()

    @pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", TINY])
    def test_file_that_does_not_fit(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / "other.safetensors"
        save_file({"surplus": torch.zeros(1)}, file)
        sentence = refused(name, weights=str(file))
        assert f"{file} does not fit {name}" in sentence
        assert "surplus" in sentence
        assert "Missing" in sentence

    def test_file_of_another_number_of_classes(self, tmp_path: Path) -> None:
        file = tmp_path / "ten.pth"
        torch.save(models.squeezenet1_1(num_classes=10).state_dict(), file)
        assert "size mismatch for classifier.1.weight" in refused("squeezenet1_1", weights=str(file))

    @pytest.mark.parametrize("name", [SMALL, TINY])
    def test_pickle_is_refused_and_not_run(self, tmp_path: Path, name: str) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Any, tuple[str]]:
                return os.mkdir, (str(tmp_path / "pwned"),)

        file = tmp_path / "payload.pth"
        torch.save({"classifier.0.weight": Payload()}, file)
        assert "was refused" in refused(name, weights=str(file))
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize(
        ("file", "content"),
        [("a.pth", b""), ("b.pth", b"PK\x03\x04 no zip"), ("c.safetensors", b"\xff" * 64), ("d.safetensors", b"")],
    )
    def test_damaged_file(self, tmp_path: Path, file: str, content: bytes) -> None:
        (tmp_path / file).write_bytes(content)
        assert file in refused(SMALL, weights=str(tmp_path / file))

    @pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {1: torch.zeros(1)}])
    def test_file_without_a_state_dict(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "list.pth")
        assert "holds no state dict" in refused(TINY, weights=str(tmp_path / "list.pth"))

    def test_absent_file(self) -> None:
        assert "There is no weights file /none" in refused(SMALL, weights="/none")

    def test_nothing_cached_and_no_network(self, tmp_path: Path) -> None:
        sentence = refused("torchvision/squeezenet1_1")
        assert "squeezenet1_1-b8a52dc0.pth (sha256 starts b8a52dc0)" in sentence
        assert str(tmp_path / "torch/hub/checkpoints") in sentence
        assert "--weights FILE" in sentence

    def test_cached_file_must_have_the_hash_in_its_name(self, tmp_path: Path) -> None:
        cache = tmp_path / "torch/hub/checkpoints"
        cache.mkdir(parents=True)
        (cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"half of it")
        assert "is damaged" in refused("torchvision/squeezenet1_1")
        digest = hashlib.sha256(b"all of it").hexdigest()
        (cache / f"whole-{digest[:8]}.pth").write_bytes(b"all of it")
        found = weights.cached(f"whole-{digest[:8]}.pth", "V1")
        assert found == weights.Weights("V1", cache / f"whole-{digest[:8]}.pth", digest)

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[tuple[Path, str]]:
        """A folder and the address under which a real server of this machine offers it."""
        folder = tmp_path / "served"
        folder.mkdir()

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
            thread = threading.Thread(target=running.serve_forever)
            thread.start()
            yield folder, f"http://127.0.0.1:{running.server_address[1]}"
            running.shutdown()
            thread.join()

    def test_download_is_checked_and_kept(self, server: tuple[Path, str], tmp_path: Path) -> None:
        folder, address = server
        digest = hashlib.sha256(b"weights").hexdigest()
        good, bad = f"good-{digest[:8]}.pth", "bad-01234567.pth"
        for name in (good, bad):
            (folder / name).write_bytes(b"weights")
        assert weights.fetched(f"{address}/{good}", "a model").sha256 == digest
        (folder / good).unlink()
        assert weights.fetched(f"{address}/{good}", "a model").sha256 == digest
        with pytest.raises(WrongUse, match="its sha256 differs"):
            weights.fetched(f"{address}/{bad}", "a model")
        with pytest.raises(WrongUse, match="File not found"):
            weights.fetched(f"{address}/absent-01234567.pth", "a model")
        assert [file.name for file in (tmp_path / "torch/hub/checkpoints").iterdir()] == [good]


class Toy(nn.Module):
    """A model with layers of every kind, of which only some can be a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.split = nn.AdaptiveAvgPool2d(4)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.flat = nn.Flatten(0, 1)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.split(images).flatten(2).transpose(1, 2)
        mixed: Tensor = self.flat(self.attention(tokens, tokens, tokens)[0])
        return mixed


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [("attention", "gives no tensor"), ("flat", "not one vector an image"), ("unused", "is not called")],
)
def test_layers_that_are_no_vector_are_refused(layer: str, sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence):
        vector_length(Tap(Toy(), "toy", layer, (8, 8)), "toy", (8, 8))


class Tied(nn.Module):
    """A model with one module in two places and one parameter in two modules, that remembers its last input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Conv2d(3, 3, 1)
        self.twin = nn.Conv2d(3, 3, 1)
        self.twin.weight = self.first.weight
        self.seen: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        mixed: Tensor = self.twin(self.again(self.first(images)))
        return mixed.mean((2, 3))


def test_looking_for_the_length_leaves_the_model_alone() -> None:
    model = Tied()
    assert vector_length(model, "toy", (8, 8)) == 3
    assert model.seen is None
    assert model.first is model.again
    assert model.twin.weight is model.first.weight
    assert not any(tensor.is_meta for tensor in model.parameters())


class Hungry(nn.Module):
    """A model that needs more memory than there is, or fails for another reason."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(self.shape) + images.mean()


@pytest.mark.parametrize(("shape", "error"), [((1 << 50,), MemoryError), ((-1,), RuntimeError)])
def test_only_missing_memory_is_a_memory_error(shape: tuple[int, ...], error: type[Exception]) -> None:
    model = TorchEmbedder(name="toy", dim=1, transform=Transform(size=(2, 2)), facts={}, module=Hungry(shape))
    network = model.load("cpu", "fp32")
    with pytest.raises(error):
        network(np.zeros((1, 2, 2, 3), np.uint8))


@pytest.mark.parametrize("layer", ["", "features.3"])
def test_threads_share_one_network(layer: str) -> None:
    model = embedder(SMALL, weights="random", layer=layer)
    network = model.load("cpu", "fp32")
    batches = [pixels(2, model.transform, seed) for seed in range(6)]
    alone = [network(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for found, expected in zip(pool.map(network, batches), alone, strict=True):
            same(found, expected)
    with pytest.raises(AssertionError):
        same(alone[0], alone[1])


def test_bf16_is_near_fp32() -> None:
    model = embedder(TINY, weights="random")
    batch = pixels(4, model.transform)
    full, half = (torch.from_numpy(model.load("cpu", precision)(batch)) for precision in ("fp32", "bf16"))
    assert torch.cosine_similarity(full, half).min() > 0.99
    assert not torch.equal(full, half)


def test_precision() -> None:
    assert [resolve_precision(choice, "cpu") for choice in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    assert resolve_precision("fp16", "cuda:0") == "fp16"
    with pytest.raises(WrongUse, match="needs a CUDA GPU"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(WrongUse, match="nearest: bf16"):
        resolve_precision("bf61", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_the_same_vectors_from_pinned_buffers_in_several_threads() -> None:
    model = embedder("torchvision/resnet18", weights="random")
    on_cpu, on_gpu = model.load("cpu", "fp32"), model.load("cuda", "fp32")
    batches = [pixels(4, model.transform, seed) for seed in range(6)]
    buffers = [on_gpu.batch(4) for _ in batches]
    for buffer, batch in zip(buffers, batches, strict=True):
        buffer[:] = batch
        assert torch.from_numpy(buffer).is_pinned()
    with ThreadPoolExecutor(3) as pool:
        for found, batch in zip(pool.map(on_gpu, buffers), batches, strict=True):
            expected = torch.from_numpy(on_cpu(batch))
            assert torch.cosine_similarity(torch.from_numpy(found), expected).min() > 0.999
    with pytest.raises(MemoryError):
        on_gpu(np.broadcast_to(batches[0][:1], (1 << 22, *batches[0].shape[1:])))
