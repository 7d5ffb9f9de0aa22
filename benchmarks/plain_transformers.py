"""What a good engineer writes with transformers alone: two threads, each decodes images and runs processor and model.

python benchmarks/plain_transformers.py detect|segment SOURCE OUT.parquet --model FOLDER [--conf N]
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForSemanticSegmentation

THREADS = 2
BATCH = 4

Predict = Callable[[list[Image.Image]], list[dict[str, Any]]]


def detector(model: Any, processor: Any, conf: float) -> Predict:
    """Return a function from images to rows of boxes, scores and classes."""

    def detect(images: list[Image.Image]) -> list[dict[str, Any]]:
        outputs = model(**processor(images=images, return_tensors="pt"))
        sizes = [(image.height, image.width) for image in images]
        found = processor.post_process_object_detection(outputs, threshold=conf, target_sizes=sizes)
        return [{name: one[name].flatten().tolist() for name in ("boxes", "scores", "labels")} for one in found]

    return detect


def segmenter(model: Any, processor: Any) -> Predict:
    """Return a function from images to rows with a PNG of the classes at their own size."""

    def segment(images: list[Image.Image]) -> list[dict[str, Any]]:
        outputs = model(**processor(images=images, return_tensors="pt"))
        sizes = [(image.height, image.width) for image in images]
        rows = []
        for found in processor.post_process_semantic_segmentation(outputs, target_sizes=sizes):
            file = io.BytesIO()
            Image.fromarray(found.to(torch.uint8).numpy()).save(file, "PNG")
            rows.append({"class_map": file.getvalue()})
        return rows

    return segment


def main() -> None:
    """Run the model on every JPEG below SOURCE into one Parquet file, and print how long that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("detect", "segment"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--conf", type=float, default=0.5)
    options = parser.parse_args()
    processor = AutoImageProcessor.from_pretrained(options.model)
    kind = AutoModelForObjectDetection if options.task == "detect" else AutoModelForSemanticSegmentation
    model = kind.from_pretrained(options.model).eval().to(memory_format=torch.channels_last)
    predict = detector(model, processor, options.conf) if options.task == "detect" else segmenter(model, processor)
    paths = sorted(options.source.rglob("*.jpg"))
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    ready: list[float] = []

    def work(batch: list[Path]) -> list[dict[str, Any]]:
        images = [Image.open(path).convert("RGB") for path in batch]
        with torch.inference_mode():
            found = predict(images)
        ready.append(time.perf_counter())
        return found

    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        rows = [row for found in threads.map(work, batches) for row in found]
    names = [str(path.relative_to(options.source)) for path in paths]
    pq.write_table(pa.Table.from_pylist(rows).append_column("path", pa.array(names)), options.out)
    answer = {
        "images": len(paths),
        "images_per_second": (len(paths) - BATCH) / (max(ready) - min(ready)),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
