"""Which images validate where the data do not say it: of each class the same share, by the digests of their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
