"""What a good engineer writes with onnxruntime alone: two threads, each decodes images and runs the model on them.

python benchmarks/plain_onnx.py classify|detect SOURCE OUT.parquet --model FILE.onnx
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn.functional import interpolate
from torchvision.ops import batched_nms

from cvjobs.images import decode
from cvjobs.images.transform import Transform

THREADS = 2
BATCH = {"classify": 16, "detect": 4}
MAX_PIXELS = 80_000_000
SIDE, SHORT, SQUARE = 224, 256, 320
CONF, IOU, FILL = 0.25, 0.7, 114
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def classified(session: Any, paths: list[Path]) -> list[dict[str, Any]]:
    """Return the likeliest class of each image and its score."""
    transform = Transform(size=(SIDE, SIDE), resize=SHORT)
    pixels = np.stack([decode.decode(path.read_bytes(), transform, MAX_PIXELS).pixels for path in paths])
    images = np.ascontiguousarray(((pixels - MEAN) / STD).transpose(0, 3, 1, 2))
    (logits,) = session.run(None, {"images": images})
    odds = np.exp(logits - logits.max(1, keepdims=True))
    scores = odds / odds.sum(1, keepdims=True)
    return [{"scores": one.max(), "labels": int(one.argmax())} for one in scores]


def detected(session: Any, paths: list[Path]) -> list[dict[str, Any]]:
    """Return the boxes, scores and classes of each image."""
    images, moved = np.full((len(paths), 3, SQUARE, SQUARE), np.float32(FILL) / 255, np.float32), []
    for image, path in zip(images, paths, strict=True):
        pixels = decode.decode(path.read_bytes(), Transform(fit="native"), MAX_PIXELS).pixels
        ratio = SQUARE / max(pixels.shape[:2])
        size = round(pixels.shape[0] * ratio), round(pixels.shape[1] * ratio)
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
        top, left = (SQUARE - size[0]) // 2, (SQUARE - size[1]) // 2
        small = interpolate(planes, size, mode="bilinear", align_corners=False)[0].numpy() / 255
        image[:, top : top + size[0], left : left + size[1]] = small
        moved.append((ratio, left, top))
    (said,) = session.run(None, {"images": images})
    rows = []
    for one, (ratio, left, top) in zip(said, moved, strict=True):
        scores, labels = one[4:].max(0), one[4:].argmax(0)
        kept = scores > CONF
        centre, half = one[:2, kept].T, one[2:4, kept].T / 2
        boxes = (np.concatenate([centre - half, centre + half], 1) - (left, top, left, top)) / ratio
        best = batched_nms(
            torch.from_numpy(boxes).float(), torch.from_numpy(scores[kept]), torch.from_numpy(labels[kept]), IOU
        )[:300].numpy()
        found = {"boxes": boxes[best].ravel(), "scores": scores[kept][best], "labels": labels[kept][best]}
        rows.append({name: part.tolist() for name, part in found.items()})
    return rows


def main() -> None:
    """Run the model on every JPEG below SOURCE into one Parquet file, and print how long that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(BATCH))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    paths = sorted(options.source.rglob("*.jpg"))
    size = BATCH[options.task]
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    ready: list[float] = []

    def work(batch: list[Path]) -> list[dict[str, Any]]:
        found = (classified if options.task == "classify" else detected)(session, batch)
        ready.append(time.perf_counter())
        return found

    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        rows = [row for found in threads.map(work, batches) for row in found]
    names = [str(path.relative_to(options.source)) for path in paths]
    pq.write_table(pa.Table.from_pylist(rows).append_column("path", pa.array(names)), options.out)
    answer = {"images": len(paths), "images_per_second": (len(paths) - size) / (max(ready) - min(ready))}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
