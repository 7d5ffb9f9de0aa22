"""``segment`` with models that give every pixel a class: the maps are those of torchvision's own model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Ended, exact, here, opened, run, sentence, verify
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.v2 import functional

import cvjobs
from cvjobs.images.masks import png
from cvjobs.networks.segmentation.class_maps import class_map

pytestmark = pytest.mark.slow

MODELS = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")
SMALL = "lraspp_mobilenet_v3_large"
CLASSES = 21
Maps = dict[str, NDArray[Any]]


def scenes(folder: Path) -> Path:
    """Images of several sizes with shapes in them; some lie on their side by their EXIF, one is greyscale."""
    random = np.random.default_rng(3)
    for number, (height, width) in enumerate([(90, 120), (90, 120), (120, 90), (77, 201), (300, 200), (40, 41)]):
        small = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        image = small.resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 3, 8, 1, 5)[number]
        image.convert("L" if number == 4 else "RGB").save(folder / f"scene {number}.png", exif=exif)
    return folder


def preset(image: Image.Image, short: int) -> Tensor:
    """An upright image as torchvision's preset for segmentation hands it to a model, from a tensor of bytes."""
    pixels = functional.resize(torch.from_numpy(np.array(image)).permute(2, 0, 1), [short], antialias=True)
    chosen = get_model_weights(SMALL).DEFAULT.transforms()
    scaled = functional.to_dtype(pixels, torch.float32, scale=True)
    normalised: Tensor = functional.normalize(scaled, chosen.mean, chosen.std)
    return normalised[None]


def calibrated(name: str, folder: Path, short: int, **options: Any) -> nn.Module:
    """A seeded model whose batch norms know the images of a folder, and whose logits are such that many classes win."""
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None, weights_backbone=None, **options)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    sample = torch.cat([preset(image.resize((short, short)), short) for image in read(folder).values()])
    with torch.no_grad():
        model.train()(sample)
        logits = model.eval()(sample)["out"]
        last = [part for part in model.get_submodule("classifier").modules() if isinstance(part, nn.Conv2d)][-1]
        assert last.bias is not None
        last.bias -= logits.mean((0, 2, 3))
    return model


def read(folder: Path) -> dict[str, Image.Image]:
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            found[path.name] = ImageOps.exif_transpose(image).convert("RGB")
    return found


def reference(model: nn.Module, images: dict[str, Image.Image], short: int) -> Maps:
    """The class maps of torchvision's own model, called on each image alone."""
    maps = {}
    for name, image in images.items():
        with torch.inference_mode():
            logits = model(preset(image, short))["out"]
            size = image.size[::-1]
            resized = nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            maps[name] = resized[0].argmax(0).numpy()
    return maps


def maps(out: Path) -> Maps:
    return {row["path"]: png.decode(row["class_map"]) for row in opened(out).to_arrow().to_pylist()}


def segment(source: object, out: object, *words: object, model: str = SMALL) -> Ended:
    return here("segment", source, "-o", out, "--model", f"torchvision/{model}", *words)


def compare(found: Maps, expected: Maps) -> None:
    """Hold 99.9% of all pixels to be equal; made-up weights leave near ties, some more in one small image."""
    assert found.keys() == expected.keys()
    equal = {}
    for name, one in expected.items():
        assert found[name].shape == one.shape
        equal[name] = found[name] == one
        assert equal[name].mean() >= 0.998, name
    assert np.concatenate([one.ravel() for one in equal.values()]).mean() >= 0.999


