"""Which images validate where the data do not say it: of each class the same share, by the digests of their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import rules as newest
from cvjobs.sources.rows import id_bytes

_ALONE = -1


def held_out(places: NDArray[np.uint64], names: Sequence[tuple[str, ...]], share: float) -> NDArray[np.bool_]:
    """Return which images validate, bool (n,): of each class those whose digests are the smallest.

    An image of several classes counts for the rarest of them that two images have or more, the first by name of two as
    rare; images without a class count as one class. Of n images ``share`` times n validate, rounded, but of two or more
    at least one validates and at least one does not; an image that is alone does not.

    It depends on the set of images alone, not on their order. One image more moves at most one other, of its own class:
    the one next to the border, where the new image does not go where the rounded share wants one more; on average
    2 · share · (1 - share) images, 0.32 with a share of 0.2. m images more of a class move those between the old border
    and the new one, all of them one way: about 0.8 · sqrt(m · share · (1 - share)), 3 for a hundred more. Classes that
    do not change move nothing, except that images of several classes may count for another one, once that is rarer.

    Args:
        places: A digest of each image's path, uint64 (n,), which no two share.
        names: The classes of each image.
        share: The share that validates, between 0 and 1.
    """
    groups = _groups(names)
    order = np.lexsort((places, groups))
    own, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    wanted = np.floor(share * sizes + 0.5).astype(np.int64).clip(1, np.maximum(sizes - 1, 0))
    wanted[(sizes < 2) | (own == _ALONE)] = 0
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    chosen = np.zeros(len(order), bool)
    chosen[order] = rank < np.repeat(wanted, sizes)
    return chosen


def held_out_of_each(places: NDArray[np.uint64], names: Sequence[tuple[str, ...]], share: float) -> NDArray[np.bool_]:
    """Return which images validate, as ``held_out``, but of each class that two images show one on either side.

    What images show beside the classes that they count for may all be on one side. Then one of them changes sides that
    takes no other class away from its own: of these one without a class that no other image shows, where there is any,
    and of these the one with the smallest digest; the rarest classes come first. Where there is none, the class stays.
    """
    chosen = held_out(places, names, share)
    rows: dict[str, list[int]] = {}
    for row in np.argsort(places, kind="stable").tolist():
        for name in set(names[row]):
            rows.setdefault(name, []).append(row)
    on = {name: [len(own) - int(chosen[own].sum()), int(chosen[own].sum())] for name, own in rows.items()}
    for name in sorted(rows, key=lambda name: (len(rows[name]), name)):
        for side in (1, 0):
            if on[name][side] or len(rows[name]) < 2:
                continue
            alone = [sum(len(rows[other]) < 2 for other in set(names[row])) for row in rows[name]]
            for _, row in sorted(zip(alone, rows[name], strict=True), key=lambda pair: pair[0]):
                if all(on[other][1 - side] > 1 or len(rows[other]) < 2 for other in names[row]):
                    chosen[row] = side
                    for other in set(names[row]):
                        on[other][side] += 1
                        on[other][1 - side] -= 1
                    break
    return chosen


def digests(images: pa.Table) -> NDArray[np.uint64]:
    """Return a digest of the path of each listed image, (n,)."""
    ids = np.frombuffer(id_bytes(images["image_id"]), np.uint8).reshape(-1, 16)
    return ids[:, :8].copy().view("<u8").ravel()


def validating(
    images: pa.Table,
    free: NDArray[np.bool_],
    *,
    shown: NDArray[np.integer],
    classes: Sequence[str],
    share: float,
    version: int = newest.SPLITS,
) -> NDArray[np.bool_]:
    """Return which of the images with boxes or masks validate, bool (n,): of those that are ``free`` to, a share.

    Args:
        images: As listed, n.
        free: Which of them may validate, (n,).
        shown: Which classes each shows, (n, classes) of 0 and 1.
        classes: Their names.
        share: The share that validates, between 0 and 1.
        version: That of the rules: by those of before each image goes by its own digest alone.
    """
    places = digests(images)
    if version < newest.OBJECT_SPLITS:
        return np.asarray(free & (places / 2.0**64 < share))
    rows = np.flatnonzero(free)
    names = [tuple(classes[at] for at in np.flatnonzero(shown[row]).tolist()) for row in rows.tolist()]
    chosen = np.zeros(len(free), np.bool_)
    chosen[rows] = held_out_of_each(places[rows], names, share)
    return chosen


def _groups(names: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
    """Return the number of the class that each image counts for, int64 (n,)."""
    images = Counter(name for own in names for name in set(own))
    number = {name: at for at, name in enumerate(sorted(images))}
    of: dict[tuple[str, ...], int] = {(): len(number)}
    for own in names:  # few kinds of a million images
        if own not in of:
            rarest = min(((images[name], name) for name in own if images[name] > 1), default=None)
            of[own] = _ALONE if rarest is None else number[rarest[1]]
    return np.array([of[own] for own in names], np.int64)
