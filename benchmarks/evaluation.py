"""COCO's numbers of a large set of boxes: `cvjobs eval`'s arithmetic beside faster-coco-eval's from files.

python benchmarks/evaluation.py [--images N]

Both sides start with files and end with the twelve numbers, which must be equal: ours reads Parquet parts as a run
writes them and COCO's JSON, faster-coco-eval reads COCO's JSON and a JSON file of the same results. The boxes are made
up: about seven objects an image in 80 classes, some found several times with some error, among false alarms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import photos
import pyarrow as pa
from processes import Finished, script, two_cores
from table import Row, noisy, show

from cvjobs.common import categories
from cvjobs.common.categories import Category
from cvjobs.dataset import parts, snapshot
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.storage.store import open_store

WIDTH, HEIGHT = 640, 480
CLASSES, TRUTHS, FOUND = 80, 7.2, 100
ROWS_A_FILE = 1000
CATEGORIES = [Category(number + 1, f"class {number + 1}") for number in range(CLASSES)]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def rows(images: int, cache: Path) -> list[Row]:
    """Measure on ``images`` with 100 detections each; raises RuntimeError where the numbers differ."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        write(folder, images)
        before, ours, after = (script("evaluation.py", "--side", side, folder) for side in ("theirs", "ours", "theirs"))
    if not np.allclose(before.answer["stats"], ours.answer["stats"], rtol=0, atol=1e-9):
        raise RuntimeError(f"the numbers differ: {before.answer['stats']} and {ours.answer['stats']}")
    baseline = (before.answer["seconds"] + after.answer["seconds"]) / 2
    what = f"COCO eval, {images:,} images × {TRUTHS * images:,.0f} truths × {FOUND} detections"
    unsteady = noisy(before.answer["seconds"], after.answer["seconds"])
    raw = {"ours": ours.answer, "theirs": before.answer}
    return [
        Row(
            what=f"{what} ÷ faster-coco-eval from files",
            value=ours.answer["seconds"] / baseline,
            unit="×",
            bound="≤",
            target=1.0,
            noisy=unsteady,
            raw=raw,
        ),
        Row(
            what="the same: peak memory ÷ faster-coco-eval's",
            value=_peak(ours) / _peak(before),
            unit="×",
            bound="≤",
            target=1.0,
        ),
    ]


def _peak(run: Finished) -> float:
    peak: float = run.answer["mib"]
    return peak


def write(folder: Path, images: int) -> None:
    """Write a truth, an output of ``detect``, and the same detections as COCO's results."""
    random = np.random.default_rng(0)
    truths = round(TRUTHS * images)
    image, category = np.sort(random.integers(0, images, truths)), random.integers(1, CLASSES + 1, truths)
    boxes = _boxes(random, truths)
    found = _boxes(random, images * FOUND)
    classes, score = random.integers(1, CLASSES + 1, images * FOUND), 0.5 * random.random(images * FOUND)
    for _ in range(3):  # each object is found up to three times; a later one may take the place of an earlier one
        at = image * FOUND + random.integers(0, FOUND, truths)
        sides = np.tile(boxes[:, 2:], 2)
        found[at] = (boxes + random.normal(0, 0.08, (truths, 4)) * sides).clip(0)
        classes[at], score[at] = category, random.beta(3, 2, truths)
    _truth(folder / "truth.json", images, image, category, boxes, random.random(truths) < 0.01)
    _found(folder, images, found, classes, score)


def _boxes(random: np.random.Generator, count: int) -> Floats:
    """Return boxes x, y, width, height with sides from 8 to 400 pixels."""
    sides = np.minimum(np.exp(random.uniform(np.log(8), np.log(400), (count, 2))), (WIDTH, HEIGHT))
    return np.concatenate([random.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - sides), sides], axis=1)


def _truth(file: Path, images: int, image: Ints, category: Ints, boxes: Floats, crowd: npt.NDArray[np.bool_]) -> None:
    columns = zip(image.tolist(), category.tolist(), boxes.tolist(), crowd.tolist(), strict=True)
    annotations = [
        {"id": n + 1, "image_id": i + 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(w)}
        for n, (i, c, b, w) in enumerate(columns)
    ]
    listed = [{"id": i + 1, "file_name": _name(i), "width": WIDTH, "height": HEIGHT} for i in range(images)]
    named = [{"id": c.id, "name": c.name} for c in CATEGORIES]
    file.write_text(json.dumps({"images": listed, "categories": named, "annotations": annotations}))


def _name(image: int) -> str:
    return f"{image:06}.jpg"


