"""Images to train a detector on, in splits, with the objects in them: COCO's JSON, VOC's XML, YOLO's folders, tables.

The files are read by the code of ``cvjobs eval``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import class_labels, rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import path_bytes
from cvjobs.evaluation import label_tables
from cvjobs.evaluation.align import pair_images
from cvjobs.evaluation.ground_truth import coco, image_sizes
from cvjobs.evaluation.ground_truth import open as truths
from cvjobs.evaluation.ground_truth.box_table import fits as fits_table
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.objects import Ints, Rle
from cvjobs.sources.left_out import EXAMPLES, NamedCount
from cvjobs.sources.listing import nothing_found
from cvjobs.sources.rows import Listing
from cvjobs.storage.object_store import address
from cvjobs.training.data import instance_truths, omissions, stratified
from cvjobs.training.data.image_objects import ImageObjects
from cvjobs.training.data.instance_truth import InstanceTruth
from cvjobs.training.data.labels import KEYS, SPLITS, LabelledImages, Split

KNOWN = (
    "COCO JSON, a folder of VOC XML or of YOLO txt files, or a table with the columns path, label, xmin, ymin, xmax "
    "and ymax"
)
_ANNOTATIONS = "annotations"
_WORD = re.compile("[a-z]+")


def images_of(data: str) -> str:
    """Return the folder of the images that are trained on: that of a file of annotations, or DATA itself.

    Raises:
        WrongUse: the data are in a bucket.
    """
    if address(data):
        raise WrongUse(f"--task detect reads annotations on this machine: copy {data} to a folder first.")
    path = Path(os.path.expanduser(data))
    if path.is_file() and (coco.fits(path) or fits_table(path)):
        inside = path.parent.name == _ANNOTATIONS and path.parent.parent != path.parent
        return str(path.parent.parent if inside else path.parent)
    if path.is_file() and (said := truths.of_yolo(path)):
        raise WrongUse(said)
    if path.is_file():
        raise WrongUse(f"{data} has no boxes to train on: name {KNOWN}.")
    return data


@dataclass(frozen=True)
class _Truth:
    """A truth, the rows of the listing that its images are, -1 for none, and why: the names of such images by kind.

    ``unmasked`` is as in ``MaskedTruth``.
    """

    split: str
    known: ObjectTruth
    row: Ints
    left: Mapping[str, NamedCount]
    unmasked: Sequence[str] = ()


def label(
    data: str, listing: Listing, share: float, splits: int = rules.SPLITS, *, masks: bool = False
) -> LabelledImages:
    """Return the images of a listing with the objects in them; with ``masks`` their ``truth`` is that of instances.

    A split is said by the name of a COCO file or of its folder, by the folders of the images, by ``ImageSets`` of VOC
    or the column ``split`` of a table; without a val split, ``share`` of the training images are it
    (``stratified.validating``, by the version ``splits`` of the rules).

    Raises:
        WrongUse: there are no annotations, they make no sense, or a split has no images or objects that it needs.
    """
    images = listing.images
    if not images.num_rows:
        raise WrongUse(nothing_found(listing))
    paths: list[str] = images["path"].to_pylist()
    path = Path(os.path.expanduser(data))
    found = list(_read(path, paths, masks))
    classes = _classes(found, data)
    objects, rles, split, beside = _together(found, classes, listing, paths)
    if path.is_file() and not coco.fits(path):
        split = _splits_of_table(path, found[0], split)
    split = _splits_of_voc(path, paths, split)
    known = split != "-"
    if not (split == "val").any():
        shown = objects.shown(len(classes))
        free = split == "train"
        split[stratified.validating(images, free, shown=shown, classes=classes, share=share, version=splits)] = "val"
    rows = {name: np.flatnonzero(known & (split == name)) for name in SPLITS}
    found_splits = {
        name: _split(listing, own, objects.take(own), len(classes)) for name, own in rows.items() if len(own)
    }
    _check(data, found_splits)
    left = np.flatnonzero(~known).tolist()
    return LabelledImages(
        listing=listing,
        classes=classes,
        multilabel=True,
        splits=found_splits,
        unlabelled=len(left),
        unlabelled_first=tuple(paths[row] for row in left[:EXAMPLES]),
        beside={**beside, **_oddities(found_splits), **omissions.unused(classes, found_splits["train"].labels)},
        truth=InstanceTruth.of(paths, objects.ends, rles) if masks else None,
    )


def _read(path: Path, paths: Sequence[str], masks: bool) -> Iterator[_Truth]:
    """Yield the truths of a place."""
    files = [path] if path.is_file() and coco.fits(path) else coco_files(path)
    if not files and masks:
        masked = instance_truths.of_folder(path)
        yield _Truth("", masked.known, *_paired(path, masked.known, paths, range(len(paths))), masked.unmasked)
        return
    if not files:
        known = truths.read(str(path), "detect")
        assert isinstance(known, ObjectTruth)
        yield _Truth("", known, *_paired(path, known, paths, range(len(paths))))
        return
    for file in files:
        split = _split_of_file(file) if len(files) > 1 or _split_of_file(file) != "test" else ""
        known, unmasked = instance_truths.of_coco(file) if masks else (coco.read(file, masks=False), [])
        within = [row for row, name in enumerate(paths) if split and _split_of_path(name) == split]
        yield _Truth(split, known, *_paired(file, known, paths, within or range(len(paths))), unmasked)


def coco_files(folder: Path) -> list[Path]:
    """Return the JSON files of a folder that are COCO's by their places and names.

    They are in it, in ``annotations``, or in the folders of its splits; where some are ``instances_...``, only those.
    """
    if not folder.is_dir():
        return []
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir()]
    places = [folder, *(place for place in inside if place.name == _ANNOTATIONS or _split_of_name(place.name))]
    found = [file for place in places for file in sorted(place.glob("*.json"))]
    return [file for file in found if file.name.startswith("instances_")] or found


def _split_of_name(name: str) -> str:
    """Return the split that a word of a name means, as of ``instances_train2017``; empty for none."""
    return next(filter(None, map(class_labels.split, _WORD.findall(name.lower()))), "")


def _split_of_file(file: Path) -> str:
    return _split_of_name(file.stem) or _split_of_name(file.parent.name)


def _split_of_path(path: str) -> str:
    """Return the split that a folder of an image means, the first that does; empty for none."""
    return next(filter(None, map(_split_of_name, path.split("/")[:-1])), "")


def _paired(
    place: Path, known: ObjectTruth, paths: Sequence[str], rows: Sequence[int]
) -> tuple[Ints, Mapping[str, NamedCount]]:
    """Return the row of each image of a truth, -1 for none, and those without one by kind, as ``omissions``."""
    some = [paths[row] for row in rows]
    if len(known) and not any(known.names):
        raise WrongUse(f"{place} names no file of an image: give its images a file_name.")
    try:
        met = pair_images(known.names, known.endings, some, ())
    except WrongUse:
        raise WrongUse(
            f"No image beside {place} has the name of one in it, as {known.names[0] if len(known) else 'none'} is: "
            "put the images into the folder of the annotations."
        ) from None
    row = np.full(len(known), -1)
    row[met.place[met.place >= 0]] = np.array(rows, np.int64)[met.place >= 0]
    return row, met.unpaired.get("truth", {})


def _classes(found: Sequence[_Truth], data: str) -> tuple[str, ...]:
    """Return the names of all classes, each once, in the order of the first truth that has them."""
    if len({truth.known.named for truth in found if truth.known.categories}) > 1:
        raise WrongUse(
            f"Some of the files of {data} name their categories, and others do not: give all of them the same."
        )
    names = [category.name or str(category.id) for truth in found for category in truth.known.categories]
    classes = tuple(dict.fromkeys(names))
    if not classes:
        raise WrongUse(f"{data} has no classes: training a detector needs objects with a class.")
    return classes


def _together(
    found: Sequence[_Truth], classes: Sequence[str], listing: Listing, paths: Sequence[str]
) -> tuple[ImageObjects, list[Rle], NDArray[np.str_], dict[str, NamedCount]]:
    """Return the objects of every row of a listing, their masks, its split, and what is missing.

    The split is ``-`` where it is in no truth; there are no masks where the truths have none.
    """
    number = {name: at for at, name in enumerate(classes)}
    split = np.full(len(paths), "-", dtype="<U5")
    parts = []
    rles: list[Rle] = []
    for truth in found:
        known, row = truth.known, truth.row
        for own in row[row >= 0].tolist():
            split[own] = truth.split or _split_of_path(paths[own]) or "train"
        of = np.array([number[c.name or str(c.id)] for c in known.categories], np.int64)
        objects = known.objects
        some = np.flatnonzero(row[objects.image] >= 0)
        image = objects.image[some]
        sides = _sizes(known, row, listing, paths, np.unique(image))[image]
        boxes = objects.boxes[some] / np.tile(sides[:, ::-1], 2)
        area = objects.area[some] / sides.prod(1)
        rles += [] if objects.masks is None else [objects.masks[at] for at in some.tolist()]
        parts.append((row[image], boxes, area, of[objects.category[some]], objects.crowd[some], objects.ignored[some]))
    rows, boxes, area, labels, crowd, ignored = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows, kind="stable")
    ends = np.concatenate([[0], np.bincount(rows, minlength=len(paths)).cumsum()])
    every = ImageObjects(
        ends=ends,
        boxes=boxes[order],
        area=area[order],
        labels=labels[order],
        crowd=crowd[order],
        ignored=ignored[order],
    )
    unmasked = [name for truth in found for name in truth.unmasked]
    missing = _summed([*(truth.left for truth in found), _named({"masks": unmasked})])
    return every, [rles[at] for at in order] if rles else [], split, missing


def _sizes(known: ObjectTruth, row: Ints, listing: Listing, paths: Sequence[str], wanted: Ints) -> NDArray[np.float64]:
    """Return the (height, width) by which the boxes of a truth are shares of their images, (n, 2)."""
    sizes = np.ones((len(known), 2))
    if known.relative:
        return sizes
    for at in wanted.tolist():
        said = known.sizes[at] if len(known.sizes) else image_sizes.UNKNOWN
        if min(said) <= 0:
            said = image_sizes.size(
                Path(os.fsdecode(os.path.join(os.fsencode(listing.root), path_bytes(paths[row[at]]))))
            )
        sizes[at] = said if min(said) > 0 else (1, 1)  # it cannot be read, and is a row of errors.parquet
    return sizes


def _splits_of_table(path: Path, truth: _Truth, split: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the splits with those that a table's column says."""
    table = label_tables.read(path)
    column = table.named("split")
    if not column:
        return split
    row = dict(zip(truth.known.names, truth.row.tolist(), strict=True))
    for line, cells in table.rows:
        said, name = class_labels.label(cells.get(column)), class_labels.text(cells.get(table.path_column)).strip()
        if said and not class_labels.split(said):
            raise WrongUse(f"{path}, line {line} has the split {said!r}: write train, val or test.")
        if said and row.get(name, -1) >= 0:
            split[row[name]] = class_labels.split(said)
    return split


