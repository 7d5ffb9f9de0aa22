"""Reading the images of a source: one small interface, for files and for objects."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from typing import Protocol

from cvjobs.common.errors import limit
from cvjobs.common.failures import Failure
from cvjobs.common.paths import path_bytes
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.listing import open_path
from cvjobs.sources.rows import representable
from cvjobs.storage.addresses import AddressRules, Refused
from cvjobs.storage.remote_files import Changed, Remote, is_remote
from cvjobs.storage.storage_options import Options

MAX_BYTES = 256 << 20
_TRY_AGAIN = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
_PAUSES = (0.2, 1.0, 5.0)


class Unreadable(Exception):
    """An image could not be read; carries the failure that becomes its error row."""

    def __init__(self, code: str, detail: str, attempts: int = 1) -> None:
        super().__init__(detail)
        self.failure = Failure("read", code, detail, attempts)


class Source(Protocol):
    """Where the bytes of a listed image come from; used by many threads at once; ``threads`` is the best number."""

    threads: int

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return an image's bytes as they were listed; raises Unreadable."""


class LocalSource:
    """Files below ``root``, or named by a list whose relative paths start at ``base``."""

    threads = 8

    def __init__(self, root: str, base: str, confinement: Confinement | None = None) -> None:
        self.root, self.base, self._confinement = root, base, confinement

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return the bytes of ``path``; ``size`` (bytes) and ``modified`` (ns) must be as they were listed.

        Errors of the kind that go away are tried three times more, within about 6 s.
        """
        _check_size(size)
        for attempt, pause in enumerate((*_PAUSES, None), start=1):
            try:
                return self._read(path, size, modified)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise Unreadable("read_vanished", _reason(error)) from error
            except PermissionError as error:
                raise Unreadable(_denied(error), _reason(error)) from error
            except OSError as error:
                if error.errno not in _TRY_AGAIN or pause is None:
                    if reached := limit(error):  # of this process, which is no image's fault
                        raise reached from error
                    raise Unreadable("read_io", _reason(error), attempt) from error
                time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads the readers
        raise AssertionError("the last attempt returns or raises")

    def _read(self, path: str, size: int, modified: int) -> bytes:
        # O_NONBLOCK: a FIFO that took the file's place since the listing must not block us.
        name = open_path(self.root, self.base, path)
        if self._confinement is not None and (flaw := self._confinement.flaw(name)):
            raise Refused(flaw)
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if self._confinement is not None:
                self._confinement.check_opened(descriptor)
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or _seen(before) != (size, modified):
                raise Unreadable("changed_during_run", "the file is not the one that was listed")
            if size == 0:
                raise Unreadable("empty_file", "the file has no bytes")
            content = os.read(descriptor, size)
            while len(content) < size and (more := os.read(descriptor, size - len(content))):
                content += more
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if len(content) != size or _seen(after) != (size, modified):
            raise Unreadable("changed_during_run", "the file changed while it was read")
        return content


def _seen(status: os.stat_result) -> tuple[int, int]:
    """Return a file's size in bytes and its time stamp in ns, as a listing has them."""
    return status.st_size, representable(status.st_mtime_ns)


class RemoteSource:
    """Objects below the URL ``root``, or objects and files that a list names, its relative ones below ``base``."""

    threads = 32

    def __init__(self, root: str, base: str, options: Options, confinement: Confinement | None = None) -> None:
        self._root, self._base, self._confinement = root, base, confinement
        self._remote = Remote(options, AddressRules(confined=confinement is not None))
        self._files = LocalSource(root, base, confinement)

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return as ``LocalSource.read``; time stamps count to the second, which is all that some answers give.

        Errors of the kind that go away are tried again by the client, for about half a minute.
        """
        place = open_path(self._root, self._base, path)
        if not is_remote(place):
            return self._files.read(path, size, modified)
        _check_size(size)
        if self._confinement is not None and (flaw := self._confinement.flaw(place)):
            raise Unreadable("refused", flaw)
        try:
            content, now = self._remote.read(place.decode(), size)
        except FileNotFoundError as error:
            raise Unreadable("read_vanished", _reason(error)) from error
        except PermissionError as error:
            raise Unreadable(_denied(error), _reason(error)) from error
        except Changed as error:
            raise Unreadable("changed_during_run", _reason(error)) from error
        except OSError as error:
            if reached := limit(error):
                raise reached from error
            raise Unreadable("read_io", _reason(error)) from error
        if now.size != size or now.modified // 10**9 != modified // 10**9:
            raise Unreadable("changed_during_run", "the object is not the one that was listed")
        if size == 0:
            raise Unreadable("empty_file", "the object has no bytes")
        return content


def open_source(root: str, base: str, options: Options, confine: bool = False) -> LocalSource | RemoteSource:
    """Return the source of a listing with this ``root`` and ``base``; a list may name objects wherever it is.

    With ``confine`` it reads only what lies below them, and the public web.
    """
    confinement = Confinement(path_bytes(root or base)) if confine else None
    local = root and not is_remote(path_bytes(root))
    return LocalSource(root, base, confinement) if local else RemoteSource(root, base, options, confinement)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Unreadable("too_large_file", f"{size:,} bytes are more than {MAX_BYTES:,}")


def _denied(error: PermissionError) -> str:
    return "refused" if isinstance(error, Refused) else "read_permission"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