def _found(folder: Path, images: int, boxes: Floats, classes: Ints, score: Floats) -> None:
    """Write detections as parts of a snapshot, and as a results file with the same float32 numbers."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    scores = score.astype(np.float32)
    order = np.lexsort((-scores, np.repeat(np.arange(images), FOUND)))
    corners, scores, classes = corners[order], scores[order], classes[order]
    exact = corners.astype(np.float64)
    records = zip(
        np.repeat(np.arange(images), FOUND).tolist(),
        classes.tolist(),
        np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist(),
        scores.tolist(),
        strict=True,
    )
    said = [{"image_id": i + 1, "category_id": c, "bbox": b, "score": s} for i, c, b, s in records]
    (folder / "found.json").write_text(json.dumps(said))
    store = open_store(str(folder / "found"), "r000001")
    store.create(dataset_schema.FORMAT, dataset_schema.pack({"format": "cvjobs", "version": 1, "source": "/photos"}))
    facts = {"model": "made-up", **categories.facts("detect", CATEGORIES)}
    author = parts.Author(run="r000001-00000000", epoch=0, fingerprint="f" * 64, listed=0)
    files = []
    for start in range(0, images, ROWS_A_FILE):
        some = slice(start * FOUND, min(start + ROWS_A_FILE, images) * FOUND)
        part = parts.commit(store, author, _table(start, corners[some], scores[some], classes[some]), None)
        assert part.results is not None
        files.append(part.results)
    new = Snapshot(version=1, run=author.run, facts=facts, source="/photos", root="/photos", results=tuple(files))
    assert snapshot.publish(store, new)


def _table(start: int, corners: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], classes: Ints) -> pa.Table:
    count = len(scores) // FOUND
    schema = dataset_schema.result_schema(pa.schema([]), dataset_schema.SCHEMAS["detect"])
    columns: dict[str, Any] = {
        "path": pa.array([_name(start + n) for n in range(count)]),
        "image_id": pa.array([n.to_bytes(16, "big") for n in range(start, start + count)], dataset_schema.ID),
        "version": pa.array(np.ones(count, np.uint64)),
        "width": pa.array(np.full(count, WIDTH, np.int32)),
        "height": pa.array(np.full(count, HEIGHT, np.int32)),
    }
    labels = pa.array([c.name for c in CATEGORIES]).take(pa.array(classes - 1))
    values = [*corners.T, scores, classes.astype(np.int32)]
    nested = pa.StructArray.from_arrays([*map(pa.array, values), labels], fields=list(dataset_schema.DETECTION))
    offsets = pa.array(np.arange(0, len(scores) + 1, FOUND), pa.int32())
    columns["detections"] = pa.ListArray.from_arrays(offsets, nested)
    filled = [columns.get(f.name, pa.nulls(count, f.type)) for f in schema]
    return pa.table([c.cast(f.type) for c, f in zip(filled, schema, strict=True)], schema=schema)


def ours(folder: Path) -> list[float]:
    """Return the twelve numbers of the output."""
    from cvjobs.evaluation import boxes as evaluation_boxes
    from cvjobs.evaluation.ground_truth import open as ground_truth_open
    from cvjobs.evaluation.ground_truth.types import ObjectTruth
    from cvjobs.evaluation.metrics.coco_ap import METRICS
    from cvjobs.evaluation.predictions import open_predictions

    truth = ground_truth_open.read(str(folder / "truth.json"), "detect")
    assert isinstance(truth, ObjectTruth)
    scores = evaluation_boxes.score(truth, evaluation_boxes.meet(truth, open_predictions(str(folder / "found"), {})))
    return [scores.average(name) for name in METRICS]


def theirs(folder: Path) -> list[float]:
    """Return what faster-coco-eval says of the results file."""
    from faster_coco_eval import COCO, COCOeval_faster

    def quiet(*_: object) -> None:
        pass

    truth = COCO(str(folder / "truth.json"), print_function=quiet)
    judge = COCOeval_faster(truth, truth.loadRes(str(folder / "found.json")), iouType="bbox", print_function=quiet)
    judge.run()
    return [float(value) for value in judge.stats[:12]]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print, or be one of the sides."""
    import resource

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--cache", type=Path, default=photos.default_cache())
    parser.add_argument("--side", nargs=2, metavar=("WHOSE", "FOLDER"), help="ours or theirs: used by this program")
    options = parser.parse_args(arguments)
    if options.side:
        side = {"ours": ours, "theirs": theirs}[options.side[0]]
        began = time.perf_counter()
        stats = side(Path(options.side[1]))
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mib": peak, "stats": stats}))
        sys.exit()
    two_cores()
    options.cache.mkdir(parents=True, exist_ok=True)
    measured = rows(options.images, options.cache)
    show(measured)
    return measured


if __name__ == "__main__":
    main()
