"""What a training leaves out, by reason, how many and the first names: as JSON, as lines, and judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.errors import TooManyFailed
from cvjobs.common.formatting import shortened
from cvjobs.sources import reasons
from cvjobs.sources.left_out import EXAMPLES, NamedCount, told, told_failed
from cvjobs.training.data.labels import LabelledImages

Failure = tuple[str, str]
"""A code and a path."""


_KINDS = {
    "unlabelled": "images without a label or split",
    "unsplit": "images of no split",
    "followed": reasons.FOLLOWED,
    "respelt": "labels in another spelling of a class",
    "missing": "images of the annotations that are not there",
    "ambiguous": "images of the annotations whose name fits several images",
    "repeated": "images of the annotations that are there before by the same name",
    "unused": "classes without anything to train on",
    "crowds": "objects that are crowds or difficult, and not trained on, in",
    "areas": "boxes without an area in their image, and not trained on, in",
    "masks": "objects whose mask has no pixels in their image, and not trained on, in",
    "empty": "images without objects, which are trained on",
}


def listed(labelled: LabelledImages) -> list[Failure]:
    """Return the entries that failed while listing."""
    failures = labelled.listing.failures
    return list(zip(failures["code"].to_pylist(), failures["path"].to_pylist(), strict=True))


def record(labelled: LabelledImages, failures: Iterable[Failure]) -> dict[str, Any]:
    """Return what is left out, and what else is to be said of the images, as JSON types; what is nothing is not there.

    ``failed`` and ``skipped`` are by code and reason; ``unlabelled`` (``unsplit`` without classes), ``followed`` (links
    to folders) and ``respelt`` (labels that are another spelling of a class) have one count each.
    """
    listing = labelled.listing
    found = {
        "failed": reasons.failed(failures),
        "skipped": reasons.skipped(listing),
        "unlabelled" if labelled.classes else "unsplit": _counted(labelled.unlabelled, labelled.unlabelled_first),
        "followed": _counted(len(listing.followed), listing.followed),
        "respelt": _counted(len(labelled.respelt), labelled.respelt),
        **labelled.beside,
    }
    return {name: value for name, value in found.items() if value}


def _counted(count: int, names: Sequence[str]) -> NamedCount | None:
    return NamedCount(count=count, first=list(names[:EXAMPLES])) if count else None


def unused(classes: Sequence[str], labels: NDArray[np.integer]) -> dict[str, NamedCount]:
    """Return the classes that no image of train shows; ``labels`` (n, classes) are 0 and 1."""
    names = [classes[at] for at in np.flatnonzero(~labels.any(0)).tolist()]
    return {"unused": NamedCount(count=len(names), first=names[:EXAMPLES])} if names else {}


def lines(left_out: Mapping[str, Any]) -> list[str]:
    """Return the lines of a record for a terminal."""
    found = [*told_failed(left_out.get("failed", {})), *told(left_out.get("skipped", {}))]
    return found + [
        f"  {what}: {reasons.counted(left_out[name])}" for name, what in _KINDS.items() if left_out.get(name)
    ]


def check(labelled: LabelledImages, failures: Sequence[Failure], most: float) -> None:
    """Raise TooManyFailed where more than a share of all images failed."""
    listing = labelled.listing
    total = listing.images.num_rows + listing.failures.num_rows
    if len(failures) > most * total:
        raise TooManyFailed(
            f"{len(failures):,} of {total:,} images of {shortened(listing.source, 300)} failed "
            f"({reasons.words(reasons.failed(failures))}), and --max-error-rate allows {int(most * total):,}: "
            "correct the data, or raise --max-error-rate to train without them."
        )
