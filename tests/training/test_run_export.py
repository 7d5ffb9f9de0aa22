"""A run as a file for other programs: read back it gives what the run gives, and says what the run says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import onnx
import pytest
import torch
from commands import here, rows
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from training import CLASSES, SIDE, folder

import cvjobs
from cvjobs.common import rules
from cvjobs.common.errors import JobFailed
from cvjobs.networks import licences, registry, sealed_model
from cvjobs.training import plan as training_plan
from cvjobs.training.plan import MODEL, Subject
from cvjobs.training.portable import portable_tasks, pt2_format
from cvjobs.training.run_export import ExportedModel

pytestmark = pytest.mark.slow

ODD = ("a", "ü, [b]: 'c' # \"d\"", "😀\u2028\x85\x7f\n.", "yes")
SMALL: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "epochs": 1, "img_size": str(SIDE), "batch_size": 16}


def made(
    place: Path,
    model: str = "small/cnn",
    *,
    classes: tuple[str, ...] = ODD,
    dim: int = 0,
    multilabel: bool = False,
    side: int = 16,
    **about: Any,
) -> Path:
    """The folder of a run as its first epoch leaves it, with random weights and statistics; ``about`` is said, too."""
    task: Any = "autoencoder" if dim else "classify"
    subject = Subject(
        task=task, model=model, weights="random", classes=classes, dim=dim, side=side, seed=0, init_head=False
    )
    trainable = subject.trainable()
    torch.manual_seed(0)
    for module in trainable.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    said = training_plan.metadata(subject, trainable.transform, 3, 0.5, multilabel=multilabel)
    said["cvjobs"] = json.dumps(json.loads(said["cvjobs"]) | about)
    tensors = {name: tensor.clone().contiguous() for name, tensor in trainable.module.state_dict().items()}
    place.mkdir()
    (place / MODEL).write_bytes(sealed_model.seal(save(tensors, said)))
    return place


def pixels(side: int = 16) -> NDArray[np.uint8]:
    """Five images."""
    return np.random.default_rng(3).integers(0, 256, (5, side, side, 3), np.uint8)


def answers(found: Any, side: int = 16) -> NDArray[np.float32]:
    """What a model gives for them."""
    given: NDArray[np.float32] = found.load("cpu", "fp32")(pixels(side))
    return given


def exported(run: Path, file: Path, name: str) -> ExportedModel:
    """What was written of a run."""
    found = cvjobs.export(run, file, name)
    assert isinstance(found, ExportedModel)
    return found


def same_scores(run: Path, file: Path, side: int = 16) -> None:
    """Both are one classifier."""
    one, other = registry.classifier(str(run)), registry.classifier(f"onnx/{file}")
    assert (one.labels, one.activation, one.transform) == (other.labels, other.activation, other.transform)
    first, second = (torch.from_numpy(answers(model, side)) for model in (one, other))
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-4)
    likely = torch.sigmoid if one.activation == "sigmoid" else torch.nn.Softmax(1)
    assert torch.allclose(likely(first), likely(second), atol=1e-3)


def same_vectors(run: Path, file: Path, side: int = 16) -> None:
    """Both are one embedder."""
    one, other = registry.embedder(str(run)), registry.embedder(f"onnx/{file}")
    assert (one.dim, one.transform) == (other.dim, other.transform)
    np.testing.assert_allclose(answers(one, side), answers(other, side), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended, with its images beside it."""
    place = tmp_path_factory.mktemp("trained")
    cvjobs.train(folder(place / "images", 8), place / "run", **SMALL)
    return place


@pytest.fixture(scope="module")
def birds(trained: Path) -> Path:
    """That run as an ONNX file."""
    file = trained / "birds.onnx"
    done = here("export", str(trained / "run"), "--format", "ONNX", "-o", str(file))
    assert done.code == 0, done.err
    assert done.out.startswith(f"small/cnn, 3 classes, images of {SIDE} × {SIDE} pixels, epoch 1\n")
    assert done.out.rstrip().endswith(f"for `cvjobs classify` and `cvjobs embed` with --model onnx/{file}")
    assert sorted(entry.name for entry in trained.iterdir()) == ["birds.onnx", "images", "run"]
    return file


