"""Objects by URI, on an object store or a web server: how long they are, what version they are, their bytes.

Errors are those of the operating system, as for a file: FileNotFoundError, PermissionError, other OSErrors.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from cvjobs.common.errors import WrongUse
from cvjobs.storage.addresses import AddressRules
from cvjobs.storage.http import WEB, Web, bare
from cvjobs.storage.object_store import SCHEMES, Address, Buckets, address, in_words, reason, understood
from cvjobs.storage.parallel_listing import objects_below
from cvjobs.storage.storage_options import Options

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

LARGE = 16 << 20
RANGE = 8 << 20
RANGES = 8  # of large objects, in flight
LONGEST = 16_000  # characters of an object's name: ten times what any store takes, and what its client survives
_BUCKET = re.compile(r"(?!\.+$)[A-Za-z0-9._~!$&'()*+,;=:-]{1,255}")


class RemoteState(NamedTuple):
    """What is known of an object unread: bytes, time stamp (ns, 0 where unknown), ETag (empty where there is none)."""

    size: int
    modified: int
    tag: str


class Changed(OSError):
    """An object became another one while it was read."""


def is_remote(place: bytes) -> bool:
    """Whether this is the URI of an object, not the path of a file."""
    scheme, separator, _ = place.partition(b"://")
    return bool(separator) and scheme.decode(errors="replace").lower() in {*SCHEMES, *WEB}


class Remote:
    """The objects that a process can reach with its options, on the web by its rules; used by many threads at once."""

    def __init__(self, options: Options, rules: AddressRules | None = None) -> None:
        self._buckets = Buckets(options)
        self._web = Web(options, rules)
        self._lock = threading.Lock()
        self._ranges: ThreadPoolExecutor | None = None

    def look(self, uri: str) -> RemoteState:
        """Return what a server says of an object."""
        place = _object(uri)
        if place is None:
            return RemoteState(*self._web.look(uri))
        with _as_files():
            return seen(obstore.head(self._buckets.client(place), place.key))

    def read(self, uri: str, size: int) -> tuple[bytes, RemoteState]:
        """Return an object's bytes, and what it was when they were read; ``size`` is what it had when it was listed.

        Of a large one several ranges are in flight. Raises Changed where it became another one meanwhile.
        """
        place = _object(uri)
        if place is None:
            downloaded, about = self._web.read(uri)
            return downloaded, RemoteState(*about)
        client = self._buckets.client(place)
        with _as_files():
            if size <= LARGE:
                whole = obstore.get(client, place.key)
                return whole.bytes().to_bytes(), seen(whole.meta)
            first = obstore.get(client, place.key, options={"range": (0, RANGE)})
            now = seen(first.meta)
            content = bytearray(now.size)
            content[:RANGE] = first.bytes().to_bytes()

            def fetch(start: int) -> None:
                end = min(start + RANGE, now.size)
                options: GetOptions = {"range": (start, end), "if_match": first.meta["e_tag"]}
                content[start:end] = obstore.get(client, place.key, options=options).bytes().to_bytes()

            for _ in self._pool().map(fetch, range(RANGE, now.size, RANGE)):
                continue
        return bytes(content), now

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            self._ranges = self._ranges or ThreadPoolExecutor(RANGES, thread_name_prefix="range")
            return self._ranges

    def below(self, place: Address) -> Iterator[Sequence[ObjectMeta]]:
        """Yield the objects below a prefix, in pages, sorted by key.

        Raises WrongUse or JobFailed where that is impossible.
        """
        try:
            with understood(place):
                yield from objects_below(self._buckets.client(place), place.key)
        except InvalidPathError as error:
            raise WrongUse(
                f"{place} holds a key that cannot be read ({reason(error)}): rename it, or give a list of images."
            ) from error
        except (BaseError, FileNotFoundError) as error:
            raise in_words(error, place) from error

    def any_below(self, place: Address) -> bool:
        """Whether there is any object below a prefix; raises as ``below``."""
        return next(chain.from_iterable(self.below(place)), None) is not None


def _object(uri: str) -> Address | None:
    """Return the object that a URI names, None for one on the web.

    A bucket's name may become part of a host's: one that could end it would send signed requests to another host.
    """
    try:
        place = address(uri)
    except WrongUse as error:
        raise FileNotFoundError(errno.ENOENT, "a URL that names no bucket") from error
    if place is not None and not _BUCKET.fullmatch(place.bucket):
        raise FileNotFoundError(errno.ENOENT, "no bucket has such a name")
    if place is not None and len(place.key) > LONGEST:
        raise FileNotFoundError(errno.ENAMETOOLONG, "no object has so long a name")
    return place


def seen(meta: ObjectMeta) -> RemoteState:
    """Return what a store says of an object."""
    modified = meta["last_modified"]
    stamp = int(modified.timestamp()) * 1_000_000_000 + modified.microsecond * 1000
    return RemoteState(meta["size"], stamp, bare(meta["e_tag"] or ""))


@contextmanager
def _as_files() -> Iterator[None]:
    """Turn a store's errors into those of a file."""
    try:
        yield
    except PreconditionError as error:
        raise Changed(errno.ESTALE, "the object changed while it was read") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, reason(error)) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, reason(error)) from error
    except (InvalidPathError, ValueError) as error:
        raise FileNotFoundError(errno.ENOENT, "a key that no object store client can read") from error
    except BaseError as error:
        words = in_words(error, Address("s3", "", ""))
        kind = PermissionError if isinstance(words, WrongUse) else OSError
        raise kind(errno.EACCES if kind is PermissionError else errno.EIO, reason(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the client's own, over a name that it did not foresee
            raise
        raise FileNotFoundError(errno.ENOENT, "a key that no object store client can read") from error
