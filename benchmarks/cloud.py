"""Embedding photos from an object store (moto's server, in a process of its own) ÷ from a local folder.

python benchmarks/cloud.py [--images N] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import obstore
import photos
from obstore.store import S3Store
from processes import embed, two_cores
from speed import MODELS
from table import Row, noisy, show

SERVER = Path(__file__).parent.parent / "tests" / "buckets.py"
MODEL = "torchvision/mobilenet_v2"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
BUCKET = "bench"


def rows(images: int, cache: Path) -> list[Row]:
    """Measure a run on objects between two on files."""
    source, options = photos.folder(images, cache), ("--model", MODEL, *MODELS[MODEL])
    with _server() as endpoint, tempfile.TemporaryDirectory(dir=cache) as scratch:
        _upload(source, endpoint)
        before = embed(source, Path(scratch, "before"), *options)
        ours = embed(f"s3://{BUCKET}/photos", Path(scratch, "s3"), *options, "--storage-option", f"endpoint={endpoint}")
        after = embed(source, Path(scratch, "after"), *options)
    rates = {name: run.answer["images_per_second"] for name, run in (("file", before), ("s3", ours), ("after", after))}
    return [
        Row(
            what=f"{MODEL}, {images:,} images: steady img/s from object storage ÷ from a folder",
            value=rates["s3"] / mean((rates["file"], rates["after"])),
            unit="×",
            bound="≥",
            target=0.7,
            cpu=1000 * ours.cpu / images,
            noisy=noisy(rates["file"], rates["after"]),
            raw={name: round(rate, 1) for name, rate in rates.items()},
        )
    ]


@contextmanager
def _server() -> Iterator[str]:
    """Run moto's server, with its credentials in the environment, and yield its endpoint."""
    process = subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    os.environ.update(CREDENTIALS)
    try:
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")):
            yield endpoint
    finally:
        process.kill()
        process.communicate()


def _upload(source: Path, endpoint: str) -> None:
    store = S3Store(BUCKET, config={"endpoint": endpoint}, client_options={"allow_http": True})

    def put(path: Path) -> None:
        obstore.put(store, f"photos/{path.relative_to(source)}", path)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, source.rglob("*.jpg")))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 600)
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
