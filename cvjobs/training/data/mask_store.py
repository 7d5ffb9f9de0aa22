"""The masks of a training as its workers read them: in a table of the run for each split, as small PNGs of classes."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.images.resizing import resized
from cvjobs.images.transform import Transform
from cvjobs.storage.store import Store
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.data.mask_labels import MaskTruth
from cvjobs.training.recipe.padded_crops import nearest

FOLDER = "_cvjobs/masks"
SCHEMA = pa.schema([("path", pa.string()), ("mask", pa.binary())])
SHIFT = 1  # void, -1, is 0 in a file


def table_of(split: str) -> str:
    """Return the name of the table of a run that has the masks of a split."""
    return f"{FOLDER}/{split}.parquet"


def leave(run: Store, labelled: LabelledImages, side: int) -> None:
    """Write the masks of a training into its run where they are not there; nothing without masks.

    Those to train with are reduced as whole pictures are whose shorter side has ``side`` pixels.
    """
    truth = labelled.truth
    if not isinstance(truth, MaskTruth):
        return
    for split, images in labelled.splits.items():
        digest = f"{truth.digest} {side if split == 'train' else 0}".encode()
        try:
            if (sealed_table.read(run, table_of(split)).schema.metadata or {}).get(b"masks") == digest:
                continue
        except UnreadableTable:
            pass
        paths: list[str] = images.rows["path"].to_pylist()
        pack = partial(_packed, truth, side if split == "train" else 0)
        with ThreadPoolExecutor(devices.cpus(), thread_name_prefix="masks") as threads:
            packed = list(threads.map(pack, paths))
        table = pa.table([pa.array(paths, pa.string()), pa.array(packed, pa.binary())], schema=SCHEMA)
        sealed_table.write(run, table_of(split), table.replace_schema_metadata({"masks": digest}))


def _packed(truth: MaskTruth, side: int, path: str) -> bytes:
    classes = truth.classes(path) + SHIFT
    if side:
        height, width = resized(classes.shape[0], classes.shape[1], Transform(resize=side, fit="whole"))
        rows, columns = nearest(0, classes.shape[0], height), nearest(0, classes.shape[1], width)
        classes = classes[rows[:, None], columns]
    file = io.BytesIO()
    kind = np.uint8 if classes.max(initial=0) < 256 else np.uint16
    Image.fromarray(classes.astype(kind)).save(file, "PNG", compress_level=1)
    return file.getvalue()


class StoredMasks:
    """The masks of a run, those of each split read when the first one of it is asked for."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._splits: dict[str, dict[str, bytes]] = {}

    def to_train(self, path: str) -> NDArray[np.int16]:
        """Return the class of each pixel of an image of train, int16 (height, width), -1 for void, reduced."""
        return _unpacked(self._of("train")[path])

    def whole(self, path: str) -> NDArray[np.int16]:
        """Return that of an image of val or test, at its own size."""
        val = self._of("val")
        return _unpacked(val[path] if path in val else self._of("test")[path])

    def pixels(self, classes: int) -> list[int]:
        """Return how many pixels of the masks to train with are of each class, void left out."""
        counts = np.zeros(classes, np.int64)
        for mask in self._of("train").values():
            found = _unpacked(mask)
            counts += np.bincount(found[found >= 0], minlength=classes)[:classes]
        counted: list[int] = counts.tolist()
        return counted

    def _of(self, split: str) -> dict[str, bytes]:
        if split not in self._splits:
            try:
                table = sealed_table.read(self._run, table_of(split))
            except UnreadableTable as error:
                raise JobFailed(
                    f"{self._run.place}/{table_of(split)} {error.words}: the same command writes it anew."
                ) from None
            rows = zip(table["path"].to_pylist(), table["mask"].to_pylist(), strict=True)
            self._splits[split] = dict(rows)
        return self._splits[split]


def _unpacked(mask: bytes) -> NDArray[np.int16]:
    with Image.open(io.BytesIO(mask)) as image:
        found: NDArray[np.int16] = (np.asarray(image).astype(np.int32) - SHIFT).astype(np.int16)
    return found
