"""Segmenters of transformers: class maps and objects are those of its own processors and models on each image alone."""

from __future__ import annotations

import resource
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hf_detectors
import numpy as np
import pytest
import torch
import universal
from numpy.typing import NDArray
from PIL import Image
from transformers.image_transforms import get_size_with_aspect_ratio

from cvjobs.common.categories import BACKGROUND, Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import png, rle
from cvjobs.images.picture import Picture
from cvjobs.networks.detection.detector import Detector
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.hf import mask_queries, segmenters
from cvjobs.networks.hf.repository import opened
from cvjobs.networks.hf.segmenters import HfSegmenter
from cvjobs.networks.segmentation import outlines, result_kind
from cvjobs.prediction.tasks.class_map_step import ClassMaps
from cvjobs.prediction.tasks.instance_step import Instances
from cvjobs.prediction.tasks.segment import SegmentRequest

SIZES = ((100, 80), (48, 160), (64, 64), (40, 30), (100, 80), (100, 80))
CONF = 0.2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("universal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers
        for kind in universal.KINDS:
            universal.folder(kind, root)
    return root


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers
        yield


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)) for _ in SIZES]
    return [
        np.array(one.resize((width, height), Image.Resampling.BICUBIC))
        for one, (height, width) in zip(small, SIZES, strict=True)
    ]


def made(place: Path, weights: str, labels: Sequence[str]) -> HfSegmenter:
    found = segmenters.segmenter(opened(str(place)), weights, labels)
    assert isinstance(found, HfSegmenter)
    return found


def model(place: Path, **settings: Any) -> HfSegmenter:
    kind = settings.pop("kind", None)
    found = made(place, "pretrained", ())
    return (found.of_kind(kind) if kind else found).ruled(Settings(**settings))


def rows(step: Any, images: list[NDArray[np.uint8]], batch: int) -> list[dict[str, Any]]:
    """What a step says of each image, in batches of equal shape as the engine makes them."""
    waiting: dict[tuple[int, int], list[int]] = {}
    for number, image in enumerate(images):
        waiting.setdefault(step.shape(*image.shape[:2]), []).append(number)
    found: dict[int, dict[str, Any]] = {}
    for numbers in waiting.values():
        for start in range(0, len(numbers), batch):
            some = numbers[start : start + batch]
            columns = step([Picture(images[i], *images[i].shape[:2]) for i in some])
            assert not columns.failures
            for at, i in enumerate(some):
                found[i] = {"first": columns.arrays[0][at].as_py(), "all": [a[at].as_py() for a in columns.arrays]}
    return [found[i] for i in range(len(images))]


@pytest.mark.parametrize("kind", universal.KINDS)
def test_class_maps_are_those_of_transformers(models: Path, kind: str) -> None:
    place = models / kind
    own = model(place, kind="semantic")
    step, reference = ClassMaps(own.load("cpu", "fp32"), own.categories), universal.Reference(kind, place)
    # What EoMT pads is squeezed into the map by transformers, unless the picture is square.
    images = [one for one in pictures() if kind != "eomt_dinov3" or one.shape[0] == one.shape[1]]
    expected = [reference.class_map(image) for image in images]
    assert len({int(value) for one in expected for value in np.unique(one)}) > 1
    for batch in (1, 8):
        for row, image, wanted in zip(rows(step, images, batch), images, expected, strict=True):
            found = png.decode(row["first"])
            assert found.shape == image.shape[:2]
            assert (found != wanted).mean() < 1e-3
            areas = {area["category_id"]: area["pixels"] for area in row["all"][1]}
            assert areas == {i: int((found == i).sum()) for i in np.unique(found).tolist()}


@pytest.mark.parametrize("kind", universal.OBJECTS)
def test_objects_are_those_of_transformers(models: Path, kind: str) -> None:
    place = models / kind
    own = model(place, kind="instance", conf=CONF)
    step, reference = Instances(own.load("cpu", "fp32"), own.categories), universal.Reference(kind, place)
    images = pictures()
    expected = [reference.objects(image, CONF) for image in images]
    assert sum(len(named) for named, _ in expected) > 0
    for batch in (1, 8):
        for row, image, (named, numbers) in zip(rows(step, images, batch), images, expected, strict=True):
            found = row["first"]
            height, width = image.shape[:2]
            scores = [one["score"] for one in found]
            assert scores == sorted(scores, reverse=True)
            pairs = _paired(found, named)
            masks = [rle.decode(one["rle"], height, width) for one in found]
            for one, mask in zip(found, masks, strict=True):
                down, across = np.nonzero(mask)
                box = (across.min(), down.min(), across.max() + 1, down.max() + 1)
                assert (one["x0"], one["y0"], one["x1"], one["y1"]) == box
            if kind == "mask2former":
                wrong = [(masks[mine] != (numbers[theirs] == 2)).mean() for theirs, mine in pairs]
                assert not named or max(wrong) < 1e-3
                continue
            painted = np.zeros((height, width), int)
            for theirs, mine in pairs:
                painted[masks[mine] > 0] = theirs + 1
            assert (painted != numbers).mean() < 1e-3


