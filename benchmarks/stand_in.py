"""Runs the engine with a stand-in for a model on a GPU, and says how long the interpreter's lock was held.

python benchmarks/stand_in.py SOURCE OUT

Prints JSON: images per second, processor seconds an image of this process, and the share of py-spy's samples in which
some thread of it held the lock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.networks import registry
from cvjobs.prediction.engine.engine import Engine, EngineSpec
from cvjobs.prediction.engine.task import Columns
from cvjobs.sources.listing import list_source

BATCH = 256
SECONDS = 0.016
RATE = 200  # looks at the lock in a second
SHARD = 4096


@dataclass(frozen=True)
class StandIn:
    """Vectors of eight numbers after 16 ms a batch, during which the lock is free."""

    transform: Transform
    results: pa.Schema

    def open(self) -> StandIn:
        """Nothing is to load."""
        return self

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the first pixels of each image."""
        time.sleep(SECONDS * len(pixels) / BATCH)
        vectors = pixels.reshape(len(pixels), -1)[:, :8].astype(np.float32)
        return Columns([pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)])


def held(pid: int, seconds: float, out: str) -> float:
    """Return in what share of the samples the process held its lock."""
    spy = Path(sys.executable).with_name("py-spy")  # it comes with Ray
    options = ["--gil", "--nonblocking", "--format", "raw", "--rate", str(RATE), "--duration", str(int(seconds))]
    subprocess.run([spy, "record", *options, "--pid", str(pid), "--output", out], check=True, capture_output=True)
    with open(out, encoding="utf-8") as file:
        samples = sum(int(line.rsplit(" ", 1)[1]) for line in file)
    return samples / (RATE * int(seconds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("out")
    options = parser.parse_args(arguments)
    listing = list_source(options.source)
    transform = registry.embedder("thumbnail/8", weights="pretrained", layer="").transform
    results = pa.schema([("embedding", pa.list_(pa.float32(), 8))])
    spec = EngineSpec(
        out=options.out,
        storage={},
        author=Author(run=schema.new_run(0), epoch=0, fingerprint="", listed=0),
        epoch=0,
        root=listing.root,
        base=listing.base,
        schema=schema.result_schema(pa.schema([]), results),
        opener=StandIn(transform, results),
        device="cpu",
        cpus=2,
        batch_size=BATCH,
    )
    engine = Engine(spec)
    images = listing.images
    first = SHARD  # the decoders get ready
    engine.run(images.slice(0, first))
    began, before = time.monotonic(), engine.pace
    with ThreadPoolExecutor(3) as threads, tempfile.NamedTemporaryFile() as samples:
        share = threads.submit(held, os.getpid(), 3, samples.name)
        starts = range(first, images.num_rows, SHARD)
        list(threads.map(lambda start: engine.run(images.slice(start, SHARD)), starts))
        took, after = time.monotonic() - began, engine.pace
        own = (after.cpu - after.decoding) - (before.cpu - before.decoding)
        count = images.num_rows - first
        print(json.dumps({"images_per_second": count / took, "own": own / count, "held": share.result()}))
    engine.close()


if __name__ == "__main__":
    main()
