"""What ``tests/dataset/test_before.py`` continues: outputs that the commands of version 0.1.0 left, in ``made.tar.xz``.

The archive was made by commit 9c27a1d. In a checkout of it with its ``.venv``, PATH being this file::

    PYTHONPATH=tests .venv/bin/python PATH

makes the archive beside this file anew: in folders below ``ROOT``, and in a bucket, whose outputs are copied to the
folder ``bucket``. ``made.json`` in the archive names ``ROOT``, the bucket, the counts and the options of the commands.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from buckets import KEYS, Bucket, made, server
from commands import CLI, aged, kill, run, started, until
from PIL import Image, ImageDraw

ROOT = Path("/tmp/cvjobs-before")
ARCHIVE = Path(__file__).with_name("made.tar.xz")
PHOTOS, SCANS = 12, 60
MODEL = ("--model", "thumbnail/4")
TINY = ("--dim", "1", "--img-size", "8", "--batch-size", "4", "--opt", "sgd", "--precision", "fp32")
TRAINING = ("--task", "autoencoder", *TINY)
RUN, HALF_RUN = (*TRAINING, "--epochs", "2"), (*TRAINING, "--epochs", "40")
MADE = {
    "root": str(ROOT),
    "bucket": "before",
    "photos": PHOTOS,
    "scans": SCANS,
    "model": MODEL,
    "run": RUN,
    "half_run": HALF_RUN,
}


def main() -> None:
    """Make everything anew."""
    os.environ.update(KEYS)
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(ROOT, ignore_errors=True)
    sources()
    os.chdir(ROOT)
    done("embed", "photos", "-o", "vectors", *MODEL)
    done("index", "vectors", "-o", "index")
    half("embed", "scans", "-o", "half", *MODEL, when=lambda: any(Path("half").glob("_cvjobs/parts/*.json")))
    done("train", "photos.csv", "-o", "run", *RUN)
    half("train", "photos.csv", "-o", "half-run", *HALF_RUN, when=lambda: epochs(Path("half-run")) >= 3)
    assert not Path("half/_cvjobs/versions").exists()
    assert not Path("half-run/summary.json").exists()
    with server() as endpoint:
        in_bucket(made(endpoint, str(MADE["bucket"])))
    small()
    Path("made.json").write_text(json.dumps(MADE))
    with tarfile.open(ARCHIVE, "w:xz") as archive:
        for path in sorted(ROOT.iterdir()):
            archive.add(path, path.name)


def sources() -> None:
    """Make small photos and a list of them, and scans that take long to decode and few bytes."""
    for name in ("photos", "scans"):
        (ROOT / name).mkdir(parents=True)
    for number in range(PHOTOS):
        photo(number).save(ROOT / "photos" / f"photo{number:02}.png")
    for number in range(SCANS):
        Image.new("1", (3000, 3000 + number), number % 2).save(ROOT / "scans" / f"scan{number:02}.png")
    lines = ["path", *(f"photos/photo{number:02}.png" for number in range(PHOTOS))]
    (ROOT / "photos.csv").write_text("\n".join(lines) + "\n")
    aged(ROOT)


def photo(number: int) -> Image.Image:
    """Return a small picture that no other number has."""
    image = Image.new("RGB", (16, 12), (20 * number % 256, (255 - 20 * number) % 256, 90))
    ImageDraw.Draw(image).rectangle((number, 2, number + 4, 9), (250, 10 * number, 30))
    return image


def done(*words: str) -> None:
    """Run a command to its end."""
    ended = run(*words)
    assert ended.code == 0, ended


def half(*words: str, when: Callable[[], bool]) -> None:
    """Kill a command at a moment before its end."""
    with started([*CLI, *words]) as process:
        until(lambda: when() or process.poll() is not None)
        kill(process, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before its time: run this again"


def epochs(folder: Path) -> int:
    """Return the number of epochs in the history of a training."""
    try:
        return int(pq.read_table(folder / "history.parquet").num_rows)
    except (OSError, ValueError):
        return 0


def in_bucket(bucket: Bucket) -> None:
    """Make outputs of images in a bucket, in the same bucket, and copy them."""
    for name in ("photos", "scans"):
        bucket.upload(ROOT / name, name)
    time.sleep(3)  # objects that are younger than two seconds are looked at again
    done("embed", bucket.url("photos"), "-o", bucket.url("vectors"), *MODEL, *bucket.options)
    done("index", bucket.url("vectors"), "-o", bucket.url("index"), *bucket.options)
    words = ("embed", bucket.url("scans"), "-o", bucket.url("half"), *MODEL, *bucket.options)
    half(*words, when=lambda: bool(bucket.keys("half/_cvjobs/parts")))
    assert not bucket.keys("half/_cvjobs/versions")
    for key in (*bucket.keys("vectors"), *bucket.keys("index"), *bucket.keys("half")):
        place = ROOT / "bucket" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bucket.read(key))


def small() -> None:
    """Delete what no command reads: checkpoints of the finished run, and those before the newest of the killed one."""
    shutil.rmtree(ROOT / "run" / "checkpoints")
    for old in sorted((ROOT / "half-run" / "checkpoints").glob("[0-9]*"))[:-1]:
        shutil.rmtree(old)


if __name__ == "__main__":
    main()
