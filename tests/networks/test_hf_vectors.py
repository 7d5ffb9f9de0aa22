"""Backbones and classifiers of transformers, beside its own processor and model on each image alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import here
from numpy.typing import NDArray
from PIL import Image

from cvjobs.common.errors import WrongUse
from cvjobs.images import resizing
from cvjobs.networks import registry
from cvjobs.networks.hf import loading

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

# Odd differences between sides and crop on purpose: half a pixel is rounded in one way or another.
SIZES = ((48, 64), (32, 32), (71, 40), (33, 33), (30, 97), (90, 61), (37, 52), (129, 40))
WIDTHS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "image_size": 32}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 0}
TOWERS = {"vision_config": WIDTHS, "text_config": TEXT}
SQUARE, EDGE = {"size": {"height": 32, "width": 32}}, {"size": {"shortest_edge": 32}}
CROP = {"crop_size": {"height": 32, "width": 32}}
CLASSES = {"id2label": {0: "cat", 1: "crane", 2: "crane"}}
BIT = ("BitImageProcessor", {"size": {"shortest_edge": 37}, **CROP})

# The class that publishes the weights, its settings, and the image processor.
KINDS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", WIDTHS, "ViTImageProcessor", SQUARE),
    "deit": ("DeiTForImageClassificationWithTeacher", WIDTHS, "DeiTImageProcessor", {"size": 36, **CROP}),
    "swin": ("SwinForImageClassification", SWIN, "ViTImageProcessor", {**SQUARE, "resample": 3}),
    "swinv2": ("Swinv2ForImageClassification", SWIN, "ViTImageProcessor", SQUARE),
    "convnext": ("ConvNextForImageClassification", STAGES, "ConvNextImageProcessor", EDGE),
    "convnextv2": ("ConvNextV2ForImageClassification", STAGES, "ConvNextImageProcessor", EDGE),
    "dinov2": ("Dinov2ForImageClassification", WIDTHS, *BIT),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", WIDTHS, *BIT),
    "dinov3_vit": ("DINOv3ViTModel", WIDTHS, "DINOv3ViTImageProcessor", SQUARE),
    "dinov3_convnext": ("DINOv3ConvNextModel", STAGES, "DINOv3ViTImageProcessor", SQUARE),
    "siglip": ("SiglipModel", TOWERS, "SiglipImageProcessor", SQUARE),
    "clip": ("CLIPModel", {**TOWERS, "projection_dim": 24}, "CLIPImageProcessor", {**EDGE, **CROP}),
}


def made(kind: str, folder: Path, **more: Any) -> Path:
    """Save a tiny model of a kind with its processor, as the library publishes them."""
    architecture, settings, processor, prepared = KINDS[kind]
    classes = CLASSES if "Classification" in architecture else {}
    config = transformers.AutoConfig.for_model(kind, **{**settings, **classes, **more})
    with torch.random.fork_rng(), loading.quiet():
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config).eval()
        for parameter in model.parameters():  # what is 0 or 1 at first would hide what is left out
            parameter.data += 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(folder)
        getattr(transformers, processor)(**prepared).save_pretrained(folder)
    return folder


def images() -> list[NDArray[np.uint8]]:
    """Smooth pictures of mixed sizes."""
    drawn = np.random.default_rng(0)
    small = [drawn.integers(0, 256, (5, 6, 3), dtype=np.uint8) for _ in SIZES]
    return [
        np.array(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC))
        for one, (height, width) in zip(small, SIZES, strict=True)
    ]


def own(folder: Path, architecture: str, read: Any, **options: Any) -> NDArray[np.float32]:
    """What the library's own processor and model make of each image alone."""
    with loading.quiet():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        model = getattr(transformers, architecture).from_pretrained(folder, **options).eval()
        with torch.inference_mode():
            prepared = [processor(image, return_tensors="pt") for image in images()]
            found = [read(model(**one)) if read else features(model, one) for one in prepared]
            return np.concatenate([one.numpy() for one in found])


def features(model: Any, inputs: Any) -> Any:
    """What the library's model of two towers makes of an image."""
    found = model.get_image_features(**inputs)
    return getattr(found, "pooler_output", found)


def ours(model: Any, batch: int) -> NDArray[np.float32]:
    """The same through the model's transform and network, in batches."""
    fitted = np.stack([resizing.fit(image, model.transform) for image in images()])
    network = model.load("cpu", "fp32")
    found: NDArray[np.float32] = np.concatenate(
        [network(np.ascontiguousarray(fitted[i : i + batch])) for i in range(0, len(fitted), batch)]
    )
    return found


