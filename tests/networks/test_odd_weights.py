"""Weights from elsewhere: checkpoints of trainings are opened by rule and said, and what is no model is named."""

from __future__ import annotations

import argparse
import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import odd_weights
import pytest
import timm
import torch
from fuzzing import Seeds
from odd_weights import Tensors, prefixed
from reference import TINY, refused, seeded
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry, weights
from cvjobs.networks.registry import classifier, detector, embedder, segmenter
from cvjobs.networks.torchvision import classifiers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]
SQUEEZE = "torchvision/squeezenet1_1"


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    found: Tensors = seeded(models.squeezenet1_1).state_dict()
    return found


@pytest.fixture(scope="module")
def tiny() -> Tensors:
    found: Tensors = seeded(timm.create_model, model_name="test_resnet").state_dict()
    return found


def moved(tensors: Tensors, by: float = 1) -> Tensors:
    return {name: tensor + by if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def file(tmp_path: Path, content: Any, **options: Any) -> str:
    torch.save(content, tmp_path / "mine.pth", **options)
    return str(tmp_path / "mine.pth")


def holds(model: Any, expected: Tensors) -> bool:
    """Whether a module has these tensors, but for its last layer."""
    own = {name.removeprefix("model."): tensor for name, tensor in model.module.state_dict().items()}
    assert set(own) <= set(expected)
    return all(torch.equal(tensor, expected[name]) for name, tensor in own.items())


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a file; the next one is said, too."""
    weights._say.cache_clear()
    return capsys.readouterr().err


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.model.", "backbone.", "encoder."]


@pytest.mark.parametrize(("name", "prefix"), [*((SQUEEZE, each) for each in PREFIXES), (TINY, "module.model.")])
def test_a_prefix_of_all_names(
    tmp_path: Path, prefix: str, name: str, tensors: Tensors, tiny: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tensors if name == SQUEEZE else tiny
    model = embedder(name, weights=file(tmp_path, prefixed(own, prefix)))
    assert holds(model, own)
    assert model.facts["weights"] == "mine.pth"
    lines = said(capsys).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        f"cvjobs: {tmp_path / 'mine.pth'} is a checkpoint: its tensors are taken; names without "
    )


WRAPPERS = ["state_dict", "model", "model_state_dict", "net", "anything"]


@pytest.mark.parametrize(("name", "key"), [*((SQUEEZE, each) for each in WRAPPERS), (TINY, "state_dict")])
def test_a_wrapper(
    tmp_path: Path, key: str, name: str, tensors: Tensors, tiny: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tensors if name == SQUEEZE else tiny
    content = {"epoch": 3, "arch": "x", key: own, "optimizer": {"state": {0: {"a": torch.zeros(1)}}}}
    model = embedder(name, weights=file(tmp_path, content))
    assert holds(model, own)
    assert model.facts["weights"] == f"mine.pth ({key})"
    assert said(capsys) == f"cvjobs: {tmp_path / 'mine.pth'} is a checkpoint: its {key} is taken.\n"


AVERAGES = ["state_dict_ema", "model_ema", "ema_state_dict", "ema"]


@pytest.mark.parametrize(("name", "average"), [*((SQUEEZE, each) for each in AVERAGES), (TINY, "model_ema")])
def test_averages_are_taken_as_timm_and_torchvision_do(
    tmp_path: Path, average: str, name: str, tensors: Tensors, tiny: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tensors if name == SQUEEZE else tiny
    averages = moved(own)
    model = embedder(name, weights=file(tmp_path, {"state_dict": own, average: averages}))
    assert holds(model, averages)
    assert model.facts["weights"] == f"mine.pth ({average})"
    assert f"its {average} is taken, not its state_dict." in said(capsys)


def test_a_checkpoint_of_torchvisions_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = seeded(models.squeezenet1_1)
    average = AveragedModel(module)
    for parameter in average.parameters():
        parameter.data += 1
    content = {
        "model": module.state_dict(),
        "optimizer": torch.optim.SGD(module.parameters(), 0.1, momentum=0.9).state_dict(),
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
        "model_ema": average.state_dict(),
    }
    assert holds(embedder(SQUEEZE, weights=file(tmp_path, content)), average.module.state_dict())
    assert "its model_ema is taken, not its model; names without 'module.'." in said(capsys)


def test_a_checkpoint_of_lightning(tmp_path: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]) -> None:
    state = prefixed(tensors, "model.") | {"criterion.weight": torch.ones(1000), "metric.total": torch.zeros(1)}
    content = {"pytorch-lightning_version": "2.5", "state_dict": state, "loops": {}, "hyper_parameters": {"lr": 1}}
    assert holds(embedder(SQUEEZE, weights=file(tmp_path, content)), tensors)
    assert "its state_dict is taken; names without 'model.'; without criterion.weight, metric.total." in said(capsys)
    averaged = {"state_dict": state | prefixed(moved(tensors), "ema_model.")}
    assert holds(embedder(SQUEEZE, weights=file(tmp_path, averaged)), moved(tensors))
    assert "names without 'ema_model.'" in said(capsys)


def test_a_model_of_which_a_part_was_compiled_or_sharded(tmp_path: Path, tensors: Tensors) -> None:
    for word in ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"):
        inside = {name.replace("features.3.", f"features.3.{word}."): tensor for name, tensor in tensors.items()}
        assert holds(embedder(SQUEEZE, weights=file(tmp_path, inside)), tensors)


def test_numbers_beside_the_tensors(tmp_path: Path, tensors: Tensors, capsys: pytest.CaptureFixture[str]) -> None:
    assert holds(embedder(SQUEEZE, weights=file(tmp_path, {**tensors, "epoch": 3, "arch": "x"})), tensors)
    assert said(capsys).endswith("mine.pth is a checkpoint: its tensors are taken; without epoch, arch.\n")


def test_a_model_that_is_there_several_times_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    both = {"teacher": tensors, "student": moved(tensors)}
    sentence = refused(SQUEEZE, weights=file(tmp_path, both))
    assert "holds the model several times (teacher, student)" in sentence
    flat = prefixed(tensors, "teacher.") | prefixed(moved(tensors), "student.")
    assert "several times (teacher, student)" in refused(SQUEEZE, weights=file(tmp_path, flat))
    mine = flat | prefixed(moved(tensors, 2), "model.")
    assert holds(embedder(SQUEEZE, weights=file(tmp_path, mine)), moved(tensors, 2))


@pytest.mark.parametrize("name", [SQUEEZE, TINY, "timm/test_vit"])
def test_what_matches_nothing_is_named(tmp_path: Path, name: str) -> None:
    other = {f"encoder.layer.{number}.weight": torch.zeros(2) for number in range(5)}
    for content in (other, {"state_dict": other, "epoch": 1}):
        assert "encoder.layer.0.weight" in refused(name, weights=file(tmp_path, content))
    sentence = refused(name, weights=file(tmp_path, {"epoch": 1, "arch": "x", "best": 0.5, "seed": 1}))
    assert "holds no tensor of a model, but epoch, arch, best and 1 more" in sentence


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_checkpoint_runs(tmp_path: Path, legacy: bool, tensors: Tensors) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    hidden = argparse.Namespace(inside=Payload())
    for content in ({"state_dict": tensors, "args": hidden}, {"model": tensors, "hyper": {"deep": [Payload()]}}):
        place = file(tmp_path, content, _use_new_zipfile_serialization=not legacy)
        sentence = refused(SQUEEZE, weights=place)
        assert "was refused, for it holds more than tensors (posix.mkdir)" in sentence
    assert not (tmp_path / "pwned").exists()
    assert "(torch.nn.modules.linear.Linear)" in refused(SQUEEZE, weights=file(tmp_path, nn.Linear(1, 1)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_files_of_something_else_are_named(tmp_path: Path) -> None:
    place = tmp_path / "mine.pth"
    torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)).save(str(place))  # type: ignore[no-untyped-call]
    assert "(a TorchScript program)" in refused(SQUEEZE, weights=str(place))
    for content, words in {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "git lfs pull",
        b"\n<!DOCTYPE html><html>": "is a web page",
        b"<html>": "is a web page",
    }.items():
        for name in ("mine.pth", "mine.safetensors"):
            (tmp_path / name).write_bytes(content)
            assert words in refused(SQUEEZE, weights=str(tmp_path / name))


def test_a_format_under_the_name_of_another(tmp_path: Path, tensors: Tensors) -> None:
    save_file(tensors, tmp_path / "mine.bin", metadata={"labels": '["a"]'})
    torch.save(tensors, tmp_path / "mine.safetensors")
    for name in ("mine.bin", "mine.safetensors"):
        assert holds(embedder(SQUEEZE, weights=str(tmp_path / name)), tensors)
    assert weights.head(weights.given(str(tmp_path / "mine.bin"))).labels == ("a",)


@pytest.mark.parametrize("name", [SQUEEZE, TINY])
def test_a_head_of_another_size_is_said(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    family, _, model = name.partition("/")
    build: Callable[..., Any] = models.get_model if family == "torchvision" else timm.create_model
    state = build(model, num_classes=7).state_dict()
    place = file(tmp_path, {"state_dict": prefixed(state, "module.")})
    assert len(classifier(name, weights=place, labels=list("abcdefg")).labels) == 7
    assert "mine.pth has a head of 7 classes, not 1,000." in said(capsys)
    trained = registry.trainable(name, weights=place, classes=3)
    assert trained.weights.label == "mine.pth (state_dict)"
    one = file(tmp_path, build(model, num_classes=1).state_dict())
    assert embedder(name, weights=one).facts["weights"] == "mine.pth"
    assert "has a head of 1 class, not 1,000." in said(capsys)


@pytest.mark.faults(minutes=0.2)
def test_detectors_and_segmenters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for make, name in (
        (detector, "ssdlite320_mobilenet_v3_large"),
        (segmenter, "lraspp_mobilenet_v3_large"),
    ):
        own = seeded(models.get_model, name=name, weights=None, weights_backbone=None, num_classes=4).state_dict()
        place = file(tmp_path, {"model": prefixed(own, "module."), "args": argparse.Namespace(), "epoch": 1})
        found = make(f"torchvision/{name}", weights=place, labels=["a", "b", "c"])
        assert found.facts["weights"] == "mine.pth (model)"
        lines = said(capsys)
        assert "its model is taken; names without 'module.'." in lines
        assert "has a head of 3 classes, not " in lines


def test_what_timm_reads_by_itself_stays_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = seeded(timm.create_model, model_name="test_vit").state_dict()
    model = embedder("timm/test_vit", weights=file(tmp_path, {"model": own, "model_ema": moved(own)}))
    assert holds(model, own)
    assert "its model is taken, not its model_ema." in said(capsys)


@pytest.mark.faults
def test_every_classifier_of_torchvision_tells_its_names_without_its_weights() -> None:
    for name in classifiers.names():
        options = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        assert classifiers._names(name, options)


def test_odd_weights(seeds: Seeds, tmp_path: Path, tensors: Tensors, tiny: Tensors) -> None:
    for seed in seeds(3):
        random = np.random.default_rng(seed)
        name, own = (SQUEEZE, tensors) if random.integers(2) else (TINY, tiny)
        content, meant, flat = odd_weights.checkpoint(random, own, moved(own))
        place = odd_weights.saved(random, content, flat, tmp_path)
        assert holds(embedder(name, weights=str(place)), meant)
        digest = weights.given(str(place)).sha256
        assert embedder(name, weights=str(place)).facts["weights_sha256"] == digest
        place.unlink()


def test_odd_damage(seeds: Seeds, tmp_path: Path, tiny: Tensors) -> None:
    for seed in seeds(4):
        random = np.random.default_rng(seed)
        content, _, flat = odd_weights.checkpoint(random, tiny, moved(tiny))
        place = odd_weights.saved(random, content, flat, tmp_path)
        odd_weights.damage(random, place)
        with contextlib.suppress(WrongUse):
            weights.state(weights.given(str(place)))
        place.unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04" + b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 2) + b"PK\x05\x06" + bytes(18),
        b"PK\x05\x06" + bytes(18),
        b"\x80\x96",
        b"\x80\x02.",
    ],
    ids=["a zip of two disks", "an empty zip", "a protocol of the future", "half a pickle"],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.pth").write_bytes(content)
    assert "mine.pth" in refused(SQUEEZE, weights=str(tmp_path / "mine.pth"))
