"""Detectors: boxes, scores and classes are those of torchvision's own models on each image alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import calibrated
import numpy as np
import pytest
import torch
from detectors import FIXED, KINDS, OTHERS, SIDE, SMALL, own, same
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.detector_network import DetectorNetwork, PictureDetections
from cvjobs.networks.detection.nms import Candidates, best_of_groups, kept
from cvjobs.networks.detection.settings import Rules, Settings
from cvjobs.networks.registry import detector, names

pytestmark = pytest.mark.slow

SIZES = [(150, 200), (150, 200), (120, 260)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loaded(name: str, file: Path, settings: Settings | None = None, masks: bool = False) -> DetectorNetwork:
    found = detector(f"torchvision/{name}", weights=str(file))
    assert isinstance(found, Detector)
    settings = settings or Settings(imgsz=None if found.rules.fixed else SIDE)
    return replace(found.ruled(settings), masks="box" if masks else "").load("cpu", "fp32")


def equal(found: PictureDetections, expected: PictureDetections) -> None:
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    assert found.classes.tolist() == expected.classes.tolist()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated.weights(SMALL, tmp_path_factory)


@pytest.fixture(scope="module")
def plain(small: Path) -> DetectorNetwork:
    return loaded(SMALL, small)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated.weights(FIXED, tmp_path_factory, classes=4)


def one(network: DetectorNetwork, image: Any) -> PictureDetections:
    (found,) = network([image])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.faults(minutes=0.2) if "resnet50" in name else ()) for name in KINDS]
)
def test_boxes_are_torchvisions(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = calibrated.weights(name, tmp_path_factory)
    images = [calibrated.pixels(*size, seed) for seed, size in enumerate(SIZES)]
    expected = own(name, file, images)
    assert sum(len(each["scores"]) for each in expected) >= 200
    network = loaded(name, file)
    same(one(network, images[0]), expected[0])
    shapes = [network.shape(*image.shape[:2]) for image in images]
    for shape in set(shapes):
        together = [i for i, other in enumerate(shapes) if other == shape]
        for i, found in zip(together, network([images[i] for i in together]), strict=True):
            same(found, expected[i])


@pytest.mark.faults
@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_boxes_are_torchvisions_at_full_size(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = calibrated.weights(name, tmp_path_factory)
    images = [calibrated.pixels(*size, seed) for seed, size in enumerate([(480, 640), (480, 640), (333, 500)])]
    expected = own(name, file, images, size=None)
    assert min(len(each["scores"]) for each in expected) >= 10
    network = loaded(name, file, Settings())
    for found, each in zip([*network(images[:2]), *network(images[2:])], expected, strict=True):
        same(found, each)


@pytest.mark.faults(minutes=0.2)
def test_masks_are_torchvisions(tmp_path_factory: pytest.TempPathFactory) -> None:
    name = "maskrcnn_resnet50_fpn"
    file = calibrated.weights(name, tmp_path_factory)
    image = calibrated.pixels(150, 200, 3)
    found = one(loaded(name, file, Settings(imgsz=SIDE, max_det=20), masks=True), image)
    expected = own(name, file, [image])[0]
    assert found.masks is not None
    assert found.masks.shape == (20, 28, 28)
    pasted = paste_masks_in_image(torch.from_numpy(found.masks)[:, None], torch.from_numpy(found.boxes), (150, 200))
    agree = ((pasted > 0.5) == (expected["masks"][:20] > 0.5)).float().mean()
    assert agree > 0.999
    same(found, {name: values[:20] for name, values in expected.items()})


class TestRules:
    """What a user may choose."""

    def test_thresholds_are_torchvisions(self, small: Path) -> None:
        image = calibrated.pixels(150, 200)
        options: dict[str, Any] = {"box_score_thresh": 0.2, "box_nms_thresh": 0.3, "box_detections_per_img": 30}
        model = calibrated.reference(SMALL, small, min_size=SIDE, max_size=2 * SIDE, **options)
        with torch.no_grad():
            expected = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
        assert len(expected["scores"]) > 20
        same(one(loaded(SMALL, small, Settings(conf=0.2, iou=0.3, max_det=30, imgsz=SIDE)), image), expected)

    @pytest.mark.slow
    def test_classes_are_those_of_all_that_were_asked_for(self, small: Path) -> None:
        image = calibrated.pixels(150, 200)
        every = one(loaded(SMALL, small, Settings(imgsz=SIDE, max_det=10_000)), image)
        ids, counts = np.unique(every.classes, return_counts=True)
        asked = sorted(ids[np.argsort(-counts)][:3].tolist())
        categories = {c.id: c.name for c in detector(SMALL, weights=str(small)).categories}
        typed = f"{categories[asked[0]]},{asked[1]}, {categories[asked[2]]}"
        some = one(loaded(SMALL, small, Settings(imgsz=SIDE, max_det=10_000, classes=typed)), image)
        expected = every.only(np.flatnonzero(np.isin(every.classes, asked)))
        assert 3 <= len(expected.classes) < len(every.classes)
        equal(some, expected)

    def test_one_nms_for_all_classes(self, small: Path) -> None:
        image = calibrated.pixels(150, 200)
        every = one(loaded(SMALL, small, Settings(imgsz=SIDE, conf=0.2, iou=1.0, max_det=100_000)), image)
        left: list[int] = []
        for i, box in enumerate(every.boxes):
            if all(iou(box, every.boxes[j]) <= 0.4 for j in left):
                left.append(i)
        found = one(
            loaded(SMALL, small, Settings(imgsz=SIDE, conf=0.2, iou=0.4, max_det=100_000, nms="all-classes")), image
        )
        assert 20 < len(left) < len(every.boxes) / 2
        equal(found, every.only(np.array(left)))

    @pytest.mark.parametrize(
        ("name", "settings", "hint"),
        [
            (FIXED, Settings(imgsz=640), "320 × 320 pixels only"),
            (FIXED, Settings(tta="flip,0.8"), "one size only"),
            (SMALL, Settings(overlap=1.0), "--overlap"),
            (SMALL, Settings(overlap=float("nan")), "--overlap"),
            (SMALL, Settings(tta="flop"), "'flop'"),
            (SMALL, Settings(tta="nan"), "'nan'"),
            (SMALL, Settings(classes="persn"), "nearest: person"),
            (SMALL, Settings(classes="12"), "'12'"),  # a number that COCO gives to no class
            (SMALL, Settings(classes="0"), "'0'"),
        ],
    )
    def test_what_a_model_cannot_do_is_refused(self, name: str, settings: Settings, hint: str) -> None:
        with pytest.raises(WrongUse) as caught:
            detector(name, weights="random").ruled(settings)
        assert hint in str(caught.value)
        assert str(caught.value).endswith(".")

    def test_they_are_facts(self, small: Path) -> None:
        model = detector(SMALL, weights=str(small))
        facts = model.ruled(Settings(tile=500, classes="dog,cat", imgsz=200)).facts
        expected = {"task": "detect", "classes": [17, 18], "tile": 500, "overlap": 0.2, "short": 200, "long": 400}
        assert {name: facts[name] for name in expected} == expected
        assert model.facts["conf"] == 0.05
        assert [1, "person"] in facts["categories"]
        assert len(facts["categories"]) == 80


def iou(one: Any, other: Any) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = np.prod(np.clip(high - low, 0, None))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


class TestLooks:
    """Tiles and second looks."""

    @pytest.mark.slow
    def test_tiles_without_overlap_are_the_pieces(self, small: Path, plain: DetectorNetwork) -> None:
        pieces = [[calibrated.pixels(160, 160, 10 + 3 * row + column) for column in range(2)] for row in range(2)]
        found = one(
            loaded(SMALL, small, Settings(imgsz=SIDE, tile=160, overlap=0)), np.vstack(list(map(np.hstack, pieces)))
        )
        expected = []
        for row in range(2):
            for column in range(2):
                piece = one(plain, pieces[row][column])
                offset = np.array([160 * column, 160 * row] * 2, np.float32)
                expected.append(PictureDetections(piece.boxes + offset, piece.scores, piece.classes))
        assert sum(len(each.scores) for each in expected) > 300
        same(
            found,
            {
                "boxes": torch.from_numpy(np.concatenate([each.boxes for each in expected])),
                "scores": torch.from_numpy(np.concatenate([each.scores for each in expected])),
                "labels": torch.from_numpy(np.concatenate([each.classes for each in expected])),
            },
        )

    @pytest.mark.slow
    def test_a_mirror_image_has_the_mirrored_boxes(self, small: Path) -> None:
        network = loaded(SMALL, small, Settings(imgsz=SIDE, tta="flip,1.3"))
        image = calibrated.pixels(160, 200)  # of a size at which resizing is symmetric
        found, turned = one(network, image), one(network, image[:, ::-1].copy())
        assert len(found.scores) == 100
        np.testing.assert_allclose(found.scores, turned.scores, atol=1e-3)
        mirrored = np.stack(
            [200 - turned.boxes[:, 2], turned.boxes[:, 1], 200 - turned.boxes[:, 0], turned.boxes[:, 3]], 1
        )
        assert (np.abs(found.boxes - mirrored).max(1) < 0.5).mean() > 0.9  # but for equal scores
        assert len(one(loaded(SMALL, small, Settings(imgsz=SIDE)), image).scores) == 100


class Toy:
    """An architecture that finds a box around each image, and runs out of memory on more than three."""

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.counts: list[int] = []

    def candidates(self, images: Tensor, sizes: Any, conf: float) -> tuple[Candidates, dict[str, Tensor]]:  # noqa: ARG002
        if len(images) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        self.counts.append(len(images))
        boxes = torch.tensor([(0.0, 0.0, width, height) for height, width in sizes])
        number = torch.arange(len(images))
        finite = images.flatten(1).mean(1) < 0.9
        return Candidates(number, boxes, torch.full((len(images),), 0.9), torch.ones(len(images)).long(), finite), {}

    def masks(self, features: Any, found: Any, sizes: Any) -> Tensor:
        raise NotImplementedError


def toy(**rules: Any) -> tuple[Toy, DetectorNetwork]:
    found = Toy()
    base = Rules(conf=0.5, iou=0.5, max_det=100, short=32, long=64)
    return found, DetectorNetwork(found, Transform(fit="native"), replace(base, **rules), [1])


def test_too_many_pictures_are_the_callers_to_divide() -> None:
    with pytest.raises(MemoryError, match="out of memory"):
        toy()[1]([np.zeros((32, 32, 3), np.uint8)] * 4)


def test_too_many_tiles_are_divided_here() -> None:
    architecture, network = toy(tile=32)
    found = one(network, np.zeros((32, 320, 3), np.uint8))
    assert sorted(found.boxes[:, 0].tolist()) == [32 * i for i in range(10)]
    assert max(architecture.counts) <= 3
    assert len(architecture.counts) == 5  # by twos: the limit is remembered


def test_a_result_that_is_not_finite_costs_its_picture() -> None:
    white, black = np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)
    found = toy()[1]([black, white, black])
    assert [each is None for each in found] == [False, True, False]
    assert toy(tile=32)[1]([np.hstack([black, white])]) == [None]


@pytest.mark.slow
def test_a_weight_that_is_not_finite_is_noticed(small: Path, tmp_path: Path) -> None:
    for key in (
        "rpn.head.cls_logits.bias",
        "roi_heads.box_predictor.cls_score.bias",
        "backbone.fpn.inner_blocks.0.0.bias",
    ):
        tensors = load_file(small)
        tensors[key].view(-1)[0] = torch.nan
        save_file(tensors, tmp_path / "nan.safetensors")
        assert loaded(SMALL, tmp_path / "nan.safetensors")([calibrated.pixels(150, 200)]) == [None]


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (7, 5000)])
def test_odd_shapes(plain: DetectorNetwork, shape: tuple[int, int]) -> None:
    found = one(plain, np.full((*shape, 3), 128, np.uint8))
    assert np.isfinite(found.boxes).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [shape[1], shape[0]] * 2).all()


def test_half_precision_leaves_boxes_in_float32(small: Path) -> None:
    network = detector(SMALL, weights=str(small)).ruled(Settings(imgsz=SIDE)).load("cpu", "bf16")
    found = one(network, calibrated.pixels(150, 200))
    assert len(found.scores) > 50
    assert {found.boxes.dtype.name, found.scores.dtype.name} == {"float32"}
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert len(np.unique(sides)) > 80  # not rounded to the few numbers that half precision has


class TestClasses:
    """A file of weights with classes of its own."""

    def test_they_have_the_names_that_are_given(self, three: Path) -> None:
        model = detector(FIXED, weights=str(three), labels=["cell", "=cell", "<b>"])
        assert [(c.id, c.name) for c in model.categories] == [(1, "cell"), (2, "=cell"), (3, "<b>")]
        found = one(model.load("cpu", "fp32"), calibrated.pixels(150, 200))
        assert set(found.classes.tolist()) == {1, 2, 3}

    @pytest.mark.parametrize(("labels", "hint"), [([], "--labels"), (["a", "b"], "3 classes")])
    def test_names_are_needed_for_all(self, three: Path, labels: list[str], hint: str) -> None:
        with pytest.raises(WrongUse, match=hint):
            detector(FIXED, weights=str(three), labels=labels)

    def test_the_weights_of_another_model(self, three: Path) -> None:
        with pytest.raises(WrongUse, match="does not fit"):
            detector("ssd300_vgg16", weights=str(three))


def test_random_weights_are_always_the_same() -> None:
    models = [detector(FIXED, weights="random") for _ in range(2)]
    states = [model.module.state_dict() for model in models if isinstance(model, Detector)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert torch.equal(torch.rand(3), torch.rand(3)) is False


@pytest.mark.usefixtures("offline")
def test_without_weights_the_file_is_named() -> None:
    with pytest.raises(WrongUse, match="fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9"):
        detector(SMALL)


def test_names_of_detectors() -> None:
    assert set(names("detect")["torchvision"]) == {*KINDS, *OTHERS}
    with pytest.raises(WrongUse, match="nearest: retinanet_resnet50_fpn"):
        detector("retinanet_resnet50", weights="random")
    with pytest.raises(WrongUse, match="no models for that"):
        detector("timm/resnet50", weights="random")


def test_best_of_groups() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3, 0.2])
    groups = torch.tensor([1, 0, 1, 1, 0, 4])
    assert best_of_groups(scores, groups, 2).tolist() == [1, 4, 3, 2, 5]
    assert best_of_groups(scores[:0], groups[:0], 2).tolist() == []


def test_nothing_found_is_nothing_kept() -> None:
    empty = Candidates(*(torch.empty(shape) for shape in (0, (0, 4), 0, 0, 2)))
    rules = Rules(conf=0.5, iou=0.5, max_det=100, short=32, long=64)
    assert [rows.tolist() for rows in kept(empty, 2, rules, torch.tensor([1]))] == [[], []]


def test_no_region_to_look_at_is_no_box(small: Path, tmp_path: Path) -> None:
    tensors = load_file(small)
    tensors["rpn.head.cls_logits.bias"].fill_(-1e4)
    save_file(tensors, tmp_path / "blind.safetensors")
    found = one(loaded(SMALL, tmp_path / "blind.safetensors"), calibrated.pixels(150, 200))
    assert found.boxes.shape == (0, 4)
