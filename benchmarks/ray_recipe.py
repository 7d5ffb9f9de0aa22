"""Ray's documented recipe for batch inference: `read_images → map_batches(Model) → write_parquet`.

python benchmarks/ray_recipe.py SOURCE OUT [--model NAME] [--weights random]
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # before the imports: a whole run pays for them

import argparse  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import ray  # noqa: E402

from cvjobs.networks import registry  # noqa: E402

CPUS = 2
BATCH = 32


class Model:
    """The model in Ray's actor; notes when each batch was ready, for the steady state."""

    def __init__(self, name: str, weights: str, ready: str) -> None:
        self._network = registry.embedder(name, weights=weights).load("cpu", "fp32")
        self._ready = Path(ready)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the vectors of ``batch["image"]``, uint8 (B, height, width, 3)."""
        vectors = self._network(batch["image"])
        with self._ready.open("a") as file:
            file.write(f"{time.time()} {len(vectors)}\n")
        return {"path": batch["path"], "embedding": vectors}


def main() -> None:
    """Embed every JPEG below SOURCE into Parquet files in OUT, and print how long that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--model", default="thumbnail/8")
    parser.add_argument("--weights", default="pretrained")
    options = parser.parse_args()
    size = registry.embedder(options.model, weights=options.weights).transform.size
    with tempfile.NamedTemporaryFile("r") as ready:
        ray.init(address="local", num_cpus=CPUS, include_dashboard=False)
        (
            ray.data.read_images(options.source, size=size, mode="RGB", include_paths=True)
            .map_batches(
                Model,
                fn_constructor_args=(options.model, options.weights, ready.name),
                batch_size=BATCH,
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            .write_parquet(options.out)
        )
        ray.shutdown()
        stamps = [(float(at), int(count)) for at, count in (line.split() for line in ready)]
    images = sum(count for _, count in stamps)
    answer = {
        "images": images,
        "seconds": time.perf_counter() - BEGAN,
        "images_per_second": (images - stamps[0][1]) / (stamps[-1][0] - stamps[0][0]),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
