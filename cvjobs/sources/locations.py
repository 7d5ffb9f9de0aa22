"""What a path or URI of a list means, and what is there: files by stat, objects by many requests in flight."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.common.paths import meanings, path_text
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.folder import kind_of
from cvjobs.sources.rows import failure_code
from cvjobs.storage.remote_files import Remote, RemoteState, is_remote

REQUESTS = 64
LOST = 200
_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")


class Absent(NamedTuple):
    """Why there is no image: an error code of ``failures.CODES`` and a sentence."""

    code: str
    detail: str


def locate(uri: bytes, base: bytes) -> bytes:
    """Return the file, or the URI of the object, that a URI or path means; a relative one is below ``base``.

    Raises WrongUse for what is neither a local path, nor ``file://`` on this machine, nor an object's URI.
    """
    if is_remote(uri):
        return uri
    found = _SCHEME.match(uri)
    if found is None:
        return uri if uri[:1] == b"/" else _below(base, uri)
    host, slash, path = uri[found.end() :].partition(b"/")
    if found[1].lower() == b"file" and host in (b"", b"localhost") and slash:
        return unquote_to_bytes(slash + path)
    raise WrongUse(
        f"{shortened(path_text(found[0] + host))} cannot be read: "
        "give local paths, file:///absolute/path, or URLs of s3://, gs://, az:// or https://."
    )


def _below(base: bytes, relative: bytes) -> bytes:
    if not is_remote(base):
        return base + b"/" + relative
    scheme, _, place = base.partition(b"://")
    return scheme + b"://" + posixpath.normpath(place + b"/" + relative)


def look(
    uris: Sequence[bytes], base: bytes, remote: Remote, confinement: Confinement | None = None
) -> Iterator[RemoteState | Absent]:
    """Yield for each path or URI, in their order, what is there, or why nobody looks.

    Raises WrongUse for a URL of a kind that cannot be read, which one's own list is better corrected for, and JobFailed
    where a server does not answer at all.
    """
    places = [_located(uri, base, confinement) for uri in uris]
    server = _Server(remote)

    def one(place: bytes | Absent) -> RemoteState | Absent:
        if isinstance(place, Absent):
            return place
        if confinement is not None and (flaw := confinement.flaw(place)):
            return Absent("refused", flaw)
        return server.look(place) if is_remote(place) else _stat(place)

    if not any(isinstance(place, bytes) and is_remote(place) for place in places):
        yield from map(one, places)
        return
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="look") as threads:
        try:
            yield from threads.map(one, places)
        finally:
            threads.shutdown(cancel_futures=True)


def meant(
    uris: Sequence[bytes],
    found: Sequence[RemoteState | Absent],
    base: bytes,
    remote: Remote,
    confinement: Confinement | None = None,
) -> dict[int, tuple[bytes, RemoteState]]:
    """Return the true name of what is not there as it is written, but is as our outputs and exports write names.

    ``found`` is what ``look`` yielded for ``uris``; the keys are places in both.
    """
    vanished = (at for at, about in enumerate(found) if isinstance(about, Absent) and about.code == "list_vanished")
    others = {at: names for at in vanished if (names := meanings(uris[at]))}
    there: dict[int, tuple[bytes, RemoteState]] = {}
    for way in range(max(map(len, others.values()), default=0)):
        tried = {at: own[way] for at, own in others.items() if at not in there and way < len(own)}
        seen = look(list(tried.values()), base, remote, confinement)
        for (at, name), about in zip(tried.items(), seen, strict=True):
            if isinstance(about, RemoteState):
                there[at] = name, about
    return there


def _located(uri: bytes, base: bytes, confinement: Confinement | None) -> bytes | Absent:
    try:
        return locate(uri, base)
    except WrongUse:
        if confinement is None:
            raise
        return Absent("refused", "it is a URL of a kind that cannot be read")


class _Server:
    """Asks for objects, and gives up after ``LOST`` requests in a row without an answer."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._lost, self._lock = remote, 0, threading.Lock()

    def look(self, place: bytes) -> RemoteState | Absent:
        try:
            found = self._remote.look(place.decode())
        except UnicodeDecodeError:
            return Absent("list_vanished", "a URL is text in UTF-8")
        except OSError as error:
            code = failure_code(error)
            with self._lock:
                self._lost = self._lost + 1 if code == "read_io" else 0
                if self._lost >= LOST:
                    raise JobFailed(
                        f"{LOST} images of the list in a row could not be asked for, {path_text(place)} the last "
                        f"({error.strerror}): when their server answers, run the same command to continue."
                    ) from error
            return Absent(code, f"{error.strerror}")
        self._lost = 0
        return found


def _stat(place: bytes) -> RemoteState | Absent:
    try:
        status = os.stat(place)
    except OSError as error:
        return Absent(failure_code(error), f"{error.strerror}")
    except ValueError:
        return Absent("list_vanished", "no file name holds a NUL byte")
    if stat.S_ISREG(status.st_mode):
        return RemoteState(status.st_size, status.st_mtime_ns, "")
    return Absent("not_an_image", f"is a {'folder' if stat.S_ISDIR(status.st_mode) else kind_of(status.st_mode)}")


def split_name(place: bytes) -> tuple[bytes, bytes]:
    """Return the folder and the name of a file or an object."""
    if not is_remote(place):
        return os.path.split(place)
    path, mark, query = place.partition(b"?")
    folder, _, name = path.rpartition(b"/")
    return folder, name + mark + query