def cosines(found: Any, expected: Any) -> Any:
    return (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


def first(output: Any) -> Any:
    return output.last_hidden_state[:, 0]


def pooled(output: Any) -> Any:
    return output.pooler_output


BARE: dict[str, tuple[str, Any]] = {
    "vit": ("ViTModel", first),
    "deit": ("DeiTModel", first),
    "swin": ("SwinModel", pooled),
    "swinv2": ("Swinv2Model", pooled),
    "convnext": ("ConvNextModel", pooled),
    "convnextv2": ("ConvNextV2Model", pooled),
    "dinov2": ("Dinov2Model", pooled),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", pooled),
    "dinov3_vit": ("DINOv3ViTModel", pooled),
    "dinov3_convnext": ("DINOv3ConvNextModel", pooled),
    "siglip": ("SiglipVisionModel", pooled),
    "clip": ("CLIPModel", None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_librarys_own(kind: str, tmp_path: Path) -> None:
    folder = made(kind, tmp_path)
    expected = own(folder, *BARE[kind])
    model = registry.embedder(f"hf/{folder}")
    for batch in (1, 8):
        found = ours(model, batch)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(expected - expected[0])[1:].max() > 0.05
    assert model.facts["layer"] == "pooled"


@pytest.mark.parametrize("kind", [kind for kind, found in KINDS.items() if "Classification" in found[0]])
def test_logits_are_the_librarys_own(kind: str, tmp_path: Path) -> None:
    folder = made(kind, tmp_path)
    expected = own(folder, KINDS[kind][0], lambda output: output.logits)
    model = registry.classifier(f"hf/{folder}")
    for batch in (1, 8):
        found = ours(model, batch)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert model.labels == ("cat", "crane (1)", "crane (2)")


def test_several_labels_at_once_have_a_probability_each(tmp_path: Path) -> None:
    model = registry.classifier(f"hf/{made('vit', tmp_path, problem_type='multi_label_classification')}")
    assert model.activation == model.facts["activation"] == "sigmoid"


def test_a_tower_alone_is_that_of_the_pair(tmp_path: Path) -> None:
    """A folder of CLIP's or SigLIP's vision model alone, with the projection or without."""
    for kind, kept in (("clip", "CLIPVisionModelWithProjection"), ("siglip", "SiglipVisionModel")):
        folder = made(kind, tmp_path / kind, projection_dim=512) if kind == "clip" else made(kind, tmp_path / kind)
        whole = ours(registry.embedder(f"hf/{folder}"), 8)
        with loading.quiet():
            tower = getattr(transformers, kept).from_pretrained(folder)
            tower.save_pretrained(folder)
            np.testing.assert_allclose(ours(registry.embedder(f"hf/{folder}"), 8), whole, atol=1e-6)
            if kind == "clip":
                tower.vision_model.save_pretrained(folder)
                assert registry.embedder(f"hf/{folder}").dim == WIDTHS["hidden_size"]


def test_a_layer_is_pooled_where_the_library_returns_several_things(tmp_path: Path) -> None:
    folder = made("swin", tmp_path)
    with loading.quiet():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        model = transformers.SwinModel.from_pretrained(folder).eval()
    taken: list[Any] = []
    model.encoder.layers[0].register_forward_hook(lambda _module, _inputs, output: taken.append(output[0]))
    with torch.inference_mode():
        for image in images():
            model(**processor(image, return_tensors="pt"))
    found = registry.embedder(f"hf/{folder}", layer="encoder.layers.0")
    np.testing.assert_allclose(ours(found, 8), torch.cat(taken).mean(1).numpy(), atol=1e-3)
    assert found.facts["layer"] == "encoder.layers.0"
    with pytest.raises(WrongUse, match="has no layer 'head'"):
        registry.embedder(f"hf/{folder}", layer="head")


@pytest.mark.parametrize("kind", ["vit", "swinv2", "convnextv2", "dinov3_vit", "siglip", "clip"])
def test_sixteen_bits_are_near(kind: str, tmp_path: Path) -> None:
    model = registry.embedder(f"hf/{made(kind, tmp_path)}")
    fitted = np.stack([resizing.fit(image, model.transform) for image in images()])
    whole, short = (model.load("cpu", precision)(fitted) for precision in ("fp32", "bf16"))
    assert (cosines(short, whole) > 0.99).all()


def test_threads_share_a_model(tmp_path: Path) -> None:
    model = registry.embedder(f"hf/{made('vit', tmp_path)}", layer="layers.0")
    fitted = np.stack([resizing.fit(image, model.transform) for image in images()])
    network = model.load("cpu", "fp32")
    alone = [network(fitted[i : i + 1]) for i in range(len(fitted))]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(network, [fitted[i : i + 1] for i in range(len(fitted))]))
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.faults(minutes=0.5)
@pytest.mark.parametrize("kind", ["vit", "dinov3_vit"])
def test_an_index_is_searched_with_the_model_of_its_vectors(kind: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images()):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    folder = made(kind, tmp_path / "model")
    out, index = tmp_path / "vectors", tmp_path / "index"
    assert here("embed", tmp_path / "photos", "-o", out, "--model", f"hf/{folder}").code == 0
    again = json.loads(here("embed", tmp_path / "photos", "-o", out, "--model", f"hf/{folder}", "--json").out)
    assert (again["computed"], again["reused"]) == (0, len(SIZES))
    rows = {row["path"]: row["embedding"] for row in pq.read_table(out / "data").to_pylist()}
    np.testing.assert_allclose(
        [rows[f"{number}.png"] for number in range(len(SIZES))], own(folder, *BARE[kind]), atol=1e-3
    )
    assert here("index", out, "-o", index).code == 0
    found = json.loads(here("query", index, tmp_path / "photos" / "3.png", "-k", "1", "--json").out)
    assert (found["answered"], found["neighbours"]) == (1, 1)
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "image_mean": [0.4, 0.5, 0.6]}))
    refused = here("embed", tmp_path / "photos", "-o", out, "--model", f"hf/{folder}")
    assert (refused.code, "settings_sha256" in refused.err) == (2, True), refused
