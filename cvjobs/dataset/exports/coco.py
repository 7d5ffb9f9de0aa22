"""COCO's annotation file: boxes with keypoints, masks of objects, and class maps as one mask a class, with scores.

Images are numbered by the order of their paths, annotations by that of the rows, both from 1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from cvjobs.common.categories import landmarks
from cvjobs.dataset.export import ExportedOutput
from cvjobs.dataset.schema import CLASS_MAP, CLASSES, DETECTIONS, LANDMARKS
from cvjobs.images.masks import rle
from cvjobs.storage.store import file_at

TASKS = ("detect", "instance", "semantic")
UNIT = "annotations"
SEEN = 2  # what COCO says of a keypoint that is labelled and visible

Record = dict[str, Any]


def write(output: ExportedOutput, to: str) -> int:
    """Write the file and return how many annotations it has."""
    count = 0

    def fill(file: BinaryIO) -> None:
        nonlocal count
        images = output.ranks()
        numbers = {c.id: n if output.contiguous else c.id for n, c in enumerate(output.categories, 1)}
        names = landmarks(output.reader.snapshot.facts)
        points = {"keypoints": names, "skeleton": []} if names else {}
        categories = [{"id": numbers[c.id], "name": c.name, "supercategory": "", **points} for c in output.categories]
        file.write(b'{"info": ' + _json(_info(output)) + b',\n"licenses": [],\n"images": [')
        _put(file, _images(output, images))
        file.write(b'],\n"categories": ' + _json(categories) + b',\n"annotations": [')
        count = _put(file, _annotations(output, images, numbers))
        file.write(b"]}\n")

    store, name = file_at(to, output.options)
    store.write(name, fill)
    return count


def _info(output: ExportedOutput) -> Record:
    origin = output.reader.origin
    made = datetime.fromtimestamp(origin["created"], UTC)
    return {
        "description": f"{origin['model']} on {origin['source']}",
        "date_created": made.isoformat(timespec="seconds"),
        "cvjobs": origin,
    }


def _put(file: BinaryIO, blocks: Iterable[list[Record]]) -> int:
    """Write the members of a list, one a line, and return how many."""
    count = 0
    for block in blocks:
        if block:
            file.write((b",\n" if count else b"\n") + b",\n".join(map(_json, block)))
            count += len(block)
    return count


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _images(output: ExportedOutput, numbers: Any) -> Iterator[list[Record]]:
    at = 0
    for table in output.tables(["path", "width", "height"]):
        rows = zip(numbers[at:].tolist(), *(column.to_pylist() for column in table.columns), strict=False)
        yield [{"id": n, "file_name": path, "width": width, "height": height} for n, path, width, height in rows]
        at += table.num_rows


def _annotations(output: ExportedOutput, images: Any, numbers: dict[int, int]) -> Iterator[list[Record]]:
    columns = [CLASS_MAP, CLASSES] if output.task == "semantic" else [DETECTIONS]
    describe = _classes if output.task == "semantic" else _objects
    at = number = 0
    for table in output.tables(["height", "width", *columns]):
        for row in table.to_pylist():
            block = []
            for found in describe(row):
                category = numbers.get(found.pop("category_id"))
                if category is not None:  # the background of a class map is no category
                    number += 1
                    about = {"id": number, "image_id": int(images[at]), "category_id": category}
                    block.append({**about, **found, "iscrowd": 0})
            yield block
            at += 1


def _objects(row: Record) -> Iterator[Record]:
    """Yield what is said of each object; the numbers are those of the row to the last bit."""
    objects = row[DETECTIONS] or ()
    masked = [found["rle"] for found in objects if "rle" in found]
    areas = rle.areas(masked).tolist()
    for at, found in enumerate(objects):
        width, height = found["x1"] - found["x0"], found["y1"] - found["y0"]
        about = {
            "category_id": found["category_id"],
            "bbox": [found["x0"], found["y0"], width, height],
            "area": width * height,
            "score": found["score"],
        }
        if masked:
            about["area"] = areas[at]
            about["segmentation"] = {"size": [row["height"], row["width"]], "counts": found["rle"]}
        if points := found.get(LANDMARKS):
            about["keypoints"] = [value for point in points for value in (point["x"], point["y"], SEEN)]
            about["num_keypoints"] = len(points)
        yield about


def _classes(row: Record) -> Iterator[Record]:
    """Yield what is said of each class of a class map."""
    Image.MAX_IMAGE_PIXELS = None  # the map is as large as an image that --max-pixels let in
    with Image.open(io.BytesIO(row[CLASS_MAP])) as image:
        pixels = np.asarray(image)
    for found in row[CLASSES]:
        mask = pixels == found["category_id"]
        (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis))[[0, 0, -1]] for axis in (1, 0))
        crop = mask[top : bottom + 1, left : right + 1]
        yield {
            "category_id": found["category_id"],
            "bbox": [int(left), int(top), crop.shape[1], crop.shape[0]],
            "area": found["pixels"],
            "segmentation": {
                "size": list(mask.shape),
                "counts": rle.encode(crop, (int(top), int(left)), (mask.shape[0], mask.shape[1])),
            },
        }
