"""Reading the images of a source: one small interface, and its implementation for local and mounted files."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from typing import Protocol

from cvjobs.listing import open_path
from cvjobs.records import Failure
from cvjobs.remote import Options

MAX_BYTES = 256 << 20
_TRY_AGAIN = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})
_PAUSES = (0.2, 1.0, 5.0)


class Unreadable(Exception):
    """An image could not be read; carries the failure that becomes its error row."""

    def __init__(self, code: str, detail: str, attempts: int = 1) -> None:
        super().__init__(detail)
        self.failure = Failure("read", code, detail, attempts)


class Source(Protocol):
    """Where the bytes of a listed image come from; used by many threads at once."""

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return an image's bytes as they were listed; raises Unreadable."""


class LocalSource:
    """Files below ``root``, or named by a list whose relative paths start at ``base``."""

    def __init__(self, root: str, base: str) -> None:
        self.root, self.base = root, base

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return the bytes of ``path``; ``size`` (bytes) and ``modified`` (ns) must be as they were listed.

        Errors of the kind that go away are tried three times more, within about 6 s.
        """
        if size > MAX_BYTES:
            raise Unreadable("too_large_file", f"{size:,} bytes are more than {MAX_BYTES:,}")
        for attempt, pause in enumerate((*_PAUSES, None), start=1):
            try:
                return self._read(path, size, modified)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise Unreadable("read_vanished", _reason(error)) from error
            except PermissionError as error:
                raise Unreadable("read_permission", _reason(error)) from error
            except OSError as error:
                if error.errno not in _TRY_AGAIN or pause is None:
                    raise Unreadable("read_io", _reason(error), attempt) from error
                time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads the readers
        raise AssertionError("the last attempt returns or raises")

    def _read(self, path: str, size: int, modified: int) -> bytes:
        # O_NONBLOCK: a FIFO that took the file's place since the listing must not block us.
        name = open_path(self.root, self.base, path)
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or (before.st_size, before.st_mtime_ns) != (size, modified):
                raise Unreadable("changed_during_run", "the file is not the one that was listed")
            if size == 0:
                raise Unreadable("empty_file", "the file has no bytes")
            content = os.read(descriptor, size)
            while len(content) < size and (more := os.read(descriptor, size - len(content))):
                content += more
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if len(content) != size or (after.st_size, after.st_mtime_ns) != (size, modified):
            raise Unreadable("changed_during_run", "the file changed while it was read")
        return content


def open_source(root: str, base: str, options: Options) -> Source:  # noqa: ARG001
    """Return the source of a listing with this ``root`` and ``base``."""
    return LocalSource(root, base)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
