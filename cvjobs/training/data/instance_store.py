"""The masks of objects as a training's workers read them: in a table of the run for each split, as run lengths.

Those to train with are reduced to the size of the decoded images, each pixel the nearest one. In memory they stay
run lengths, a few hundred bytes an object in one buffer a split, and become pixels for the images of a step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.evaluation.metrics.objects import Rle
from cvjobs.images.masks import rle
from cvjobs.images.resizing import resized
from cvjobs.images.transform import Transform
from cvjobs.storage.store import Store
from cvjobs.training.data.instance_truth import InstanceTruth
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.recipe.padded_crops import nearest

FOLDER = "_cvjobs/instances"
SCHEMA = pa.schema(
    [("path", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("masks", pa.list_(pa.binary()))]
)


def table_of(split: str) -> str:
    """Return the name of the table of a run that has the masks of a split."""
    return f"{FOLDER}/{split}.parquet"


@dataclass(frozen=True)
class ImageMasks:
    """The masks of the objects in an image, as run lengths at a size of it in pixels."""

    height: int
    width: int
    texts: Sequence[bytes]

    @property
    def rles(self) -> list[Rle]:
        """Return them as COCO has them."""
        return [{"size": [self.height, self.width], "counts": text} for text in self.texts]

    def resized(self, height: int, width: int) -> ImageMasks:
        """Return them at another size, each pixel the nearest one."""
        if (height, width) == (self.height, self.width):
            return self
        rows, columns = nearest(0, self.height, height), nearest(0, self.width, width)
        made = []
        for text in self.texts:
            crop, (top, left) = rle.decode_crop(text.decode(), self.height, self.width)
            down = np.flatnonzero((rows >= top) & (rows < top + crop.shape[0]))
            across = np.flatnonzero((columns >= left) & (columns < left + crop.shape[1]))
            some = crop[(rows[down] - top)[:, None], columns[across] - left]
            offset = (int(down[0]), int(across[0])) if some.size else (0, 0)
            made.append(rle.encode(some if some.size else np.zeros((0, 0), np.uint8), offset, (height, width)).encode())
        return ImageMasks(height, width, made)


def leave(run: Store, labelled: LabelledImages, side: int) -> None:
    """Write the masks of a training into its run where they are not there; nothing without such masks.

    Those to train with are reduced as whole pictures are whose shorter side has ``side`` pixels.
    """
    truth = labelled.truth
    if not isinstance(truth, InstanceTruth):
        return
    for split, images in labelled.splits.items():
        reduced = side if split == "train" else 0
        digest = f"{truth.digest} {reduced}".encode()
        try:
            if (sealed_table.read(run, table_of(split)).schema.metadata or {}).get(b"masks") == digest:
                continue
        except UnreadableTable:
            pass
        paths: list[str] = images.rows["path"].to_pylist()
        with ThreadPoolExecutor(devices.cpus(), thread_name_prefix="masks") as threads:
            found = list(threads.map(_packed, map(truth.image, paths), repeat(reduced)))
        columns = [
            pa.array(paths, pa.string()),
            pa.array([one.height for one in found], pa.int32()),
            pa.array([one.width for one in found], pa.int32()),
            pa.array([one.texts for one in found], pa.list_(pa.binary())),
        ]
        table = pa.table(columns, schema=SCHEMA)
        sealed_table.write(run, table_of(split), table.replace_schema_metadata({"masks": digest}))


def _packed(masks: Sequence[Rle], side: int) -> ImageMasks:
    """Return the masks of an image, all at the size of the largest."""
    if not masks:
        return ImageMasks(1, 1, [])
    sizes = [(int(mask["size"][0]), int(mask["size"][1])) for mask in masks]
    height, width = max(sizes)
    if side:
        height, width = resized(height, width, Transform(resize=side, fit="whole"))
    each = [ImageMasks(*size, [mask["counts"]]) for size, mask in zip(sizes, masks, strict=True)]
    return ImageMasks(height, width, [text for one in each for text in one.resized(height, width).texts])


class StoredInstances:
    """The masks of a run, those of each split read when the first one of it is asked for."""

    def __init__(self, run: Store) -> None:
        self._run = run
        self._splits: dict[str, tuple[dict[str, int], pa.Table]] = {}

    def to_train(self, path: str) -> ImageMasks:
        """Return the masks of an image of train, reduced, in the order of its ``ImageObjects``."""
        rows, table = self._of("train")
        return _image(table, rows[path])

    def whole(self, path: str) -> ImageMasks:
        """Return those of an image of val or test, at the size that the truth has."""
        rows, table = self._of("val")
        if path not in rows:
            rows, table = self._of("test")
        return _image(table, rows[path])

    def _of(self, split: str) -> tuple[dict[str, int], pa.Table]:
        if split not in self._splits:
            try:
                table = sealed_table.read(self._run, table_of(split)).combine_chunks()
            except UnreadableTable as error:
                raise JobFailed(
                    f"{self._run.place}/{table_of(split)} {error.words}: the same command writes it anew."
                ) from None
            rows = {path: row for row, path in enumerate(table["path"].to_pylist())}
            self._splits[split] = rows, table
        return self._splits[split]


def _image(table: pa.Table, row: int) -> ImageMasks:
    height, width, texts = (table[name][row].as_py() for name in ("height", "width", "masks"))
    return ImageMasks(height, width, texts)
