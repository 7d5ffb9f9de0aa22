"""What was begun by earlier rules goes on by them; what is computed anew, or by a new output, has the newest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvjobs.common import rules
from cvjobs.dataset import snapshot
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.update import earlier
from cvjobs.images.transform import Transform
from cvjobs.storage.local_store import LocalStore

THEN = {"size": [4, 4], "resize": 4, "fit": "short", "interpolation": "bilinear", "mean": [0.5], "std": [0.5]}


def test_a_transform_of_the_first_rules_is_recorded_as_ever() -> None:
    assert Transform.load(THEN).pixel_rules == rules.FIRST
    assert Transform.load(THEN).record() == THEN


def test_a_transform_of_the_newest_rules_says_so() -> None:
    made = Transform(size=(4, 4), resize=4)
    assert made.record()["pixel_rules"] == rules.PIXELS
    assert Transform.load(json.loads(json.dumps(made.record()))) == made


@pytest.mark.parametrize("record", [THEN, {}, None, 7, {"pixel_rules": "2"}])
def test_what_has_no_rules_has_the_first(record: object) -> None:
    assert Transform(size=(4, 4)).like(record).pixel_rules == rules.FIRST


def test_a_new_output_has_the_newest_rules(tmp_path: Path) -> None:
    assert earlier(LocalStore(str(tmp_path)), Snapshot(version=0), overwrite=False).listing_rules == rules.LISTING


def test_an_output_of_before_keeps_its_rules_until_it_is_computed_anew(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    record = Snapshot(version=1, fingerprint="f", resolved={"transform": THEN}).record()
    del record["listing_rules"]
    base = snapshot.Snapshot.load(record)
    assert earlier(store, base, overwrite=False).listing_rules == rules.FIRST
    assert earlier(store, base, overwrite=False).resolved == {"transform": THEN}
    again = earlier(store, base, overwrite=True)
    assert (again.listing_rules, again.resolved) == (rules.LISTING, {})
