"""Which listed image is which of a truth: those without a file, and those that no truth knows, are problems."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.errors import WrongUse
from cvjobs.common.paths import comparable
from cvjobs.evaluation.align import pair_images
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.inspection import truth_files
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth
from cvjobs.sources.rows import Listing

SHOWN = 3


def without_masks(listing: Listing, truths: Sequence[SplitTruth]) -> pa.Table:
    """Return the listed images that are no masks of a truth."""
    images = listing.images
    root = listing.root.rstrip("/")
    for truth in truths:
        if root and truth.folder.startswith(f"{root}/"):
            inside = pc.starts_with(images["path"], f"{truth.folder[len(root) + 1 :]}/")
            images = images.filter(pc.invert(inside))
    return images


def pair(paths: Sequence[str], truths: Sequence[SplitTruth], problems: Problems) -> tuple[list[Ints], list[str]]:
    """Return for each truth where its images are among the n listed ones, -1 where they are not, and n splits.

    A truth of a split has the images in folders of its name, if there are any. Raises WrongUse where none fits.
    """
    own = [truth_files.split_of_image(path) for path in paths]
    splits = list(own)
    taken = np.zeros(len(paths), np.bool_)
    found = []
    for one in truths:
        names = one.truth.names
        some = [at for at, split in enumerate(own) if one.split and split == one.split] or list(range(len(paths)))
        try:
            pairs = pair_images(names, one.truth.endings, [paths[at] for at in some], [])
        except WrongUse:
            raise WrongUse(
                f"No image of {one.place} is among those of DATA: it knows {_some(names)}, DATA has "
                f"{_some([paths[at] for at in some])}: name the folder that holds its images."
            ) from None
        place = np.full(len(names), -1, np.int64)
        for at, where in zip(some, pairs.place.tolist(), strict=True):
            if where >= 0:
                place[where] = at
                taken[at] = True
                splits[at] = one.split or own[at]
        near = {_base(paths[at]) for at in some if not taken[at]}
        seen: set[str] = set()
        for number, name in enumerate(names):
            if place[number] < 0:
                several = name in seen or _base(name) in near
                problems.add("name_ambiguous" if several else "image_missing", name, split=one.split, where=one.place)
            seen.add(name)
        found.append(place)
    for at in np.flatnonzero(~taken).tolist():
        problems.add("truth_missing", paths[at], split=splits[at])
    return found, splits


def _base(path: str) -> str:
    """Return the last part of a path without its ending."""
    return posixpath.splitext(posixpath.basename(comparable(path)))[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
