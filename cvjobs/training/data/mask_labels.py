"""Images with a mask each, to train a segmenter on: which file is an image's mask, and what is wrong with it.

Masks are read as `cvjobs eval` reads them. They lie in a folder `masks` beside the folder `images`, both with the same
names below; splits are folders `train`, `val` and `test` above these two or below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import devices, rules
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted, shortened
from cvjobs.common.paths import path_bytes
from cvjobs.evaluation import void as evaluation_void
from cvjobs.evaluation.ground_truth import folder_files, image_sizes, masks
from cvjobs.evaluation.ground_truth.types import BadTruth, PixelTruth
from cvjobs.evaluation.void import Void
from cvjobs.sources.left_out import EXAMPLES, NamedCount
from cvjobs.sources.listing import nothing_found
from cvjobs.sources.rows import Listing
from cvjobs.storage.remote_files import is_remote
from cvjobs.training.data import class_naming, labels, omissions, stratified
from cvjobs.training.data.labels import LabelledImages

IMAGES, MASKS = "images", "masks"
VALUES = 1 << 16
MOST_CLASSES = (1 << 15) - 1
STRANGE = -2  # the place of a value that is no class
AT_ONCE = 256  # masks that are read ahead


@dataclass(frozen=True, kw_only=True)
class MaskTruth:
    """The masks of images: the file of each by the path of its image, and the class of each value, -1 for void.

    ``digest`` tells whether they are the same masks.
    """

    files: Mapping[str, Path] = field(repr=False)
    table: NDArray[np.int64] = field(repr=False)
    digest: str

    def classes(self, path: str) -> NDArray[np.int64]:
        """Return the class of each pixel of an image, int64 (height, width); raises BadTruth."""
        found: NDArray[np.int64] = self.table[masks.load(self.files[path])]
        return found


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a look at a mask found: which values it has, and its digest; or what is wrong with it, as code and words."""

    values: NDArray[np.int64]
    digest: bytes = b""
    code: str = ""
    detail: str = ""


def masked(
    listing: Listing,
    share: float,
    *,
    void: Void,
    names: Sequence[str] = (),
    most: int = MOST_CLASSES,
    splits: int = rules.SPLITS,
) -> LabelledImages:
    """Return the images of a folder that have a mask, with the classes that each shows, uint8 (n, classes).

    An image without a mask, or whose mask is damaged, has another size or values that are no class, is among the
    failures of the listing. Without a val split, ``share`` of the images are it (``stratified.validating``).

    Args:
        listing: Of a folder on this machine.
        share: See above.
        void: The value of pixels that do not count.
        names: Those of the classes, by their values; without any those of a file near the masks, or ``class 3``.
        most: More classes are an error.
        splits: The version of the rules by which images are chosen to validate.

    Raises:
        WrongUse: there are no masks, fewer than two classes, or no images in a split that needs some; or it is to be
            said whether 255 is a class.
    """
    if not listing.root or is_remote(path_bytes(listing.root)):
        raise WrongUse(
            f"{listing.source} is no folder on this machine: --task segment takes one with the folders `images` and "
            "`masks`."
        )
    if not listing.images.num_rows:
        raise WrongUse(nothing_found(listing))
    return _Reading(listing, void, names, most).labelled(share, splits)