def test_an_onnx_file_needs_no_card(trained: Path, birds: Path, tmp_path: Path) -> None:
    images = str(trained / "images")
    for command, columns in (("classify", ("label", "score")), ("embed", ("embedding",))):
        tables = []
        for name, model in (("run", str(trained / "run")), ("file", f"onnx/{birds}")):
            out = tmp_path / f"{command}-{name}"
            assert here(command, images, "-o", str(out), "--model", model).code == 0
            tables.append({row["path"]: row for row in rows(out).to_pylist()})
        assert tables[0].keys() == tables[1].keys()
        assert len(tables[0]) == 24
        for path, row in tables[0].items():
            for column in columns:
                assert row[column] == pytest.approx(tables[1][path][column], abs=1e-3)


def test_what_the_file_says_of_a_run_is_the_same_each_time(trained: Path, birds: Path, tmp_path: Path) -> None:
    found = exported(trained / "run", tmp_path / "m.onnx", "onnx")
    assert found.ended
    assert found.epoch == 1
    assert found.outputs == ("logits", "vector")
    assert found.size == (SIDE, SIDE)
    assert found.licence == {"code": "Apache-2.0", "weights": "none", "use": "free"}
    proto = onnx.load(str(tmp_path / "m.onnx"))
    onnx.checker.check_model(proto)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(said["labels"]) == list(CLASSES)
    assert json.loads(said["licence"]) == found.licence
    assert (said["task"], said["activation"], said["resize"], said["layout"]) == (
        *("classify", "softmax", "squash", "NCHW"),
    )
    assert json.loads(said["size"]) == [SIDE, SIDE]
    assert json.loads(said["mean"]) == [0.5, 0.5, 0.5]
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(cvjobs.__file__).parent).encode() not in content, "nothing of this machine's folders"
    assert birds.read_bytes() == content
    shown = here("models", f"onnx/{tmp_path / 'm.onnx'}").out
    assert "classify, embed" in shown
    assert "3: blue, green, red" in shown


def test_a_classifier_of_several_labels_is_read_back_with_its_classes(tmp_path: Path) -> None:
    run, file = made(tmp_path / "run", multilabel=True), tmp_path / "m.onnx"
    found = exported(run, file, "onnx")
    assert not found.ended
    assert "the best so far" in str(found)
    same_scores(run, file)
    same_vectors(run, file)


def test_an_autoencoder_gives_its_vector(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "small/autoencoder", classes=(), dim=6)
    assert exported(run, tmp_path / "m.onnx", "onnx").outputs == ("vector",)
    same_vectors(run, tmp_path / "m.onnx")
    exported(run, tmp_path / "m.pt2", "pt2")
    (found,) = program(tmp_path / "m.pt2")[0]
    np.testing.assert_allclose(found.numpy(), answers(registry.embedder(str(run))), rtol=1e-4, atol=1e-5)


