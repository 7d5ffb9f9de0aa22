"""What a good engineer writes without any framework: two threads, each decodes a batch and runs the model on it.

python benchmarks/plain.py SOURCE OUT.parquet [--model NAME] [--weights random]
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # before the imports: a whole run pays for them

import argparse  # noqa: E402
import json  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402

from cvjobs.images import decode  # noqa: E402
from cvjobs.networks import registry  # noqa: E402

THREADS = 2
BATCH = 32
MAX_PIXELS = 80_000_000


def main() -> None:
    """Embed every JPEG below SOURCE into one Parquet file, and print how long that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="thumbnail/8")
    parser.add_argument("--weights", default="pretrained")
    options = parser.parse_args()
    embedder = registry.embedder(options.model, weights=options.weights)
    network = embedder.load("cpu", "fp32")
    paths = sorted(options.source.rglob("*.jpg"))
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    ready: list[float] = []

    def embed(batch: list[Path]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        decoded = [decode.decode(path.read_bytes(), embedder.transform, MAX_PIXELS).pixels for path in batch]
        vectors = network(np.stack(decoded))
        ready.append(time.perf_counter())
        return vectors

    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        vectors = np.concatenate(list(threads.map(embed, batches)))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), embedder.dim)
    names = [str(path.relative_to(options.source)) for path in paths]
    pq.write_table(pa.table({"path": names, "embedding": column}), options.out)
    answer = {
        "images": len(paths),
        "seconds": time.perf_counter() - BEGAN,
        "images_per_second": (len(paths) - len(batches[0])) / (max(ready) - min(ready)),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
