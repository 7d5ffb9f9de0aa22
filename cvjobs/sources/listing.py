"""The listing of a source: every image of a folder, a glob, a file or a list, seen once before anything is read.

``folder`` walks, ``bucket`` scans a prefix, ``glob`` matches names, ``hidden`` and ``exclusion`` say which do not
count, ``lists`` and ``list_text`` read lists, ``locations`` looks at what they name, ``column_hash`` hashes their other
columns, ``rows`` holds the columns and ``left_out`` what was passed over. What an image *contains* is not looked at
here.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from cvjobs.common import rules as newest
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.common.paths import path_bytes, path_text
from cvjobs.sources.bucket import Scan
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.exclusion import Exclusion
from cvjobs.sources.folder import EXTENSIONS, Walk, kind_of
from cvjobs.sources.glob import WILDCARDS, Glob, split_glob
from cvjobs.sources.hidden import Hiding
from cvjobs.sources.left_out import REASONS
from cvjobs.sources.lists import NO_LISTS, TABLES, TEXTS, read_list, suffix_of
from cvjobs.sources.locations import locate, split_name
from cvjobs.sources.rows import FAILURES, ImageRows, Listing, version_of
from cvjobs.storage.addresses import AddressRules
from cvjobs.storage.http import host_of
from cvjobs.storage.object_store import Address, address
from cvjobs.storage.remote_files import Remote, RemoteState, is_remote
from cvjobs.storage.storage_options import Options

__all__ = ["Listing", "list_source", "nothing_found", "open_path", "version_of"]


def list_source(
    source: str,
    options: Options | None = None,
    *,
    confine: bool = False,
    exclude: Sequence[str] = (),
    links: bool = False,
    columns: Collection[str] | None = None,
    rules: int = newest.LISTING,
    on_progress: Callable[[int], None] | None = None,
) -> Listing:
    """List a folder, a glob, one image file, or a ``.txt``, ``.lst``, ``.parquet``, ``.csv`` or ``.tsv`` list.

    Each of them may be on an object store (``s3://``, ``gs://``, ``az://``), a list and an image on a web server;
    ``options`` are those of ``--storage-option``; with ``confine`` entries that lead out of the source's folder or
    bucket, or to an address that is not public, are refused; ``exclude`` are the patterns of ``Exclusion``; with
    ``links`` those to folders are followed; ``columns`` are those of a list that are wanted, None for all; ``rules`` is
    the version of the rules of what counts. ``on_progress`` is told the number of images found so far, after each
    folder and each 50,000 images. Raises WrongUse for a source that is not there, cannot be read or is no source, and
    for a pattern without a meaning. A bad entry never raises: it is a row of ``failures``.
    """
    manner = _Manner(
        options=options or {},
        confine=confine,
        exclusion=Exclusion(exclude) if exclude else None,
        links=links and rules > newest.FIRST,
        hiding=Hiding(rules),
        columns=columns,
        on_progress=on_progress or (lambda _: None),
    )
    return replace(_found(source, manner), rules=rules)


@dataclass(frozen=True, kw_only=True)
class _Manner:
    """How a source is listed: what ``list_source`` was asked for."""

    options: Options
    confine: bool
    exclusion: Exclusion | None
    links: bool
    hiding: Hiding
    columns: Collection[str] | None
    on_progress: Callable[[int], None]


def _found(source: str, manner: _Manner) -> Listing:
    if not source or "\0" in source:
        raise WrongUse("The source has no name: give a folder, a glob, an image or a list of images.")
    remote = Remote(manner.options, AddressRules(confined=manner.confine))
    place = locate(os.fsencode(source), os.getcwdb())
    if is_remote(place):
        return _remote(source, remote, manner)
    path = os.path.abspath(place)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not WILDCARDS & set(os.fsdecode(path)):
            raise WrongUse(f"There is no {path_text(path)}: give a folder, a glob, an image or a list.") from None
        root, glob = split_glob(os.fsdecode(path), manner.hiding)
        return _walk(path, os.fsencode(root), glob, manner)
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        return _walk(path, path, None, manner)
    if not stat.S_ISREG(mode):
        raise WrongUse(f"{path_text(path)} is a {kind_of(mode)}: give a folder, a glob, an image or a list.")
    if suffix_of(path) in TEXTS + TABLES:
        return _list(path, path, remote, manner)
    if suffix_of(path) in NO_LISTS and manner.hiding.rules > newest.FIRST:
        raise WrongUse(
            f"{path_text(path)} is no list that is read here: write it as .csv, .tsv or .parquet, as "
            "`cvjobs export --format csv` does."
        )
    started, status = time.time_ns(), os.stat(path)
    return _one(path, RemoteState(status.st_size, status.st_mtime_ns, ""), started, manner)


def open_path(listing_root: str, base: str, path: str) -> bytes:
    """Return the file or the URL of a row's ``path``, given the ``root`` and ``base`` of its listing."""
    if listing_root:
        return os.path.join(path_bytes(listing_root), path_bytes(path))
    return locate(path_bytes(path), path_bytes(base))


def nothing_found(listing: Listing) -> str:
    """Return the sentence for a source without a single image: what was there instead, by the most frequent kinds."""
    codes = Counter(listing.failures["code"].to_pylist())
    if not listing.root and set(codes) == {"list_vanished"}:
        return _all_missing(listing)
    others = Counter(listing.skipped)
    others.update(codes)
    ordered = others.most_common()
    kinds = [f"{count:,} {reason}" for reason, count in ordered[:REASONS]]
    if rest := ordered[REASONS:]:
        kinds.append(f"{sum(count for _, count in rest):,} of {len(rest):,} other kinds")
    why = ", ".join(kinds)
    empty = "it is empty" if listing.root else "it names none"
    none = f"There is no image in {listing.source} ({f'skipped: {why}' if why else empty})"
    if "folder link" in listing.skipped:
        return f"{none}, and links to folders are not followed: name one as the source, or their images in a list."
    return f"{none}: give a source with {', '.join(EXTENSIONS)} files, or a list that names its images."


def _all_missing(listing: Listing) -> str:
    """Return the sentence for a list of which no path leads to a file."""
    first = listing.failures.slice(0, 1).to_pylist()[0]
    raw, where = path_bytes(first["path"]), ""
    name = shortened(raw.decode(errors="backslashreplace"), 200)
    if not is_remote(raw) and not raw.startswith((b"/", b"file:")):
        where = f", looked for in {shortened(listing.base, 300)}, the list's own folder"
    return (
        f"No path in {listing.source} leads to a file: the first of {listing.failures.num_rows:,} is {name}{where} "
        f"({first['detail']}): correct the paths, or put the list where they start from."
    )


def _walk(source: bytes, root: bytes, glob: Glob | None, manner: _Manner) -> Listing:
    started = time.time_ns()
    confinement = Confinement(root) if manner.confine else None
    walk = Walk(
        root,
        glob,
        manner.hiding,
        manner.on_progress,
        exclusion=manner.exclusion,
        confinement=confinement,
        links=manner.links,
    )
    try:
        walk.run()
    except OSError as error:
        raise _unreadable(root, error) from error
    return Listing(
        source=path_text(source),
        root=path_text(root),
        images=walk.images.table(),
        failures=walk.failures.table(),
        skipped=dict(walk.left_out.counts),
        left_out=walk.left_out.names(),
        followed=tuple(sorted(map(path_text, walk.followed))),
        unreadable=tuple(map(path_text, walk.unreadable)),
        started_ns=started,
        base="",
    )


def _remote(source: str, remote: Remote, manner: _Manner) -> Listing:
    """List a prefix, a glob below one, one image or a list, whichever is there.

    A list may be on a private server, which the user named; where that one redirects to, it did not.
    """
    started = time.time_ns()
    if not _is_utf8(source):
        raise WrongUse(f"{path_text(os.fsencode(source))} is no URL, which is text in UTF-8: correct its name.")
    place = address(source)
    uri = str(place) if place else source
    if place is None or (place.key and not source.endswith("/")):
        is_list = suffix_of(uri.encode()) in TEXTS + TABLES
        named = (
            Remote(manner.options, AddressRules(manner.confine, host_of(uri))) if is_list and place is None else remote
        )
        try:
            found = named.look(uri)
            if is_list:
                content, now = named.read(uri, found.size)
                if now.size != found.size:
                    raise WrongUse(f"The list {uri} has {now.size:,} bytes, not {found.size:,} as its server says.")
                with tempfile.NamedTemporaryFile(prefix="cvjobs-") as copy:
                    copy.write(content)
                    copy.flush()
                    return _list(uri.encode(), os.fsencode(copy.name), remote, manner)
            if found.size or place is None:
                return _one(uri.encode(), found, started, manner)
        except (FileNotFoundError, PermissionError) as error:
            # Without the right to list, a store also refuses what is not there: the scan will tell.
            if place is None:
                raise _unreadable(uri.encode(), error) from error
        except OSError as error:
            raise JobFailed(f"{uri} cannot be reached ({error.strerror}): when it works, run it again.") from error
    assert place is not None
    if WILDCARDS & set(place.key) and not remote.any_below(place):
        root, glob = split_glob(f"/{place.key}", manner.hiding)
        return _scan(uri, place._replace(key=root.strip("/")), glob, remote, manner)
    return _scan(uri, place, None, remote, manner)


def _scan(source: str, place: Address, glob: Glob | None, remote: Remote, manner: _Manner) -> Listing:
    started = time.time_ns()
    scan = Scan(place, glob, manner.hiding, manner.on_progress, manner.exclusion)
    scan.run(remote)
    images = scan.images.table()
    if not images.num_rows and not scan.left_out.counts and place.key and not remote.any_below(place):
        raise WrongUse(f"There is no {place}: give a prefix, a glob, an image or a list.")
    return Listing(
        source=path_text(source.encode()),
        root=path_text(str(place).encode()),
        images=images,
        failures=pa.Table.from_batches([], schema=FAILURES),
        skipped=dict(scan.left_out.counts),
        left_out=scan.left_out.names(),
        unreadable=(),
        started_ns=started,
        base="",
    )


def _list(name: bytes, file: bytes, remote: Remote, manner: _Manner) -> Listing:
    started = time.time_ns()
    base, _ = split_name(name)
    found = read_list(
        name,
        file,
        base,
        remote,
        manner.on_progress,
        rules=manner.hiding.rules,
        exclusion=manner.exclusion,
        confinement=Confinement(base) if manner.confine else None,
        columns=manner.columns,
    )
    return Listing(
        source=path_text(name),
        root="",
        images=found.images,
        failures=found.failures,
        skipped=dict(found.left_out.counts),
        left_out=found.left_out.names(),
        unreadable=(),
        started_ns=started,
        base=path_text(base),
        not_carried=found.not_carried,
    )


def _one(path: bytes, about: RemoteState, started: int, manner: _Manner) -> Listing:
    folder, name = split_name(path)
    rows = ImageRows()
    rows.paths.append(name)
    rows.sizes.append(about.size)
    rows.times.append(about.modified)
    rows.tags.append(about.tag)
    manner.on_progress(1)
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


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: bytes, error: OSError) -> WrongUse:
    place, reason = path_text(path), error.strerror
    return WrongUse(f"{place} cannot be read ({reason}): correct its name or its permissions, then run again.")