class _Reading:
    def __init__(self, listing: Listing, void: Void, names: Sequence[str], most: int) -> None:
        self._most, self._root = most, Path(listing.root)
        paths = listing.images["path"].to_pylist()
        kept = [at for at, path in enumerate(paths) if MASKS not in path.split("/")[:-1]]
        self._listing = replace(listing, images=listing.images.take(pa.array(kept, pa.int64())))
        self._paths: list[str] = [paths[at] for at in kept]
        self._truths: dict[str, PixelTruth] = {}
        for above in sorted({above for above in map(_above, self._paths) if above is not None}):
            folder = self._root / above / MASKS
            if folder.is_dir():
                self._truths[above] = masks.read(folder, True, names)
        if not any(map(len, self._truths.values())):
            raise WrongUse(
                f"{listing.source} has no masks to train on: give a folder with the folders `images` and `masks`, and "
                "in `masks` a PNG of the same name for each image, whose pixels are class ids."
            )
        self._void = void

    def labelled(self, share: float, version: int) -> LabelledImages:
        first = _lenient(next(truth for truth in self._truths.values() if len(truth)))
        known = [*first.categories, *first.beside]
        evaluation_void.ask(self._void, first, known)
        white = evaluation_void.is_black_and_white(self._void, first, known)
        files = [self._file(path) for path in self._paths]
        seen = list(self._seen(files))
        if all(one.code for one in seen):
            raise WrongUse(
                f"None of the {counted(len(seen), 'images')} of {self._listing.source} has a mask to train on: "
                f"of {self._paths[0]} {seen[0].detail}."
            )
        names = self._names(known, seen, white)
        table = np.full(VALUES, STRANGE)
        table[: len(names)] = np.arange(len(names))
        if white:
            table[evaluation_void.USUAL] = evaluation_void.WHITE
        if self._void.value is not None:
            table[self._void.value] = -1
        seen = [_judged(one, table, len(names)) for one in seen]
        good = [at for at, one in enumerate(seen) if not one.code]
        listing = self._without(seen)
        splits = self._splits(version)
        shown = np.zeros((len(good), len(names)), np.uint8)
        hasher = sha256(table.tobytes())
        for row, at in enumerate(good):
            own = table[seen[at].values]
            shown[row, own[own >= 0]] = 1
            hasher.update(seen[at].digest)
        truth = MaskTruth(
            files={self._paths[at]: file for at in good if (file := files[at]) is not None},
            table=table,
            digest=hasher.hexdigest(),
        )
        chosen = partial(
            stratified.validating, listing.images, shown=shown, classes=names, share=share, version=version
        )
        found = labels.parted(listing, [splits[at] for at in good], shown, names, truth, chosen)
        for split in ("train", "val") if version >= rules.OBJECT_SPLITS else ():
            if not found.splits[split].labels.any():
                raise WrongUse(
                    f"The masks of the split {split} of {listing.source} are all void: annotate some of them."
                )
        without = self._without_image(files)
        alone = {"missing": NamedCount(count=len(without), first=without[:EXAMPLES])} if without else {}
        return replace(found, beside={**alone, **omissions.unused(names, found.splits["train"].labels)})

    def _without_image(self, files: Sequence[Path | None]) -> list[str]:
        """Return the masks that belong to no image."""
        used = set(files)
        return [str(file) for truth in self._truths.values() for file in truth.files if file not in used]

    def _splits(self, version: int) -> list[str]:
        """Return the split of each image by the first of its folders that has the name of one.

        Raises:
            WrongUse: there are splits, and ``train`` is none of them.
        """
        said = [next(filter(None, map(class_naming.split_of, path.split("/")[:-1])), "") for path in self._paths]
        if "train" in said:
            return [split or class_naming.NONE for split in said]
        if said and all(said) and version >= rules.OBJECT_SPLITS:
            raise WrongUse(
                f"{self._listing.source} has no images to train on: give it a folder `train` beside {said[0]}, or name "
                "the folder with `images` and `masks` itself."
            )
        return [class_naming.UNSAID] * len(said)

    def _file(self, path: str) -> Path | None:
        """Return the mask of an image, None where there is none."""
        above = _above(path)
        if above is None:
            return None
        found, below = self._indices.get(above, {}), path[len(f"{above}/" if above else "") + len(IMAGES) + 1 :]
        return found.get(below) or found.get(below.rpartition(".")[0])

    @cached_property
    def _indices(self) -> dict[str, dict[str, Path]]:
        return {place: dict(zip(truth.names, truth.files, strict=True)) for place, truth in self._truths.items()}

    def _seen(self, files: Sequence[Path | None]) -> Iterator[_Seen]:
        """Yield what a look at the mask of each image finds."""
        with ThreadPoolExecutor(devices.cpus(), thread_name_prefix="masks") as threads:
            for start in range(0, len(files), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                yield from threads.map(self._look, self._paths[part], files[part])

    def _look(self, path: str, file: Path | None) -> _Seen:
        nothing = np.zeros(0, np.int64)
        if _above(path) is None:
            return _Seen(values=nothing, code="mask_missing", detail="the image is in no folder `images`")
        if file is None:
            return _Seen(values=nothing, code="mask_missing", detail="there is no mask of its name")
        try:
            content = folder_files.content(file)
            ids = masks.pixels(content)
        except (BadTruth, masks.NoMask) as error:
            what = error.what if isinstance(error, BadTruth) else str(error)
            return _Seen(values=nothing, code="mask_bad", detail=f"its mask {what}")
        size = image_sizes.size(self._root / path)
        if size not in (image_sizes.UNKNOWN, ids.shape):
            sizes = f"{ids.shape[1]} x {ids.shape[0]} pixels, and the image {size[1]} x {size[0]}"
            return _Seen(values=nothing, code="mask_size", detail=f"its mask has {sizes}")
        values = np.flatnonzero(np.bincount(ids.ravel(), minlength=1))
        return _Seen(values=values, digest=sha256(content).digest())

    def _names(self, known: Sequence[Category], seen: Sequence[_Seen], white: bool) -> tuple[str, ...]:
        """Return the names of the classes, whose values are their places."""
        void = {self._void.value, evaluation_void.USUAL if white else None}
        met = {value for one in seen if not one.code for value in one.values.tolist()} - void
        highest = max((category.id for category in known), default=max(met, default=-1))
        if white:
            highest = max(highest, evaluation_void.WHITE)
        if highest + 1 > self._most:
            raise WrongUse(
                f"The masks have values up to {highest:,}, and at most {self._most:,} classes can be learnt."
            )
        named = {category.id: category.name for category in known}
        names = [named.get(at) or f"class {at}" for at in range(highest + 1)]
        if len(names) < 2:
            raise WrongUse(
                f"{self._listing.source} has {'one class, ' + shortened(names[0]) if names else 'no classes'}: "
                "training needs masks with at least two."
            )
        return tuple(names)

    def _without(self, seen: Sequence[_Seen]) -> Listing:
        """Return the listing with the images that have no good mask among its failures."""
        bad = [at for at, one in enumerate(seen) if one.code]
        good = [at for at, one in enumerate(seen) if not one.code]
        failures = self._listing.failures
        rows = self._listing.images.take(pa.array(bad, pa.int64()))
        own: dict[str, Any] = {"code": [seen[at].code for at in bad], "detail": [seen[at].detail for at in bad]}
        columns = [
            pa.array(own[name], pa.string()) if name in own else rows[name] if name in rows.schema.names else None
            for name in failures.schema.names
        ]
        filled = [
            pa.nulls(len(bad), field.type) if column is None else column.cast(field.type)
            for column, field in zip(columns, failures.schema, strict=True)
        ]
        more = pa.table(filled, schema=failures.schema)
        images = self._listing.images.take(pa.array(good, pa.int64()))
        return replace(self._listing, images=images, failures=pa.concat_tables([failures, more]))


def _lenient(truth: PixelTruth) -> PixelTruth:
    """Return a truth in which a mask that is damaged has no pixels: it is a row, and ends nothing."""

    def load(at: int) -> NDArray[Any]:
        try:
            return truth.load(at)
        except BadTruth:
            return np.zeros((0, 0), np.uint8)

    return replace(truth, load=load)


def _judged(seen: _Seen, table: NDArray[np.int64], classes: int) -> _Seen:
    """Return what a look found, as an error where a value is no class."""
    strange = seen.values[table[seen.values] == STRANGE]
    if seen.code or not len(strange):
        return seen
    values = ", ".join(map(str, strange[:3].tolist()))
    return replace(seen, code="mask_values", detail=f"its mask has {values}, and the classes are 0 to {classes - 1}")


def _above(path: str) -> str | None:
    """Return the folder that the last folder `images` of a path is in, "" for the top; None where it is in none."""
    folders = path.split("/")[:-1]
    found = [at for at, name in enumerate(folders) if name == IMAGES]
    return "/".join(folders[: found[-1]]) if found else None
