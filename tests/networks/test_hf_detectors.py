"""Detectors of transformers: boxes, scores, classes and masks are those of its own processors on each image alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf_detectors
import numpy as np
import pytest
import torch
from detectors import same
from hf_detectors import CLASSES, KINDS, made, own, pictures

from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import rle
from cvjobs.images.picture import Picture
from cvjobs.networks.detection.detector_network import DetectorNetwork
from cvjobs.networks.detection.settings import Rules, Settings
from cvjobs.networks.hf import detector_framing, folding, loading
from cvjobs.networks.hf.detectors import SetDetector, detector
from cvjobs.networks.hf.image_processor import image_processor
from cvjobs.networks.hf.repository import Repository, opened
from cvjobs.networks.torch_network import Normalizer
from cvjobs.prediction.tasks.instance_step import Instances

pytestmark = pytest.mark.slow

# Larger and smaller than the model's size, long, high, and three of one size.
SIZES = [(150, 200), (90, 260), (150, 200), (200, 31), (33, 50), (128, 128), (70, 110), (150, 200)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Repository]:
    """Return the repository of a kind, made once."""
    found: dict[str, Repository] = {}

    def of(kind: str) -> Repository:
        if kind not in found:
            name, _, masks = kind.partition("+")
            found[kind] = made(name, tmp_path_factory.mktemp(kind), masks=bool(masks))
        return found[kind]

    return of


def network(model: SetDetector, conf: float = 0.0, **settings: Any) -> DetectorNetwork:
    return model.ruled(Settings(conf=conf, **settings)).load("cpu", "fp32")


def agree(found: Any, expected: Any) -> None:
    """Every box has its counterpart; random scores lie close together, also at the last that is kept."""
    same(found, expected, clear=0.3)


def groups(loaded: DetectorNetwork, images: list[Any]) -> list[list[int]]:
    """The numbers of images that share a batch."""
    shapes = [loaded.shape(*image.shape[:2]) for image in images]
    return [[i for i, other in enumerate(shapes) if other == shape] for shape in set(shapes)]


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_transformers(kind: str, repository: Callable[[str], Repository]) -> None:
    images = pictures(SIZES)
    expected = own(repository(kind), images, 0.0)
    assert min(len(each["scores"]) for each in expected) >= 30
    model = detector(repository(kind), "pretrained", ())
    loaded = network(model)
    for group in groups(loaded, images):
        for i, found in zip(group, loaded([images[i] for i in group]), strict=True):
            agree(found, expected[i])
            agree(loaded([images[i]])[0], expected[i])
    scores = np.concatenate([each["scores"] for each in expected])
    conf = float(np.median(scores))
    some = network(model, conf)(images[:1])[0]
    assert some is not None
    assert len(some.scores) == (expected[0]["scores"] > conf).sum()


def test_masks_are_transformers(repository: Callable[[str], Repository]) -> None:
    images = pictures(SIZES)
    expected = own(repository("rf_detr+masks"), images, 0.8, masks=True)
    model = detector(repository("rf_detr+masks"), "pretrained", (), masks=True)
    loaded = network(model, 0.8)
    for found, theirs, image in zip(loaded(images), expected, images, strict=True):
        assert found is not None
        assert found.rles is not None
        assert len(found.rles) == len(theirs["segmentation"])
        scores = [one["score"] for one in theirs["segments_info"]]
        np.testing.assert_allclose(found.scores, scores, atol=1e-3)
        for text, mask in zip(found.rles, theirs["segmentation"].numpy(), strict=True):
            ours = rle.decode(text, *image.shape[:2]) > 0
            assert (ours & mask).sum() / (ours | mask).sum() > 0.99
    rows = Instances(loaded, model.categories)([Picture(image, *image.shape[:2]) for image in images[:2]])
    assert [len(row) for row in rows.arrays[0].to_pylist()] == [len(each["segmentation"]) for each in expected[:2]]


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("rt_detr", {}),
    ("rt_detr", {"size": {"height": 96, "width": 160}, "resample": 3, "do_normalize": True}),
    ("rt_detr", {"resample": 0, "do_rescale": False}),
    ("rt_detr", {"size": {"max_height": 100, "max_width": 120}, "rescale_factor": 1 / 127.5}),
    (
        "rt_detr",
        {"do_pad": True, "size": {"max_height": 90, "max_width": 120}, "pad_size": {"height": 96, "width": 128}},
    ),
    ("rf_detr", {}),
    ("rf_detr", {"do_rescale": False, "do_normalize": False}),
    ("lw_detr", {"do_normalize": False}),
    ("detr", {"size": {"shortest_edge": 70, "longest_edge": 110}}),
    ("yolos", {"size": {"shortest_edge": 70, "longest_edge": 110}}),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_inputs_are_the_processors(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    name, usual = hf_detectors.PROCESSORS[kind]
    with loading.quiet():
        import transformers

        theirs = getattr(transformers, name)(**{**usual, **settings})
        theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    found = image_processor(opened(str(tmp_path)))
    assert type(found) is type(theirs)
    framing, (short, long) = detector_framing.framing(opened(str(tmp_path)), found, 1)
    rules = Rules(conf=0.5, iou=1.0, max_det=1, short=short, long=long)
    for image in pictures(SIZES):
        with loading.quiet():
            expected = theirs(images=image, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        size = framing.size(image.shape[0], image.shape[1], rules)
        canvas = torch.zeros(1, 3, *framing.canvas(size, rules))
        assert canvas.shape == expected.shape
        place = canvas[..., : size[0], : size[1]]
        framing.draw(image, place[0])
        greys = detector_framing.transform(opened(str(tmp_path)), found)
        Normalizer(greys, torch.device("cpu"), torch.float32).in_place(place)
        torch.testing.assert_close(canvas, expected.float(), atol=3e-4 if not found.do_rescale else 3e-6, rtol=1e-5)


def test_padding_is_told_to_the_model(tmp_path: Path) -> None:
    found = made(
        "detr", tmp_path, size={"max_height": 90, "max_width": 120}, do_pad=True, pad_size={"height": 96, "width": 128}
    )
    images = pictures(SIZES)
    loaded = network(detector(found, "pretrained", ()))
    assert loaded.shape(70, 110) == (96, 128)
    for one, expected in zip(loaded(images), own(found, images, 0.0), strict=True):
        agree(one, expected)


def test_what_the_user_may_choose(repository: Callable[[str], Repository], tmp_path: Path) -> None:
    (image,) = pictures([(150, 200)])
    names = [f"class {number}" for number in range(CLASSES)]
    model = detector(repository("d_fine"), "pretrained", names)
    assert [category.name for category in model.categories] == names
    assert model.facts["settings_sha256"] == repository("d_fine").digest
    every = network(model)([image])[0]
    assert every is not None
    wanted = int(np.bincount(every.classes).argmax())
    some = network(model, classes=names[wanted])([image])[0]
    assert some is not None
    assert some.classes.tolist() == [wanted] * (every.classes == wanted).sum()
    # Another size is what the processor of that size does.
    config = {"size": {"height": 160, "width": 160}}
    for file in Path(str(repository("d_fine").folder)).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text()) | config
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = network(model, imgsz=150)
    assert loaded.shape(150, 200) == (160, 160)
    agree(loaded([image])[0], own(opened(str(tmp_path)), [image], 0.0)[0])
    # Tiles of the image are looked at alone, and what is mirrored comes back.
    tiles = network(model, tile=100, overlap=0.0)([image[:100]])[0]
    halves = [network(model)([image[:100, :100]])[0], network(model)([image[:100, 100:]])[0]]
    assert tiles is not None
    assert len(tiles.scores) == sum(len(half.scores) for half in halves if half)
    looks = network(model, tta="flip,1.5")([image])[0]
    assert looks is not None
    assert 0 < len(looks.scores) <= 30


def test_random_weights_are_always_the_agree(repository: Callable[[str], Repository]) -> None:
    one, other = (detector(repository("yolos"), "random", ()) for _ in range(2))
    assert one.facts == other.facts
    for name, values in one.module.state_dict().items():
        assert torch.equal(values, other.module.state_dict()[name])


@pytest.mark.parametrize("kind", ["rt_detr", "d_fine", "lw_detr"])
def test_folding_changes_nothing(kind: str, repository: Callable[[str], Repository]) -> None:
    model = detector(repository(kind), "pretrained", ()).module
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)
        folding.fold(model)
        after = model(images)
    assert not any(type(part).__name__.endswith("FrozenBatchNorm2d") for part in model.modules())
    torch.testing.assert_close(after.logits, before.logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["yolos", "rf_detr"])
def test_half_precision_places_boxes_between_its_steps(kind: str, repository: Callable[[str], Repository]) -> None:
    images = pictures([(150, 200), (90, 260)])
    model = detector(repository(kind), "pretrained", ()).ruled(Settings(conf=0.0))
    for ours, theirs in zip(model.load("cpu", "bf16")(images), model.load("cpu", "fp32")(images), strict=True):
        assert ours is not None
        assert theirs is not None
        apart = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(-1).min(1)
        assert np.median(apart) < 5
        centres = torch.from_numpy(ours.boxes[:, :2] + ours.boxes[:, 2:])
        assert (centres.bfloat16().float() != centres).float().mean() > 0.9


class TestSentences:
    """What cannot be done is one sentence."""

    def test_small_sizes(self, repository: Callable[[str], Repository]) -> None:
        model = detector(repository("d_fine"), "pretrained", ())
        with pytest.raises(WrongUse, match="30 guesses, and at 64 × 64 pixels there are 20 places"):
            model.ruled(Settings(imgsz=64))
        with pytest.raises(WrongUse, match="leave the smaller scales out of --tta"):
            model.ruled(Settings(tta="0.5"))

    def test_fixed_sizes(self, repository: Callable[[str], Repository]) -> None:
        with pytest.raises(WrongUse, match="takes images of 128 × 128 pixels only"):
            detector(repository("rf_detr"), "pretrained", ()).ruled(Settings(imgsz=64))

    def test_labels(self, repository: Callable[[str], Repository]) -> None:
        with pytest.raises(WrongUse, match=r"--labels has 2 names and the weights of .* have 5 classes"):
            detector(repository("detr"), "pretrained", ["a", "b"])

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({}, "has no preprocessor_config.json, which"),
            ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor, is of no detector"),
            ({"image_processor_type": "NoImageProcessor"}, "makes no image processor"),
            ({"image_processor_type": "DetrImageProcessor", "do_resize": False}, "leave images as large as they are"),
            ({"image_processor_type": "DetrImageProcessor", "resample": 4}, r"have the filter 4 \(resample\)"),
            ({"image_processor_type": "RTDetrImageProcessor", "size": {"shortest_edge": 9}}, "have the size"),
        ],
    )
    def test_processors(self, settings: Any, said: str, repository: Callable[[str], Repository]) -> None:
        found = replace(repository("yolos"))
        vars(found)["processor"] = settings
        with pytest.raises(WrongUse, match=said):
            detector(found, "pretrained", ())
