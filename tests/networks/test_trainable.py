"""Models that are trained: a new head on old weights, in any family, and the same module again from the run's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cvjobs.common.errors import WrongUse
from cvjobs.networks import head_transfer, registry
from cvjobs.networks.trainable import Trainable

pytestmark = pytest.mark.slow

CLASSES = ("ape", "bee", "cow")


def leave(trainable: Trainable, run: Path) -> Path:
    """Write what a training run would."""
    run.mkdir()
    about = {"model": trainable.name, "classes": len(CLASSES), "transform": trainable.transform.record()}
    tensors = {name: tensor.clone() for name, tensor in trainable.module.state_dict().items()}
    save_file(tensors, run / "model.safetensors", {"labels": json.dumps(CLASSES), "cvjobs": json.dumps(about)})
    return run


@pytest.mark.parametrize(
    ("name", "side", "dim"),
    [
        ("torchvision/squeezenet1_1", 64, 512),
        pytest.param("torchvision/mobilenet_v3_small", 32, 1024, marks=pytest.mark.faults),
        pytest.param("torchvision/googlenet", 64, 1024, marks=pytest.mark.faults),
        ("timm/test_vit", 64, 64),
        ("timm/test_resnet", None, 96),
        ("small/cnn", 12, 128),
    ],
)
def test_a_run_gives_the_trained_module_back(tmp_path: Path, name: str, side: int | None, dim: int) -> None:
    trainable = registry.trainable(name, weights="random", classes=3, side=side, seed=5)
    module = trainable.module.eval()
    run = leave(trainable, tmp_path / "run")
    height, width = trainable.transform.size or (0, 0)
    assert side in (None, height)
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (trainable.transform.mean, trainable.transform.std))
    with torch.inference_mode():
        logits = module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    found = registry.classifier(str(run))
    assert found.labels == CLASSES
    assert found.load("cpu", "fp32")(pixels) == pytest.approx(logits, abs=1e-4)
    embedder = registry.embedder(str(run))
    assert embedder.dim == dim
    assert embedder.load("cpu", "fp32")(pixels).shape == (2, dim)


def test_the_head_depends_on_the_seed_and_the_rest_begins_with_the_weights(tmp_path: Path) -> None:
    source = registry.trainable("timm/test_resnet", weights="random", classes=7, seed=1)
    save_file(source.module.state_dict(), tmp_path / "own.safetensors")
    one, two = (
        registry.trainable(
            "timm/test_resnet", weights=str(tmp_path / "own.safetensors"), classes=7, seed=seed
        ).module.state_dict()
        for seed in (1, 2)
    )
    assert torch.equal(one["conv1.0.weight"], source.module.state_dict()["conv1.0.weight"])
    assert torch.equal(one["conv1.0.weight"], two["conv1.0.weight"])
    assert not torch.equal(one["fc.weight"], two["fc.weight"])
    assert not torch.equal(two["fc.weight"], source.module.state_dict()["fc.weight"])  # as many classes, not the same


ANIMALS = ("Sea lion", "tabby, tabby cat", "crane", "crane, crane bird", "great white-shark")


@pytest.mark.parametrize(
    ("label", "row"),
    [
        ("sea_lion", 0),
        ("SEALION", 0),
        ("Tabby Cat", 1),
        ("tabby", 1),
        ("tabby, tabby cat", 1),
        ("crane bird", 3),
        ("great-white_shark", 4),
        ("crane", None),  # of two classes
        ("lion", None),
        ("", None),
    ],
)
def test_which_class_a_name_is_of(label: str, row: int | None) -> None:
    assert head_transfer.matches((label, "else"), [(name,) for name in ANIMALS]).get(0) == row


def test_two_names_of_one_class_are_left_out() -> None:
    assert head_transfer.matches(("tabby", "tabby cat", "sea lion"), [(name,) for name in ANIMALS]) == {2: 0}


@pytest.fixture(scope="module", params=["timm/test_resnet", "torchvision/squeezenet1_1"])
def expert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model and the file of its weights, which knows ``ANIMALS``."""
    file = tmp_path_factory.mktemp("expert") / "own.safetensors"
    source = registry.trainable(request.param, weights="random", classes=len(ANIMALS), seed=1)
    save_file(source.module.state_dict(), file, {"labels": json.dumps(ANIMALS)})
    return request.param, str(file)