def saved(model: nn.Module, file: Path) -> Path:
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def small(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    model = calibrated(SMALL, folder, 96)
    return saved(model, tmp_path_factory.mktemp("weights") / "small.pth"), model


@pytest.fixture(scope="module")
def out(folder: Path, small: tuple[Path, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("segment") / "out"
    ended = segment(folder, place, "--weights", small[0], "--imgsz", 96, "--batch-size", 8)
    assert ended.code == 0, ended
    exact(place, folder, 6)
    return place


def test_class_maps_are_those_of_torchvision(folder: Path, small: tuple[Path, nn.Module], out: Path) -> None:
    expected = reference(small[1], read(folder), 96)
    compare(maps(out), expected)
    assert len(np.unique(np.concatenate([one.ravel() for one in expected.values()]))) >= 8


def test_the_columns_say_what_there_is(out: Path) -> None:
    snapshot = opened(out)
    names = dict(snapshot.snapshot.facts["categories"])
    assert snapshot.snapshot.facts["task"] == "semantic"
    assert (len(names), names[0], names[15]) == (CLASSES, "__background__", "person")
    for row in snapshot.to_arrow().to_pylist():
        found = png.decode(row["class_map"])
        assert found.shape == (row["height"], row["width"])
        counts = np.bincount(found.ravel(), minlength=CLASSES)
        assert {c["category_id"]: c["pixels"] for c in row["classes"]} == {i: n for i, n in enumerate(counts) if n}
        assert [c["pixels"] for c in row["classes"]] == sorted(counts[counts > 0], reverse=True)
        assert all(c["label"] == names[c["category_id"]] for c in row["classes"])


def test_the_background_is_nothing_to_see_on_the_page_and_in_an_export(out: Path, tmp_path: Path) -> None:
    page = (out / "report.html").read_text()
    assert "of all pixels have a class" in page
    assert "__background__" not in page
    cvjobs.export(out, tmp_path / "found.json", "coco")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [category["id"] for category in found["categories"]] == list(range(1, CLASSES))
    assert {0} | {each["category_id"] for each in found["annotations"]} == set(
        opened(out).to_pandas()["classes"].explode().map(lambda area: area["category_id"])
    )


def test_a_batch_of_one_gives_the_same_and_a_bad_image_is_an_error(
    small: tuple[Path, nn.Module], out: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    scenes(source)
    (source / "<bad>.png").write_bytes((source / "scene 0.png").read_bytes()[:300])
    Image.new("RGB", (1, 200)).save(source / "line.png")
    ended = segment(
        source, tmp_path / "one", "--weights", small[0], "--imgsz", 96, "--batch-size", 1, "--max-error-rate", 1
    )
    assert ended.code == 0, ended
    compare(maps(tmp_path / "one"), maps(out))
    failed = {row["path"]: row["code"] for row in opened(tmp_path / "one").errors().to_pylist()}
    assert failed == {"<bad>.png": "truncated", "line.png": "infer_error"}
    assert verify(tmp_path / "one", source).code == 0


def test_nothing_to_do_loads_no_model(folder: Path, small: tuple[Path, nn.Module], out: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom cvjobs.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    words = ("segment", folder, "-o", out, "--model", f"torchvision/{SMALL}", "--weights", small[0], "--imgsz", 96)
    ended = run(*words, "--json", program=[sys.executable, str(program)])
    assert ended.code == 0, ended
    assert json.loads(ended.out)["computed"] == 0


def test_another_size_is_another_result(folder: Path, small: tuple[Path, nn.Module], out: Path) -> None:
    assert "resize 96 there, 64 here" in sentence(segment(folder, out, "--weights", small[0], "--imgsz", 64), 2)


def test_weights_with_classes_of_their_own(folder: Path, tmp_path: Path) -> None:
    name = "deeplabv3_mobilenet_v3_large"
    model = calibrated(name, folder, 64, num_classes=4, aux_loss=True)
    file = saved(model, tmp_path / "own.pth")
    words = ("--weights", file, "--imgsz", 64)
    refused = sentence(segment(folder, tmp_path / "out", *words, model=name), 2)
    assert "3 classes" in refused
    assert "--labels FILE" in refused
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\n")
    ended = segment(folder, tmp_path / "out", *words, "--labels", tmp_path / "names.txt", model=name)
    assert ended.code == 0, ended
    compare(maps(tmp_path / "out"), reference(model, read(folder), 64))
    assert opened(tmp_path / "out").snapshot.facts["categories"] == [
        [0, "__background__"],
        [1, "sky"],
        [2, "road"],
        [3, "car"],
    ]


def test_weights_that_break_are_errors(folder: Path, small: tuple[Path, nn.Module], tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in small[1].state_dict().items()}
    state["classifier.low_classifier.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    ended = segment(folder, tmp_path / "out", "--weights", tmp_path / "nan.pth", "--imgsz", 64)
    assert ended.code == 3, ended
    assert set(opened(tmp_path / "out").errors()["code"].to_pylist()) == {"infer_nonfinite"}


@pytest.mark.faults
@pytest.mark.parametrize("name", [*MODELS, SMALL])
def test_every_model_whatever_the_batch(name: str, folder: Path, tmp_path: Path) -> None:
    own = get_model_weights(name).DEFAULT.transforms().resize_size[0]
    short = own if "mobilenet" in name else 224  # the others take minutes at their own 520
    options = {} if name == SMALL else {"aux_loss": True}
    model = calibrated(name, folder, short, **options)
    file = saved(model, tmp_path / "model.pth")
    expected = reference(model, read(folder), short)
    assert len(np.unique(np.concatenate([one.ravel() for one in expected.values()]))) >= 4
    for batch in (1, 8):
        out = tmp_path / f"out{batch}"
        words = ("--weights", file, "--batch-size", batch, *(() if short == own else ("--imgsz", short)))
        ended = segment(folder, out, *words, model=name)
        assert ended.code == 0, ended
        compare(maps(out), expected)


@pytest.mark.parametrize(
    ("grid", "seen", "size"),
    [
        ((13, 17), (104, 136), (250, 333)),
        ((13, 17), (104, 136), (104, 136)),
        ((13, 17), (104, 136), (31, 47)),
        ((7, 9), (104, 136), (16, 700)),
        ((1, 1), (1, 8), (40, 41)),
        ((2, 33), (16, 264), (1, 1)),
    ],
)
@pytest.mark.parametrize("smooth", [1, 6])
def test_a_class_map_is_the_argmax_of_logits_resized_twice(
    grid: tuple[int, int], seen: tuple[int, int], size: tuple[int, int], smooth: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 300, 1 + grid[0] // smooth, 1 + grid[1] // smooth, generator=generator)
    logits = nn.functional.interpolate(coarse, size=grid, mode="bicubic")
    for classes in (2, 21, 300):
        some = logits[:, :classes].contiguous()
        whole = nn.functional.interpolate(some, size=seen, mode="bilinear", align_corners=False)
        whole = nn.functional.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0]
        found = class_map(some[0], seen, size)
        assert found.dtype == (torch.uint8 if classes <= 256 else torch.uint16)
        # Where it differs, two classes are equal but for rounding.
        chosen = whole.gather(0, found.long()[None])[0]
        assert float((whole.amax(0) - chosen).max()) <= 1e-5


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (70, 51)])
def test_a_png_holds_the_values(size: tuple[int, int], dtype: Any, top: int) -> None:
    values = np.random.default_rng(0).integers(0, top, size, endpoint=True).astype(dtype)
    values[size[0] // 2 :] = top
    assert np.array_equal(png.decode(png.encode(values)), values)
