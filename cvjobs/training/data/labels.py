"""Images to train on, in splits: labelled by folders named like classes or by a column of a list, or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import rules as newest
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.sources.left_out import EXAMPLES, NamedCount
from cvjobs.sources.listing import nothing_found
from cvjobs.sources.rows import Listing, id_bytes
from cvjobs.training.data import class_naming, stratified
from cvjobs.training.data.image_objects import ImageObjects

SPLITS = ("train", "val", "test")
Leak = tuple[str, str, str, str]  # split, path, the training path, hash
Double = tuple[str, str, bool]  # path, the path that has the same content, whether their labels differ
KEYS = ["path", "image_id", "bytes", "modified", "version"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The images of one split: key rows, and what they show, int64 (n,) or, of several labels, uint8 (n, classes).

    ``objects`` are those that a detector learns.
    """

    rows: pa.Table
    labels: NDArray[np.integer]
    objects: ImageObjects | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Return some of the images."""
        objects = None if self.objects is None else self.objects.take(rows)
        return Split(rows=self.rows.take(pa.array(rows)), labels=self.labels[rows], objects=objects)


class Truth(Protocol):
    """What is known of images beside the classes that they show; ``digest`` tells whether it is the same."""

    @property
    def digest(self) -> str:
        """See above."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """A listing with labels, or, where there are no ``classes``, with none: all of them are 0 then.

    ``unlabelled`` counts the images that have no label or belong to no split, ``unlabelled_first`` are the paths of the
    first; ``respelt`` are the labels that are another spelling of a class, as ``Cat: cat``; ``beside`` is what else is
    to be said of them, by the kinds of ``omissions``. ``truth`` is what a segmenter learns from.
    """

    listing: Listing
    classes: tuple[str, ...]
    multilabel: bool
    splits: dict[str, Split]
    unlabelled: int
    unlabelled_first: tuple[str, ...] = ()
    respelt: tuple[str, ...] = ()
    beside: Mapping[str, NamedCount] = field(default_factory=dict)
    truth: Truth | None = None

    def failed(self, decoded: Mapping[str, Sized]) -> int:
        """Return how many images are missing among those that could be decoded, by split; or failed while listing."""
        missing = sum(len(self.splits[name]) - len(part) for name, part in decoded.items())
        return missing + int(self.listing.failures.num_rows)

    @cached_property
    def identity(self) -> str:
        """What tells whether the same images, in the same splits and with the same labels, are trained on."""
        hasher = hashlib.sha256(json.dumps([self.listing.root, self.classes, list(self.splits)]).encode())
        for split in self.splits.values():
            ids, versions = id_bytes(split.rows["image_id"]), split.rows["version"].to_numpy()
            for part in (ids, versions.tobytes(), split.labels.tobytes()):
                hasher.update(len(part).to_bytes(8, "little") + part)
            if split.objects is not None:
                hasher.update(split.objects.digest.encode())
        if self.truth is not None:
            hasher.update(self.truth.digest.encode())
        return hasher.hexdigest()


def label(listing: Listing, share: float, rules: int = newest.LABELS, splits: int = newest.SPLITS) -> LabelledImages:
    """Return the images of a listing with their labels.

    A list has a column ``label``, or ``labels`` (separated by ``|``, or a list of strings), and may have ``split``.
    In a folder the label is the folder's name: below ``train``, ``val`` and ``test``, or right at the top. Without a
    val split, ``share`` of the training images are it, of each class, chosen by a hash of their path
    (``stratified.held_out``). ``rules`` is the version of the rules by which classes are named, ``splits`` that of the
    rules by which images are chosen: by the first, each by its own hash alone.

    Raises:
        WrongUse: there are no labels, fewer than two classes, or no images in a split that needs some.
    """
    images = listing.images
    if not images.num_rows:
        raise WrongUse(nothing_found(listing))
    if listing.root:
        names, said = class_naming.by_folders(listing, rules)
        multilabel = False
    else:
        names, multilabel = class_naming.by_column(listing, rules)
        said = class_naming.splits_by_column(listing, rules)
    names, respelt = class_naming.merged(names, rules)
    classes = sorted({name for own in names for name in own})
    if len(classes) < 2:
        raise WrongUse(
            f"{listing.source} has {'one class, ' + shortened(classes[0]) if classes else 'no classes'}: "
            "training needs at least two, as folders of their names or in a column `label`."
        )
    number = {name: i for i, name in enumerate(classes)}
    found = _parted(
        listing,
        _split(said, images, share, names if splits > newest.FIRST else None),
        np.array([bool(own) for own in names]),
        lambda rows: _numbers(names, rows, number, multilabel),
    )
    used = sum(map(len, found.values()))
    return LabelledImages(
        listing=listing,
        classes=tuple(classes),
        multilabel=multilabel,
        splits=found,
        unlabelled=images.num_rows - used,
        unlabelled_first=_left(listing, found),
        respelt=respelt,
    )


def unlabelled(listing: Listing, share: float, rules: int = newest.LABELS) -> LabelledImages:
    """Return the images of a listing without labels, those of all folders; splits as in ``label``.

    Raises:
        WrongUse: there are no images in a split that needs some.
    """
    images = listing.images
    if not images.num_rows:
        raise WrongUse(nothing_found(listing))
    splits = (class_naming.splits_by_folders if listing.root else class_naming.splits_by_column)(listing, rules)
    chosen = _split(splits, images, share)
    found = _parted(listing, chosen, np.ones(len(chosen), bool), lambda rows: np.zeros(len(rows), np.int64))
    used = sum(map(len, found.values()))
    return LabelledImages(
        listing=listing,
        classes=(),
        multilabel=False,
        splits=found,
        unlabelled=images.num_rows - used,
        unlabelled_first=_left(listing, found),
    )


def parted(
    listing: Listing,
    said: Sequence[str],
    shown: NDArray[np.uint8],
    classes: tuple[str, ...],
    truth: Truth,
    chosen: Callable[[NDArray[np.bool_]], NDArray[np.bool_]],
) -> LabelledImages:
    """Return the images of a listing with the classes that each shows, (n, classes), by the splits said of them.

    Without a val split ``chosen`` says which of those that are free to validate do. What is raised is as for ``label``.
    """
    images = listing.images
    if not images.num_rows:
        raise WrongUse(f"None of the images of {listing.source} can be trained on: `cvjobs check` says what is wrong.")
    splits = np.array(["train" if name == "" else name for name in said])
    if not (splits == "val").any():
        splits[chosen(splits == "train")] = "val"
    found = _parted(listing, splits, np.ones(len(said), bool), lambda rows: shown[rows])
    return LabelledImages(
        listing=listing,
        classes=classes,
        multilabel=True,
        splits=found,
        unlabelled=images.num_rows - sum(map(len, found.values())),
        unlabelled_first=_left(listing, found),
        truth=truth,
    )


def _left(listing: Listing, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the paths of the first images that are in no split."""
    if sum(map(len, splits.values())) == listing.images.num_rows:
        return ()
    used = {path for split in splits.values() for path in split.rows["path"].to_pylist()}
    left = (path for path in listing.images["path"].to_pylist() if path not in used)
    return tuple(itertools.islice(left, EXAMPLES))