def test_a_head_begins_with_the_rows_of_its_classes_and_else_as_it_would_without(expert: tuple[str, str]) -> None:
    name, file = expert
    labels = ("Tabby_Cat", "ape", "sea-lion")
    plain, begun = (registry.trainable(name, weights=file, classes=3, seed=5, labels=given) for given in ((), labels))
    assert (plain.inherited, begun.inherited) == (None, 2)
    theirs, without, own = load_file(file), plain.module.state_dict(), begun.module.state_dict()
    changed = [key for key in own if not torch.equal(own[key], without[key])]
    assert len(changed) == 2
    for key in changed:
        assert torch.equal(own[key][0], theirs[key][1])
        assert torch.equal(own[key][1], without[key][1])
        assert torch.equal(own[key][2], theirs[key][0])


def test_classes_that_match_are_told_apart_before_any_step(expert: tuple[str, str]) -> None:
    name, file = expert
    labels = ("great white shark", "sea lion", "tabby")
    begun = registry.trainable(name, weights=file, classes=3, side=64, labels=labels).module.eval()
    whole = registry.trainable(name, weights=file, classes=5, side=64, labels=(*ANIMALS[:2], "a", "b", ANIMALS[4]))
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(begun(images).argmax(1), whole.module.eval()(images)[:, [4, 0, 1]].argmax(1))


def test_a_distilled_model_has_two_heads_that_begin_so(tmp_path: Path) -> None:
    source = registry.trainable("timm/deit_tiny_distilled_patch16_224", weights="random", classes=3, side=32, seed=1)
    save_file(source.module.state_dict(), tmp_path / "own.safetensors", {"labels": json.dumps(CLASSES)})
    begun = registry.trainable(
        source.name, weights=str(tmp_path / "own.safetensors"), classes=2, side=32, labels=("cow", "dog")
    )
    for key in ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias"):
        assert torch.equal(begun.module.state_dict()[key][0], source.module.state_dict()[key][2])


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/squeezenet1_1"])
def test_names_of_imagenet_by_wordnet(tmp_path: Path, name: str) -> None:
    source = registry.trainable(name, weights="random", classes=1000)
    save_file(source.module.state_dict(), tmp_path / "own.safetensors")
    begun = registry.trainable(
        name, weights=str(tmp_path / "own.safetensors"), classes=2, labels=("n02123045", "Egyptian_cat")
    )
    assert begun.inherited == 2
    head = [key for key in begun.module.state_dict() if key.endswith("bias")][-1]
    assert torch.equal(begun.module.state_dict()[head], source.module.state_dict()[head][[281, 285]])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("sea_lions", "bee"), r"nearest: Sea lion\): name classes as those are, or leave out --init-head-from-labels"),
        (("xyz", "bee"), r"such as Sea lion, tabby, tabby cat, crane\)"),
    ],
)
def test_no_class_of_the_weights_own(expert: tuple[str, str], labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        registry.trainable(expert[0], weights=expert[1], classes=2, labels=labels)


def test_weights_that_do_not_name_their_classes(tmp_path: Path) -> None:
    source = registry.trainable("timm/test_resnet", weights="random", classes=7)
    save_file(source.module.state_dict(), tmp_path / "own.safetensors")
    with pytest.raises(WrongUse, match=r"have 7 classes and .*own.safetensors does not name them: write `labels`"):
        registry.trainable(source.name, weights=str(tmp_path / "own.safetensors"), classes=3, labels=CLASSES)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("small/rnn", {}, "There is no model small/rnn"),
        ("small/cnn", {"weights": "own.pth"}, "There is no weights file own.pth"),
        ("small/cnn", {"side": 2}, "at least 4"),
        ("small/cnn", {"labels": CLASSES}, "leave out --init-head-from-labels"),
        ("timm/test_resnet", {"labels": CLASSES, "weights": "random"}, "Random weights know no classes"),
        ("torchvision/maxvit_t", {"side": 64, "weights": "random"}, "leave out --img-size"),
        ("thumbnail/8", {}, "no models for that"),
        ("mobilenet_v22", {}, "mobilenet_v2"),
    ],
)
def test_what_cannot_be_trained(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        registry.trainable(name, classes=3, **options)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(WrongUse, match="train until its first epoch is done"):
        registry.classifier(str(run))
    save_file({"a": torch.zeros(1)}, run / "model.safetensors")
    with pytest.raises(WrongUse, match="is not the model of a `cvjobs train` run"):
        registry.embedder(str(run))
    (run / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(WrongUse, match="is not the model of a `cvjobs train` run"):
        registry.classifier(str(run))


def test_a_run_has_weights_of_its_own(tmp_path: Path) -> None:
    run = leave(registry.trainable("small/cnn", weights="random", classes=3), tmp_path / "run")
    with pytest.raises(WrongUse, match="leave out --weights"):
        registry.classifier(str(run), weights="random")
