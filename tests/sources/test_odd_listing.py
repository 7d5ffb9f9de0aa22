"""Odd folders and odd lists, by seeds: no traceback, every image once in the results or the errors."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from fuzzing import Seeds
from odd_lists import odd_list
from odd_names import odd_name, odd_tree
from toy import Toy

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import visible
from cvjobs.common.paths import image_id, path_bytes
from cvjobs.dataset import snapshot_reader
from cvjobs.sources import reasons
from cvjobs.sources.exclusion import Exclusion
from cvjobs.sources.left_out import EXAMPLES, told
from cvjobs.sources.listing import list_source, nothing_found, open_path
from cvjobs.sources.rows import Listing


def raw(table: pa.Table) -> list[bytes]:
    return [path_bytes(path) for path in table["path"].to_pylist()]


def sound(listing: Listing) -> None:
    """Every image and failure is there once, under its own id, and what was left out is told."""
    seen = [*raw(listing.images), *raw(listing.failures)]
    assert len(seen) == len(set(seen))
    for table in (listing.images, listing.failures):
        assert table["image_id"].to_pylist() == [image_id(path) for path in raw(table)]
        table.validate(full=True)
    assert listing.left_out.keys() == listing.skipped.keys()
    for reason, names in listing.left_out.items():
        assert 0 < len(names) == min(listing.skipped[reason], EXAMPLES)
    assert all(line == visible(line) for line in told(reasons.skipped(listing)))
    if not listing.images.num_rows:
        assert is_sentence(visible(nothing_found(listing)))


def check_exclusion(rng: np.random.Generator, source: str, every: set[bytes]) -> None:
    """What a pattern removes while walking is what it removes of whole paths; what a glob of it names is removed."""
    patterns = ("*/*", "**/*.[jJ]*", "*/**", "a*", "?*/*.png", "[!a]*", "*é*", "**/*a*/*", "./*/*/*", "*.JPG", "**/.*")
    chosen = [patterns[i] for i in rng.permutation(len(patterns))[: rng.integers(1, 3)]]
    left = list_source(source, exclude=chosen)
    sound(left)
    exclusion = Exclusion(chosen)
    assert set(raw(left.images)) == {path for path in every if not exclusion.covers_path(path)}, chosen
    for pattern in chosen:
        named = set(raw(list_source(f"{source}/{pattern}" if "/" in pattern else f"{source}/**/{pattern}").images))
        assert not named & set(raw(left.images)), pattern


def listed_or_refused(file: Path, version: int) -> Listing | str:
    try:
        return list_source(str(file), rules=version)
    except WrongUse as error:
        return str(error)


def is_sentence(text: str) -> bool:
    return text.endswith(".") and len(text) < 1200 and "\n" not in text


def exact(source: Path, out: Path, listing: Listing) -> None:
    """A run makes a row or an error of every image, and finds nothing to do the second time."""
    toy = Toy(source, out)
    toy.run()
    assert toy.verify().problems == ()
    made = snapshot_reader.open_dataset(str(out))
    # A table of nothing has no columns.
    ended = [path for table in (made.to_arrow(), made.errors()) if table.num_rows for path in table["path"].to_pylist()]
    assert sorted(ended) == sorted([*listing.images["path"].to_pylist(), *listing.failures["path"].to_pylist()])
    toy.run()
    assert toy.computed == []


def test_odd_folders(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(6):
        rng = np.random.default_rng(seed)
        home = tmp_path / str(seed)
        root = os.fsencode(home) + b"/" + odd_name(rng, (b"",))
        tree = odd_tree(rng, root)
        source = os.fsdecode(root)
        listing = list_source(source)
        sound(listing)
        assert set(raw(listing.images)) == tree.listed
        assert set(raw(listing.failures)) == tree.failed
        assert listing.skipped == tree.skipped
        for path in listing.images["path"].to_pylist():
            assert os.path.isfile(open_path(listing.root, listing.base, path))
        if not set("*?[") & set(source):
            glob = list_source(f"{source}/**")
            sound(glob)
            assert set(raw(glob.images)) == tree.listed
            assert set(raw(list_source(f"{source}/**/*").images)) == tree.listed
            without = list_source(source, exclude=["*.[jJ]*"])
            assert {path for path in tree.listed if b".j" not in path.lower()} == set(raw(without.images)), without
            check_exclusion(rng, source, tree.listed)
        before = list_source(source, rules=rules.FIRST)
        sound(before)
        assert all(part[:1] not in (b".", b"_") for path in raw(before.images) for part in path.split(b"/"))
        if tree.listed:
            exact(Path(source), home / "out", listing)
        shutil.rmtree(home)


def test_odd_lists(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(10):
        rng = np.random.default_rng(seed)
        home = tmp_path / str(seed)
        home.mkdir()
        made = odd_list(rng, home)
        print(made)
        for version in (rules.FIRST, rules.LISTING):
            listing = listed_or_refused(made.file, version)
            if isinstance(listing, str):
                assert is_sentence(listing), listing
                assert visible(listing) == listing
                assert made.rows is None, listing
                continue
            sound(listing)
            rows = listing.images.num_rows + listing.failures.num_rows + Counter(listing.skipped).total()
            if version == rules.LISTING and made.rows is not None:
                assert rows == made.rows, (made, listing.failures["path"].to_pylist())
        if made.rows and isinstance(listing, Listing) and listing.images.num_rows:
            exact(made.file, home / "out", listing)
        shutil.rmtree(home)