def _paired(found: list[dict[str, Any]], named: list[tuple[float, int]]) -> list[tuple[int, int]]:
    """Which of ours each object of transformers is: that of its class with its score."""
    assert len(found) == len(named)
    order = sorted(range(len(named)), key=lambda i: -named[i][0])
    for mine, theirs in enumerate(order):
        assert abs(found[mine]["score"] - named[theirs][0]) < 1e-3
    left = list(range(len(found)))
    pairs = []
    for theirs, (score, label) in enumerate(named):
        mine = min((i for i in left if found[i]["category_id"] == label), key=lambda i: abs(found[i]["score"] - score))
        left.remove(mine)
        pairs.append((theirs, mine))
    return pairs


def blobs(count: int, height: int, width: int) -> mask_queries.Said:
    """What queries might say: a round mask each, at some place, and one of 80 classes."""
    chance = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    places = torch.rand(count, 2, 1, 1, generator=chance) * 2 - 1
    masks = 3 - 60 * ((rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2)
    return mask_queries.Said(torch.randn(count, 81, generator=chance) * 20, masks)


@pytest.mark.parametrize("kind", universal.OBJECTS)
@pytest.mark.parametrize("size", [(211, 300), (90, 128), (40, 31), (30, 250)])
def test_many_objects_are_those_of_transformers(models: Path, kind: str, size: tuple[int, int]) -> None:
    said = blobs(30, 64, 96)
    reference = universal.Reference(kind, models / kind)
    found = {"mask2former": mask_queries.mask2former, "oneformer": mask_queries.oneformer}.get(kind, mask_queries.eomt)
    framed = said
    if kind == "eomt_dinov3":
        height, width = get_size_with_aspect_ratio(size, 64, 64)
        framed = said.to((64, 64)).within((height, width))
    own = found(framed, size, CONF)
    named, numbers = reference.read(said.classes[None], said.masks[None], size, CONF)
    assert len(named) > 3
    order = sorted(range(len(own.rles)), key=lambda row: -float(own.scores[row]))
    pairs = _paired([{"score": float(own.scores[i]), "category_id": int(own.labels[i])} for i in order], named)
    masks = [rle.decode(own.rles[i], *size) for i in order]
    if kind == "mask2former":
        for theirs, mine in pairs:
            assert (masks[mine] != (numbers[theirs] == 2)).mean() < 1e-3
        return
    painted = np.zeros(size, int)
    for theirs, mine in pairs:
        painted[masks[mine] > 0] = theirs + 1
    assert (painted != numbers).mean() < 1e-3


@pytest.mark.faults
def test_memory_does_not_grow_with_queries_and_pixels() -> None:
    said = blobs(100, 160, 240)
    size = (3000, 4000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for find in (mask_queries.mask2former, mask_queries.oneformer, mask_queries.eomt):
        found = find(said, size, 0.5)
        assert len(found.rles) > 2
        assert (rle.areas(found.rles) > 0).all()
    assert mask_queries.most_likely(said.scores, size).shape == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB; all at once is 4.5 GiB


def test_the_nearest_cell_is_that_of_torch() -> None:
    rng = np.random.default_rng(1)
    inside = rng.random((3, 24, 17)) > 0.5
    for size in ((101, 64), (24, 17), (13, 40), (7, 5)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(inside)[None].float(), size, mode="nearest")[0]
        texts = outlines.of_cells(inside, size)
        for text, mask in zip(texts, wanted.numpy(), strict=True):
            np.testing.assert_array_equal(rle.decode(text, *size), mask)
        boxes = outlines.boxes(texts, size)
        for (x0, y0, x1, y1), mask in zip(boxes, wanted.numpy(), strict=True):
            down, across = np.nonzero(mask)
            assert (x0, y0, x1, y1) == (across.min(), down.min(), across.max() + 1, down.max() + 1)


def test_each_number_of_a_map_is_a_mask() -> None:
    found = np.random.default_rng(2).integers(0, 4, (9, 11)).astype(np.uint8)
    texts = outlines.of_numbers(found, range(5))
    for number, text in enumerate(texts[:4]):
        np.testing.assert_array_equal(rle.decode(text, 9, 11), found == number)
    assert rle.areas(texts).tolist() == [int((found == number).sum()) for number in range(5)]


def test_a_model_is_what_its_files_and_its_name_say(models: Path, tmp_path: Path) -> None:
    found = {kind: made(models / kind, "pretrained", ()).kinds for kind in universal.KINDS}
    both = ("instance", "semantic")
    assert found == {kind: both if kind in universal.OBJECTS else ("semantic",) for kind in universal.KINDS}
    named = tmp_path / "eomt-of-ours-semantic"
    shutil.copytree(models / "eomt_dinov3", named)
    ours = made(named, "random", ())
    assert ours.kind == "semantic"
    assert ours.facts["weights"] == "random"
    assert ours.of_kind("instance").kind == "instance"


def test_what_is_recorded_of_a_request_is_as_before_there_were_kinds() -> None:
    request = SegmentRequest(model="m", weights="random", labels=(), settings=Settings())
    assert set(request.recorded()) == {"model", "weights", "labels", "settings"}
    assert SegmentRequest.load(request.recorded()) == request
    chosen = SegmentRequest(model="m", weights="random", labels=(), settings=Settings(), kind="semantic")
    assert SegmentRequest.load(chosen.recorded()) == chosen


def test_names_and_the_background(models: Path, tmp_path: Path) -> None:
    names = ["background", "sky", "road", "car", "tree"]
    place = universal.folder("segformer", tmp_path, names)
    found = made(place, "pretrained", ())
    assert found.categories[:2] == [Category(0, BACKGROUND), Category(1, "sky")]
    renamed = made(place, "pretrained", ["a", "b", "c", "d"])
    assert [c.name for c in renamed.categories] == [BACKGROUND, "a", "b", "c", "d"]
    with pytest.raises(WrongUse, match=r"--labels has 2 names and the weights of .* have 5 classes"):
        made(models / "dpt", "pretrained", ["a", "b"])


def test_choices_of_a_user(models: Path) -> None:
    everything = model(models / "mask2former", conf=0.0)
    assert everything.choice is not None
    assert everything.choice.max_det == 7
    (image, *_) = pictures()
    all_of_it = rows(Instances(everything.load("cpu", "fp32"), everything.categories), [image], 1)[0]["first"]
    few = model(models / "mask2former", conf=0.0, max_det=2, classes="class 1,4")
    (some,) = rows(Instances(few.load("cpu", "fp32"), few.categories), [image], 1)
    assert some["first"] == [one for one in all_of_it if one["category_id"] in (1, 4)][:2]
    larger = model(models / "segformer", imgsz=96)
    assert larger.load("cpu", "fp32").shape(100, 80) == (96, 144)
    assert larger.facts["size"] == {"height": 96, "width": 144}
    for place, settings, sentence in (
        ("eomt", {"imgsz": 96}, "takes images of 64 pixels only"),
        ("segformer", {"conf": 0.5}, "choose a model of objects with --model"),
        ("mask2former", {"iou": 0.5}, "leave out --iou"),
        ("mask2former", {"kind": "semantic", "conf": 0.5}, "give --kind instance"),
    ):
        with pytest.raises(WrongUse, match=sentence):
            model(models / place, **settings)
    with pytest.raises(WrongUse, match="gives a class for every pixel only: leave out --kind"):
        result_kind.chosen(model(models / "dpt"), "instance")


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_numbers_that_are_none_and_pictures_of_which_nothing_is_left(models: Path, kind: str) -> None:
    own = model(models / "mask2former", kind=kind)
    with torch.no_grad():
        dict(own.module.named_parameters())["class_predictor.weight"][0, 0] = torch.nan
    step = (ClassMaps if kind == "semantic" else Instances)(own.load("cpu", "fp32"), own.categories)
    image = pictures()[0]
    columns = step([Picture(image, *image.shape[:2])] * 2)
    assert [columns.failures[i].code for i in (0, 1)] == ["infer_nonfinite"] * 2
    line = np.zeros((1, 5000, 3), np.uint8)
    thin = step([Picture(line, 1, 5000)])
    assert thin.failures if kind == "semantic" else thin.arrays[0].to_pylist() == [[]]


def test_what_a_repository_lacks_is_one_sentence(models: Path, tmp_path: Path) -> None:
    for kind, name in (("segformer", "preprocessor_config.json"), ("oneformer", "vocab.json")):
        place = tmp_path / kind
        shutil.copytree(models / kind, place)
        (place / name).unlink()
        with pytest.raises(WrongUse, match=f"has no {name}, which") as caught:
            made(place, "random", ())
        assert "\n" not in str(caught.value)
    (tmp_path / "segformer" / "preprocessor_config.json").write_text('{"size": "large"}')
    with pytest.raises(WrongUse, match="makes no image processor"):
        made(tmp_path / "segformer", "random", ())


def test_a_detector_with_masks_finds_objects(tmp_path: Path) -> None:
    found = segmenters.segmenter(hf_detectors.made("rf_detr", tmp_path, masks=True), "pretrained", ())
    assert isinstance(found, Detector)
    assert found.masks == "image"
    assert result_kind.chosen(found, "instance") is found
    with pytest.raises(WrongUse, match="gives objects only: leave out --kind"):
        result_kind.chosen(found, "semantic")
