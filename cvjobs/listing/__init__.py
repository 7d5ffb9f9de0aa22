"""The listing of a source: every image of a folder, a glob, a file or a list, seen once before anything is read.

``folder`` walks, ``pattern`` is a glob, ``lists`` reads lists, ``carried`` hashes their other columns and
``rows`` holds the columns. What an image *contains* is not looked at here.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from cvjobs.errors import WrongUse
from cvjobs.listing.folder import EXTENSIONS, Walk, kind_of
from cvjobs.listing.lists import TABLES, TEXTS, locate, read_list
from cvjobs.listing.pattern import WILDCARDS, Glob, split_glob
from cvjobs.listing.rows import FAILURES, ImageRows, Listing, version_of
from cvjobs.paths import path_bytes, path_text
from cvjobs.remote import Options

__all__ = ["Listing", "list_source", "nothing_found", "open_path", "version_of"]


def list_source(
    source: str,
    options: Options | None = None,  # noqa: ARG001
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Listing:
    """List a folder, a glob, one image file, or a ``.txt``, ``.lst``, ``.parquet``, ``.csv`` or ``.tsv`` list.

    ``on_progress`` is told the number of images found so far, after each folder and each 50,000 images.
    Raises WrongUse for a source that is not there, cannot be read or is no source. A bad entry never raises:
    it is a row of ``failures``.
    """
    progress = on_progress or (lambda _: None)
    if not source or "\0" in source:
        raise WrongUse("The source has no name: give a folder, a glob, an image or a list of images.")
    path = os.path.abspath(locate(os.fsencode(source), os.getcwdb()))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not WILDCARDS & set(os.fsdecode(path)):
            raise WrongUse(f"There is no {path_text(path)}: give a folder, a glob, an image or a list.") from None
        root, glob = split_glob(os.fsdecode(path))
        return _walk(path, os.fsencode(root), glob, progress)
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        return _walk(path, path, None, progress)
    if not stat.S_ISREG(mode):
        raise WrongUse(f"{path_text(path)} is a {kind_of(mode)}: give a folder, a glob, an image or a list.")
    if os.path.splitext(os.fsdecode(path))[1].lower() in TEXTS + TABLES:
        return _list(path, progress)
    return _file(path, progress)


def open_path(listing_root: str, base: str, path: str) -> bytes:
    """Return the path to open for a row's ``path``, given the ``root`` and ``base`` of its listing."""
    if listing_root:
        return os.path.join(path_bytes(listing_root), path_bytes(path))
    return locate(path_bytes(path), path_bytes(base))


def nothing_found(listing: Listing) -> str:
    """Return the sentence for a source without a single image: what was there instead, most frequent first."""
    others = Counter(listing.skipped)
    others.update(listing.failures["code"].to_pylist())
    why = ", ".join(f"{count:,} {reason}" for reason, count in others.most_common())
    return (
        f"There is no image in {listing.source} ({f'skipped: {why}' if why else 'it is empty'}): "
        f"give a source with {', '.join(EXTENSIONS)} files, or a list that names its images."
    )


def _walk(source: bytes, root: bytes, glob: Glob | None, on_progress: Callable[[int], None]) -> Listing:
    started = time.time_ns()
    walk = Walk(root, glob, on_progress)
    try:
        walk.run()
    except OSError as error:
        raise _unreadable(root, error) from error
    return Listing(
        source=path_text(source),
        root=path_text(root),
        images=walk.images.table(),
        failures=walk.failures.table(),
        skipped=dict(walk.skipped),
        unreadable=tuple(map(path_text, walk.unreadable)),
        started_ns=started,
        base="",
    )


def _list(file: bytes, on_progress: Callable[[int], None]) -> Listing:
    started = time.time_ns()
    base = os.path.dirname(file)
    found = read_list(file, base, on_progress)
    return Listing(
        source=path_text(file),
        root="",
        images=found.images,
        failures=found.failures,
        skipped=found.skipped,
        unreadable=(),
        started_ns=started,
        base=path_text(base),
    )


def _file(path: bytes, on_progress: Callable[[int], None]) -> Listing:
    started = time.time_ns()
    status = os.stat(path)
    folder, name = os.path.split(path)
    rows = ImageRows()
    rows.paths.append(name)
    rows.sizes.append(status.st_size)
    rows.times.append(status.st_mtime_ns)
    on_progress(1)
    return Listing(
        source=path_text(path),
        root=path_text(folder),
        images=rows.table(),
        failures=pa.Table.from_batches([], schema=FAILURES),
        skipped={},
        unreadable=(),
        started_ns=started,
        base="",
    )


def _unreadable(path: bytes, error: OSError) -> WrongUse:
    place, reason = path_text(path), error.strerror
    return WrongUse(f"{place} cannot be read ({reason}): correct its name or its permissions, then run again.")
