"""`cvjobs detect`: every image's boxes, through the real command, whatever the batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import calibrated
import numpy as np
import pytest
import torch
from commands import aged, errors, rows
from detectors import KINDS, OTHERS, SIDE, SMALL, own, same
from PIL import Image, ImageOps

import cvjobs
from cvjobs.common import categories
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import schema, snapshot
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = calibrated.pictures(tmp_path_factory.mktemp("detect") / "pictures")
    (folder / "<script>.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "tiny.png").write_bytes((folder / "picture0.png").read_bytes())
    Image.new("L", (1, 1)).save(folder / "tiny.png")
    return aged(folder)


@pytest.fixture(scope="module")
def out(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detect") / "out"
    summary = detect(pictures, out, tmp_path_factory, batch_size=1)
    assert (summary.ok, summary.failed) == (10, 1)
    return out


def detect(source: Path, out: Path, factory: pytest.TempPathFactory, **options: Any) -> Any:
    weights = str(calibrated.weights(SMALL, factory))
    return cvjobs.detect(source, out, **{"model": SMALL, "weights": weights, "imgsz": SIDE, **options})


def detections(row: dict[str, Any]) -> PictureDetections:
    found = row["detections"]
    boxes = [[each[side] for side in ("x0", "y0", "x1", "y1")] for each in found]
    scores, classes = ([each[name] for each in found] for name in ("score", "category_id"))
    return PictureDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int64)
    )


def are_torchvisions(name: str, pictures: Path, out: Path, factory: pytest.TempPathFactory) -> None:
    """Hold all boxes of an output to be those of torchvision's own model on each image alone; there are hundreds."""
    found = {row["path"]: row for row in rows(out).to_pylist() if row["path"] != "tiny.png"}
    upright = {}
    for path in found:
        with Image.open(pictures / path) as image:
            upright[path] = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    expected = own(name, calibrated.weights(name, factory), list(upright.values()))
    for (path, pixels), boxes in zip(upright.items(), expected, strict=True):
        assert (found[path]["height"], found[path]["width"]) == pixels.shape[:2]
        # A JPEG is decoded by TorchCodec there and by Pillow here: its pixels may differ by one.
        if not path.endswith(".jpg"):
            same(detections(found[path]), boxes)
        else:
            assert len(boxes["scores"]) == len(found[path]["detections"]) > 10
            assert np.abs(detections(found[path]).boxes[0] - boxes["boxes"][0].numpy()).max() < 1
    assert sum(len(row["detections"]) for row in found.values()) >= 300


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.faults(minutes=0.2)), 8])
def test_boxes_are_torchvisions(
    batch: int, pictures: Path, out: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if batch > 1:
        detect(pictures, out := tmp_path / "out", tmp_path_factory, batch_size=batch)
    are_torchvisions(SMALL, pictures, out, tmp_path_factory)


@pytest.mark.faults
@pytest.mark.parametrize("name", [*KINDS[1:], *OTHERS])
def test_every_model_whatever_the_batch(
    name: str, pictures: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options: dict[str, Any] = {"model": name, "weights": str(calibrated.weights(name, tmp_path_factory))}
    if name.startswith("ssd"):
        options["imgsz"] = None
    for batch in (1, 8):
        detect(pictures, out := tmp_path / f"out{batch}", tmp_path_factory, batch_size=batch, **options)
        are_torchvisions(name, pictures, out, tmp_path_factory)


def test_a_bad_image_is_a_row_of_errors(out: Path) -> None:
    assert errors(out)["path"].to_pylist() == ["<script>.png"]


def test_the_output_says_what_it_holds(out: Path) -> None:
    facts = snapshot.latest(LocalStore(out)).facts
    assert categories.task(facts) == "detect"
    names = {c.id: c.name for c in categories.categories(facts)}
    assert (names[1], names[90], len(names)) == ("person", "toothbrush", 80)
    table = rows(out)
    assert table.schema.field("detections").type == schema.SCHEMAS["detect"].field("detections").type
    for row in table.to_pylist():
        assert all(each["label"] == names[each["category_id"]] for each in row["detections"])
        scores = [each["score"] for each in row["detections"]]
        assert scores == sorted(scores, reverse=True)


def test_the_next_night_computes_what_is_new(
    pictures: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for name in ("picture0.png", "picture3.png"):
        (source / name).write_bytes((pictures / name).read_bytes())
    aged(source)
    assert detect(source, tmp_path / "out", tmp_path_factory).computed == 2
    (source / "new.png").write_bytes((pictures / "picture4.png").read_bytes())
    summary = detect(source, tmp_path / "out", tmp_path_factory)
    assert (summary.computed, summary.reused, summary.ok) == (1, 2, 3)
    for options, named in (
        ({"conf": 0.5}, "conf 0.05 there, 0.5 here"),
        ({"classes": "dog"}, "classes"),
        ({"tile": 64}, "tile"),
    ):
        with pytest.raises(WrongUse, match=named):
            detect(source, tmp_path / "out", tmp_path_factory, **options)


@pytest.mark.faults
def test_a_picture_of_50_megapixels_is_its_pieces(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.set_num_threads(1)
    pieces = {
        (row, column): calibrated.pixels(1000, 1000, 10 * row + column) for row in range(5) for column in range(10)
    }
    whole = np.vstack([np.hstack([pieces[row, column] for column in range(10)]) for row in range(5)])
    (tmp_path / "whole").mkdir()
    Image.fromarray(whole).save(tmp_path / "whole" / "whole.png", compress_level=1)
    (tmp_path / "pieces").mkdir()
    for (row, column), pixels in pieces.items():
        Image.fromarray(pixels).save(tmp_path / "pieces" / f"{row}{column}.png", compress_level=1)
    detect(tmp_path / "whole", tmp_path / "one", tmp_path_factory, tile=1000, overlap=0.0)
    detect(tmp_path / "pieces", tmp_path / "many", tmp_path_factory)
    found = []
    for row in rows(tmp_path / "many").to_pylist():
        piece, (down, right) = detections(row), map(int, row["path"][:2])
        found.append(
            PictureDetections(
                piece.boxes + np.array([1000 * right, 1000 * down] * 2, np.float32), piece.scores, piece.classes
            )
        )
    assert sum(len(piece.scores) for piece in found) > 2000
    (row,) = rows(tmp_path / "one").to_pylist()
    same(
        detections(row),
        {
            "boxes": torch.from_numpy(np.concatenate([piece.boxes for piece in found])),
            "scores": torch.from_numpy(np.concatenate([piece.scores for piece in found])),
            "labels": torch.from_numpy(np.concatenate([piece.classes for piece in found])),
        },
        ties=0.001,
    )
