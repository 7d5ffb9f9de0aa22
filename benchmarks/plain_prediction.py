"""What a good engineer writes with torchvision alone: two threads, each decodes images and runs the model on them.

python benchmarks/plain_prediction.py detect|segment SOURCE OUT.parquet --model NAME --weights FILE
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import models

from cvjobs.images import decode
from cvjobs.images.transform import Transform

THREADS = 2
BATCH = {"detect": 4, "segment": 1}  # what is fastest on a CPU
MAX_PIXELS = 80_000_000


def detector(model: Any) -> Callable[[list[torch.Tensor]], list[dict[str, Any]]]:
    """Return a function from images (3, H, W), 0..255, to rows of boxes, scores and classes."""

    def detect(batch: list[torch.Tensor]) -> list[dict[str, Any]]:
        found = model([image.float() / 255 for image in batch])
        return [{name: one[name].flatten().tolist() for name in ("boxes", "scores", "labels")} for one in found]

    return detect


def segmenter(model: Any, name: str) -> Callable[[list[torch.Tensor]], list[dict[str, Any]]]:
    """Return a function from images (3, H, W), 0..255, to rows with a PNG of the classes at their own size."""
    prepare = models.get_model_weights(name).DEFAULT.transforms()

    def segment(batch: list[torch.Tensor]) -> list[dict[str, Any]]:
        found = []
        for image in batch:
            # Not as a tensor, which torchvision resizes a little differently.
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            logits = model(prepare(picture)[None])["out"]
            logits = torch.nn.functional.interpolate(logits, image.shape[1:], mode="bilinear", align_corners=False)
            file = io.BytesIO()
            Image.fromarray(logits[0].argmax(0).to(torch.uint8).numpy()).save(file, "PNG")
            found.append({"class_map": file.getvalue()})
        return found

    return segment


def main() -> None:
    """Run the model on every JPEG below SOURCE into one Parquet file, and print how long that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(BATCH))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--conf", type=float)
    options = parser.parse_args()
    model = models.get_model(options.model, weights=None, weights_backbone=None)
    if options.conf is not None:
        model.score_thresh = options.conf
    model.load_state_dict(load_file(options.weights))
    model = model.eval().to(memory_format=torch.channels_last)
    predict = detector(model) if options.task == "detect" else segmenter(model, options.model)
    paths = sorted(options.source.rglob("*.jpg"))
    size = BATCH[options.task]
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    ready: list[float] = []

    def work(batch: list[Path]) -> list[dict[str, Any]]:
        decoded = [decode.decode(path.read_bytes(), Transform(fit="native"), MAX_PIXELS).pixels for path in batch]
        with torch.inference_mode():
            found = predict([torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1) for pixels in decoded])
        ready.append(time.perf_counter())
        return found

    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        rows = [row for found in threads.map(work, batches) for row in found]
    names = [str(path.relative_to(options.source)) for path in paths]
    pq.write_table(pa.Table.from_pylist(rows).append_column("path", pa.array(names)), options.out)
    answer = {
        "images": len(paths),
        "images_per_second": (len(paths) - size) / (max(ready) - min(ready)),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
