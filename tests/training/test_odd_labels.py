"""Odd labels, class folders and splits in training: each image is in a split, unlabelled or an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fuzzing import Seeds
from odd_labels import folders, table

from cvjobs.common.errors import WrongUse
from cvjobs.sources.listing import Listing, list_source
from cvjobs.training.data import labels, omissions


def one_sentence(refused: WrongUse) -> bool:
    """Check a refusal; return False."""
    assert "\n" not in str(refused)
    assert str(refused)[-1] in ".?"
    return False


def judged(listing: Listing, rules: int) -> bool:
    """Label a listing and check that each of its images is in one place; return whether it could be."""
    try:
        found = labels.label(listing, 0.5, rules)
    except WrongUse as refused:
        return one_sentence(refused)
    split = [path for part in found.splits.values() for path in part.rows["path"].to_pylist()]
    assert len(set(split)) == len(split)
    assert set(split) <= set(listing.images["path"].to_pylist())
    assert len(split) + found.unlabelled == listing.images.num_rows
    assert len(set(found.classes)) == len(found.classes) >= 2
    if rules > 1:
        assert all(name == name.strip() and name for name in found.classes)
    for part in found.splits.values():
        assert len(part.labels) == part.rows.num_rows
        assert part.labels.max() < len(found.classes)
    record = omissions.record(found, omissions.listed(found))
    json.dumps(record)
    assert all(omissions.lines(record))
    assert sum(own["count"] for own in record.get("failed", {}).values()) == listing.failures.num_rows
    return True


def whole(listing: Listing) -> bool:
    """Split a listing without labels and check that each of its images counts once; return whether it could be."""
    try:
        found = labels.unlabelled(listing, 0.5)
    except WrongUse as refused:
        return one_sentence(refused)
    assert sum(map(len, found.splits.values())) + found.unlabelled == listing.images.num_rows
    return True


def test_odd_labels_of_lists(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(25):
        random = np.random.default_rng(seed)
        made = table(random, tmp_path / str(seed))
        listing = list_source(str(made.file))
        assert listing.images.num_rows + listing.failures.num_rows + sum(listing.skipped.values()) == len(made.paths)
        judged(listing, 2)


def test_odd_folders_of_classes(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(25):
        random = np.random.default_rng(seed)
        place = folders(random, tmp_path / str(seed) / "all")
        listing = list_source(str(place), links=True, confine=bool(random.random() < 0.3))
        judged(listing, 2)
        whole(listing)
        judged(list_source(str(place), links=True, rules=1), 1)