def _splits_of_voc(path: Path, paths: Sequence[str], split: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the splits with those that the lists of VOC's ``ImageSets/Main`` say."""
    stems = {os.path.splitext(os.path.basename(name))[0]: row for row, name in enumerate(paths)}
    for name in SPLITS:
        for file in sorted(path.glob(f"**/ImageSets/Main/{name}.txt")) if path.is_dir() else ():
            for line in file.read_text(errors="replace").split():
                if (row := stems.get(line, -1)) >= 0 and split[row] != "-":
                    split[row] = name
    return split


def _split(listing: Listing, rows: Ints, objects: ImageObjects, classes: int) -> Split:
    return Split(rows=listing.images.select(KEYS).take(pa.array(rows)), labels=objects.shown(classes), objects=objects)


def _check(data: str, splits: dict[str, Split]) -> None:
    for name in ("train", "val"):
        if name not in splits:
            what = "to train on" if name == "train" else "to validate with"
            more = ", or more images" if name == "val" else ""
            raise WrongUse(f"{data} has no images {what}: give it a folder, a file or a split `{name}`{more}.")
        if not splits[name].labels.any():
            what = "train on" if name == "train" else "validate with"
            raise WrongUse(f"The split {name} of {data} has no object to {what}: annotate some of its images.")


def _oddities(splits: dict[str, Split]) -> dict[str, NamedCount]:
    """Return what is left out of training, or is odd, of all splits."""
    found: dict[str, list[str]] = {"crowds": [], "areas": [], "empty": []}
    for split in splits.values():
        objects = split.objects
        assert objects is not None
        paths, image, usable = split.rows["path"].to_pylist(), objects.image, objects.usable
        found["crowds"] += [paths[at] for at in image[objects.ignored].tolist()]
        found["areas"] += [paths[at] for at in image[~usable & ~objects.ignored].tolist()]
        found["empty"] += [paths[at] for at in np.flatnonzero(~split.labels.any(1)).tolist()]
    return _named(found)


def _summed(each: Sequence[Mapping[str, NamedCount]]) -> dict[str, NamedCount]:
    """Return the counts of each kind over several truths."""
    return {
        kind: NamedCount(
            count=sum(own[kind]["count"] for own in each if kind in own),
            first=[name for own in each if kind in own for name in own[kind]["first"]][:EXAMPLES],
        )
        for kind in dict.fromkeys(kind for own in each for kind in own)
    }


def _named(found: dict[str, list[str]]) -> dict[str, NamedCount]:
    """Return how many of each kind there are, and the first names."""
    return {
        kind: NamedCount(count=len(names), first=list(dict.fromkeys(names))[:EXAMPLES])
        for kind, names in found.items()
        if names
    }
