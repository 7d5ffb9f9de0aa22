"""Models that are in a bucket and are wanted as files of this machine: each version of one is fetched once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.networks import sealed_model
from cvjobs.storage import machine_cache
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.storage.object_store import address
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store

KEPT = 2  # versions of a file
RUN_MODEL = "model.safetensors"  # of a training run's folder
_OPTIONS: ContextVar[Options | None] = ContextVar("options", default=None)


@contextmanager
def reached_with(options: Options) -> Iterator[None]:
    """Reach the buckets of models with these options: within the context, in this thread."""
    token = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def options() -> Options:
    """Return what the buckets of models are reached with here."""
    return _OPTIONS.get() or {}


def run_folder(place: str) -> str:
    """Return the folder with the model of a run: of one in a bucket this machine's copy, others are as they are named.

    Raises:
        WrongUse: in the bucket there is no run, or its model is not what was written.
    """
    bucket = address(place)
    if bucket is None:
        return place
    store = BucketStore(bucket, "reader", options())
    copy, whole = _copied(store, RUN_MODEL)
    if copy is None and store.names("."):
        raise WrongUse(f"The run {place} has no {RUN_MODEL} yet: train until its first epoch is done.")
    if copy is None:
        raise WrongUse(f"There is no run {place}: name the -o of `cvjobs train`.")
    if not whole:
        raise WrongUse(
            f"{place}/{RUN_MODEL} is damaged (its digest differs): run the same `cvjobs train` again, which makes it "
            "from a checkpoint where one has it."
        )
    return str(copy.parent)


def file(store: Store, name: str) -> Path | None:
    """Return the model of a store, or this machine's copy in a folder of the same name; None where there is none.

    Raises a CvjobsError where the store cannot be read, or there is no room for a copy.
    """
    if not isinstance(store, BucketStore):
        there = Path(store.place) / name
        return there if there.exists() else None
    return _copied(store, name)[0]


def _copied(store: BucketStore, name: str) -> tuple[Path | None, bool]:
    """Return the copy of a model, None where there is none, and whether it is what was written."""
    tag = store.tag(name)
    if tag is None:
        return None, False
    copies = machine_cache.folder("models", f"{store.place}/{name}")
    copy = _named(copies, tag, store, name)
    try:
        if copy.exists():
            if sealed_model.hashed(copy)[1]:
                return copy, True
            copy.unlink()
        copies.mkdir(parents=True, exist_ok=True)
        copy = _fetched(store, name, copies)
        return copy, sealed_model.hashed(copy)[1]
    except FileNotFoundError:
        return None, False
    except OSError as error:
        raise storage_failure(error, str(copies), machine_cache.VARIABLE) from error


def _named(copies: Path, tag: str, store: BucketStore, name: str) -> Path:
    """Return where the copy of a version is."""
    run = store.root.key.rpartition("/")[2] or store.root.bucket
    return copies / hashlib.sha256(tag.encode()).hexdigest()[:20] / run / name


def _fetched(store: BucketStore, name: str, copies: Path) -> Path:
    descriptor, temporary = tempfile.mkstemp(dir=copies, prefix=".tmp-")
    try:
        with open(descriptor, "wb") as out:
            copy = _named(copies, store.fetch(name, out), store, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, copy)
    except BaseException:
        os.unlink(temporary)
        raise
    versions = sorted((entry for entry in copies.iterdir() if entry.is_dir()), key=lambda entry: entry.stat().st_mtime)
    for old in versions[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return copy