def program(file: Path, side: int = 16) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
    """What a program of torch.export gives for the images, and what it says of itself."""
    said = {"metadata.json": ""}
    loaded = torch.export.load(file, extra_files=said)
    about: dict[str, Any] = json.loads(said["metadata.json"])
    mean, std = (torch.tensor(about[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = torch.from_numpy(pixels(side)).permute(0, 3, 1, 2) / 255
    assert str(Path(cvjobs.__file__).parent).encode() not in file.read_bytes()
    with torch.inference_mode():
        return tuple(loaded.module()((images - mean) / std)), about


def test_a_program_of_torch_export_gives_logits_and_vectors(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    exported(run, tmp_path / "m.pt2", "pt2")
    (logits, vectors), said = program(tmp_path / "m.pt2")
    np.testing.assert_allclose(logits.numpy(), answers(registry.classifier(str(run))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vectors.numpy(), answers(registry.embedder(str(run))), rtol=1e-4, atol=1e-5)
    assert said["labels"] == list(ODD)
    assert said["activation"] == "softmax"
    assert said["licence"]["use"] == "unknown"


def test_weights_go_with_what_is_said_of_them_and_are_a_run_by_themselves(tmp_path: Path) -> None:
    run, alone = made(tmp_path / "run"), tmp_path / "alone"
    alone.mkdir()
    written = exported(run, alone / MODEL, "safetensors")
    assert written.outputs == ()
    assert "\n  the run's weights to the last bit, with metadata\n" in str(written)
    with safe_open(alone / MODEL, "pt") as found, safe_open(run / MODEL, "pt") as own:
        assert found.keys() == own.keys()
        assert all(found.get_tensor(name).equal(own.get_tensor(name)) for name in own.keys())  # noqa: SIM118
        said = found.metadata()
    assert json.loads(said["labels"]) == list(ODD)
    assert said["resize"] == "squash"
    one, other = (registry.classifier(str(place)) for place in (run, alone))
    assert one.labels == other.labels
    np.testing.assert_array_equal(answers(one), answers(other))


def test_a_run_in_a_bucket_becomes_a_file_in_it(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    bucket = buckets.made(s3, "exported")
    bucket.upload(made(tmp_path / "run"), "run")
    line = ("export", bucket.url("run"), "--format", "safetensors", "-o", bucket.url("out/m.safetensors"))
    done = here(*line, *bucket.options)
    assert done.code == 0, done.err
    assert bucket.keys("out") == ["out/m.safetensors"]
    (tmp_path / "m.safetensors").write_bytes(bucket.read("out/m.safetensors"))
    assert sealed_model.hashed(tmp_path / "m.safetensors")[1]
    assert "is there already" in here(*line, *bucket.options).err
    assert here(*line, "--overwrite", *bucket.options).code == 0
    assert (
        "holds no training run: name" in here("export", bucket.url("no"), *line[2:], "--overwrite", *bucket.options).err
    )


@pytest.mark.faults(minutes=4)
@pytest.mark.parametrize(
    "model", ["torchvision/mobilenet_v2", "torchvision/squeezenet1_1", "timm/vit_tiny_patch16_224"]
)
def test_networks_of_torchvision_and_timm(model: str, tmp_path: Path) -> None:
    side = 64 if model.startswith("torchvision") else 224
    run = made(tmp_path / "run", model, classes=CLASSES, side=side)
    for name in ("onnx", "pt2", "safetensors"):
        exported(run, tmp_path / f"m.{name}", name)
    same_scores(run, tmp_path / "m.onnx", side)
    same_vectors(run, tmp_path / "m.onnx", side)
    (logits, vectors), _ = program(tmp_path / "m.pt2", side)
    np.testing.assert_allclose(logits.numpy(), answers(registry.classifier(str(run)), side), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(vectors.numpy(), answers(registry.embedder(str(run)), side), rtol=1e-3, atol=1e-4)
    sizes = [(tmp_path / f"m.{name}").stat().st_size for name in ("onnx", "pt2", "safetensors")]
    assert sizes[0] < 1.3 * sizes[2], "the tensors of both outputs are in the file once"


def test_the_rules_of_pixels_of_a_run_of_before_go_with_it_and_a_card_counts_more(
    tmp_path: Path,
) -> None:
    run = made(tmp_path / "run")
    transform = registry.classifier(str(run)).transform
    before = replace(transform, pixel_rules=rules.FIRST, bits=12)
    old = made(tmp_path / "old", transform=before.record())
    card = tmp_path / "m.yaml"
    card.write_text("activation: sigmoid\n")
    assert f"  {card} lies beside it" in str(exported(old, tmp_path / "m.onnx", "onnx"))
    found = registry.classifier(f"onnx/{tmp_path / 'm.onnx'}")
    assert (found.transform, found.activation) == (before, "sigmoid")


def test_a_file_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    model = portable_tasks.of_run(str(made(tmp_path / "run")), licences.UNSAID)
    images = model.sample()
    logits, vector = model.expected(images)
    assert model.compare(images, [logits, vector]) == 0
    for name, found in (
        ("logits", [logits + 0.01, vector]),
        ("vector", [logits, vector * 1.01]),
        ("vector", [logits, vector * float("nan")]),
    ):
        with pytest.raises(JobFailed, match=f"The {name} of the file differ from those that .* gives in torch by "):
            model.compare(images, found)
    with pytest.raises(JobFailed, match="another shape"):
        model.compare(images, [logits[:, :2], vector])


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    run, file = made(tmp_path / "run"), tmp_path / "m.safetensors"
    file.write_text("mine")
    line = ("export", str(run), "--format", "safetensors", "-o", str(file))
    done = here(*line)
    assert done.code == 2
    assert "is there already: choose another -o, or give --overwrite to replace it." in done.err
    assert file.read_text() == "mine"
    done = here(*line, "--overwrite")
    assert done.code == 0
    assert file.stat().st_size > 1000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.safetensors", "run"]


def test_what_cannot_leave_is_one_sentence(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run")
    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    damaged = made(tmp_path / "damaged")
    content = bytearray((damaged / MODEL).read_bytes())
    content[-5] ^= 1
    (damaged / MODEL).write_bytes(content)
    results = tmp_path / "results"
    assert here("embed", str(trained / "images"), "-o", str(results), "--model", "thumbnail/4").code == 0
    cases = [
        ((begun, "onnx"), "has no model.safetensors yet: train until its first epoch is done."),
        ((damaged, "onnx"), "is damaged (its digest differs)"),
        ((tmp_path / "nothing", "pt2"), "nothing: name the -o folder of `cvjobs train`."),
        ((results, "onnx"), "holds images' results, and --format onnx is for the model of a training run"),
        ((run, "csv"), "holds a training run, and --format csv is for images' results: choose onnx, pt2, safetensors."),
        ((run, "onx"), "There is no format 'onx' (nearest: onnx"),
        ((run, "pt2", "--category-ids", "coco"), "--category-ids is a matter of --format coco"),
        ((results, "csv", "--overwrite"), "--overwrite is about the model of a run"),
        ((made(tmp_path / "later", task="later"), "onnx"), "was trained for later, which has no place in a file"),
    ]
    for (place, name, *more), said in cases:
        done = here("export", str(place), "--format", name, "-o", str(tmp_path / "out"), *more)
        assert (done.code, said in done.err) == (2, True), done.err
        assert not (tmp_path / "out").exists()
    inside = here("export", str(trained / "run"), "--format", "pt2", "-o", str(trained / "run" / MODEL), "--overwrite")
    assert inside.code == 2
    assert "is a part of a training run" in inside.err
    spaced = made(tmp_path / "spaced", classes=("a", " b"))
    done = here("export", str(spaced), "--format", "onnx", "-o", str(tmp_path / "out"))
    assert done.code == 1
    assert "some begin or end with a space" in done.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = here("export", str(run), "--format", "onnx", "-o", str(tmp_path / "out"))
    assert done.code == 2
    assert "--format onnx needs onnxscript: pip install 'cvjobs[onnx]'." in done.err


def test_what_torch_cannot_follow_is_one_sentence(tmp_path: Path) -> None:
    model = portable_tasks.of_run(str(made(tmp_path / "run")), licences.UNSAID)

    class Branches(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (images if images.sum() > 0 else images + 1,)

    with pytest.raises(JobFailed, match=r"cannot export small/cnn as pt2 .*choose --format safetensors"):
        pt2_format.write(replace(model, module=Branches(), outputs=("vector",)), tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()
