"""Odd truths by the thousand: what means the same has the same numbers, and what means nothing is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import odd_truths
import pytest
from fuzzing import Seeds
from odd_truths import Pixels, Scene
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import png, rle

MAPPED = [Category(at, name) for at, name in enumerate(["background", "cat", "dog"])]


def found(of: Scene, folder: Path, random: np.random.Generator) -> Path:
    """An output that finds most objects of a scene, some of them as another class, and some that are not there."""
    categories = [Category(at + 10, name) for at, name in enumerate([*of.classes, "else"])]
    rows: list[dict[str, Any]] = [
        {"path": name, "width": of.width, "height": of.height, "detections": []} for name in of.images
    ]
    for image, class_, (x, y, w, h) in of.objects:
        said = class_ if random.random() < 0.8 else int(random.integers(len(categories)))
        mask = rle.encode(np.ones((h, w), bool), (y, x), (of.height, of.width))
        corners = {"x0": x, "y0": y, "x1": x + w, "y1": y + h, "score": float(random.random()), "rle": mask}
        rows[image]["detections"] += [{**corners, "category_id": said + 10, "label": categories[said].name}]
    return output(folder, "instance", categories, rows)


def mapped(of: dict[str, Pixels], folder: Path) -> Path:
    rows = []
    for name, pixels in of.items():
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        said = np.where(pixels == 2, 1, np.where(pixels > 2, 0, pixels)).astype(np.uint8)
        rows.append({"path": name, **size, "class_map": png.encode(said), "classes": []})
    return output(folder, "semantic", MAPPED, rows)


def numbers(given: Path, truth: Path) -> dict[str, Any]:
    got = cvjobs.eval(str(given), str(truth), out=str(given / "eval"))
    json.dumps(got.as_dict(), allow_nan=False)
    assert str(got)
    assert got.images["evaluated"] == got.images["truth"], got.images
    counted = {c["name"]: c.get("truths", c.get("pixels")) for c in got.classes}
    return {**got.metrics, **{name: count for name, count in counted.items() if count}}


def test_odd_truths_mean_the_same(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(2):
        random, root = np.random.default_rng(seed), tmp_path / str(seed)
        root.mkdir()
        of = odd_truths.scene(random)
        given = found(of, root / "given", random)
        (root / "plain.json").write_bytes(odd_truths.coco(of))
        (root / "odd.json").write_bytes(odd_truths.coco(of, random))
        for name, write in (("yolo", odd_truths.yolo), ("voc", odd_truths.voc)):
            write(of, root / f"{name}-plain")
            write(of, root / f"{name}-odd", random)
        expected = numbers(given, root / "plain.json")
        assert numbers(given, root / "odd.json") == pytest.approx(expected)
        expected = numbers(given, root / "yolo-plain")
        for other in ("yolo-odd", "voc-plain", "voc-odd"):
            assert numbers(given, root / other) == pytest.approx(expected), other
        maps = odd_truths.maps(random, [0, 1, 2, 255])
        seen = mapped(maps, root / "seen")
        odd_truths.masks(maps, root / "masks-plain")
        odd_truths.masks(maps, root / "masks-odd", random)
        assert numbers(seen, root / "masks-odd") == numbers(seen, root / "masks-plain")


def tried(given: Path, truth: Path, out: Path) -> None:
    """Evaluate what may mean nothing: a result whose parts can be written, or one sentence."""
    sentence = "One."
    try:
        got = cvjobs.eval(str(given), str(truth), out=str(out))
        assert str(got)
        assert all(-1 <= value <= 1 for value in got.metrics.values() if value is not None), got.metrics
    except WrongUse as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path, Path, dict[str, Pixels], Path]:
    """A scene, an output of boxes and one of masks for it, class maps and an output of those."""
    random = np.random.default_rng(5)
    of = odd_truths.scene(random)
    root = tmp_path_factory.mktemp("ready")
    outlined = found(of, root / "outlined", random)
    boxes = [{"path": name, "width": of.width, "height": of.height, "detections": []} for name in of.images]
    maps = odd_truths.maps(random, [0, 1, 2, 255])
    plain = output(root / "plain", "detect", [Category(at, name) for at, name in enumerate(of.classes)], boxes)
    return of, plain, outlined, maps, mapped(maps, root / "seen")


def test_spoilt_truths_are_sentences(
    seeds: Seeds, tmp_path: Path, ready: tuple[Scene, Path, Path, dict[str, Pixels], Path]
) -> None:
    of, plain, outlined, maps, seen = ready
    for seed in seeds(20):
        random = np.random.default_rng(seed)
        root = tmp_path / str(seed)
        given = odd_truths.one(random, plain, outlined)
        kind = odd_truths.one(random, "json", "json", "results", "bytes", "yolo", "voc", "masks")
        root.mkdir()
        if kind == "results":
            (root / "t.json").write_bytes(odd_truths.coco(of))
            (root / "found.json").write_bytes(odd_truths.spoil_json(odd_truths.results(of), random))
            tried(root / "found.json", root / "t.json", tmp_path / "out")
            continue
        if kind in ("json", "bytes"):
            content = odd_truths.coco(of, random if kind == "bytes" else None)
            way = odd_truths.spoil_bytes if kind == "bytes" else odd_truths.spoil_json
            (root / "t.json").write_bytes(way(content, random))
            tried(given, root / "t.json", tmp_path / "out")
            if kind == "json":
                tried(root / "t.json", root / "t.json", tmp_path / "out")
            continue
        if kind == "masks":
            odd_truths.masks(maps, root, random)
            given = seen
        else:
            (odd_truths.yolo if kind == "yolo" else odd_truths.voc)(of, root, random)
        odd_truths.spoil(root, random)
        tried(given, root, tmp_path / "out")