def _parted(
    listing: Listing,
    chosen: NDArray[np.str_],
    usable: NDArray[np.bool_],
    labels: Callable[[NDArray[np.int64]], NDArray[np.integer]],
) -> dict[str, Split]:
    """Return the splits that some usable images were chosen for."""
    found = {}
    for name in SPLITS:
        rows = np.flatnonzero((chosen == name) & usable)
        if len(rows):
            found[name] = Split(rows=listing.images.select(KEYS).take(pa.array(rows)), labels=labels(rows))
    for name in ("train", "val"):
        if name not in found:
            raise WrongUse(
                f"{listing.source} has no images to {'train on' if name == 'train' else 'validate with'}: "
                f"give it a folder or split `{name}`{', or more images' if name == 'val' else ''}."
            )
    return found


def _split(
    said: Sequence[str], images: pa.Table, share: float, names: class_naming.Names | None = None
) -> NDArray[np.str_]:
    """Return the split of each image; without a val split ``share`` of the training images are it, of each class."""
    splits = np.array(["train" if name == "" else name for name in said])
    if (splits == "val").any():
        return splits
    places = stratified.digests(images)
    if names is None:
        splits[(splits == "train") & (places / 2.0**64 < share)] = "val"
    else:
        free = np.array([row for row in np.flatnonzero(splits == "train").tolist() if names[row]], np.int64)
        splits[free[stratified.held_out(places[free], [names[row] for row in free.tolist()], share)]] = "val"
    return splits


def _numbers(
    names: Sequence[tuple[str, ...]], rows: NDArray[np.int64], number: dict[str, int], multilabel: bool
) -> NDArray[np.integer]:
    if not multilabel:
        return np.array([number[names[row][0]] for row in rows.tolist()], np.int64)
    labels = np.zeros((len(rows), len(number)), np.uint8)
    for at, row in enumerate(rows.tolist()):
        labels[at, [number[name] for name in names[row]]] = 1
    return labels


def counts(labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return how many images show each class, (classes,); ``labels`` are those of ``Split``."""
    found = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)[:classes]
    return np.asarray(found, np.int64)


def leaks(splits: dict[str, tuple[Sequence[str], Sequence[bytes]]]) -> list[Leak]:
    """Return the images whose content is in the training split, too.

    Args:
        splits: The paths and content hashes of each split.
    """
    paths, hashes = splits["train"]
    first: dict[bytes, str] = {}
    for path, content in zip(paths, hashes, strict=True):
        first.setdefault(content, path)
    return [
        (name, path, first[content], content.hex())
        for name, (others, contents) in splits.items()
        if name != "train"
        for path, content in zip(others, contents, strict=True)
        if content in first
    ]


def doubles(paths: Sequence[str], hashes: Sequence[bytes | None], labels: NDArray[np.integer]) -> list[Double]:
    """Return the images of a split whose content is that of an image before them; without a hash one has none."""
    first: dict[bytes, int] = {}
    found = []
    for number, content in enumerate(hashes):
        before = number if content is None else first.setdefault(content, number)
        if before != number:
            found.append((paths[number], paths[before], bool((labels[number] != labels[before]).any())))
    return found
