"""Reading a listed file as it was listed; light enough for the decode children, which read themselves."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable

from cvjobs.common.errors import limit
from cvjobs.common.failures import Failure
from cvjobs.storage.refusal import Refused

MAX_BYTES = 256 << 20
_TRY_AGAIN = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
_PAUSES = (0.2, 1.0, 5.0)
_LEAST, _MOST = -(2**63), 2**63 - 1


class Unreadable(Exception):
    """An image could not be read; carries the failure that becomes its error row."""

    def __init__(self, code: str, detail: str, attempts: int = 1) -> None:
        super().__init__(detail)
        self.failure = Failure("read", code, detail, attempts)


def read_file(name: bytes, size: int, modified: int, check: Callable[[int], None] = lambda _: None) -> bytes:
    """Return the bytes of a file; ``size`` (bytes) and ``modified`` (ns) must be as they were listed.

    Errors of the kind that go away are tried three times more, within about 6 s. ``check`` may refuse what was opened,
    by its descriptor. Raises Unreadable, and LimitReached where this process may open or hold no more.
    """
    check_size(size)
    for attempt, pause in enumerate((*_PAUSES, None), start=1):
        try:
            return _read(name, size, modified, check)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Unreadable("read_vanished", reason(error)) from error
        except PermissionError as error:
            raise Unreadable(denied(error), reason(error)) from error
        except OSError as error:
            if error.errno not in _TRY_AGAIN or pause is None:
                if reached := limit(error):  # of this process, which is no image's fault
                    raise reached from error
                raise Unreadable("read_io", reason(error), attempt) from error
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads the readers
    raise AssertionError("the last attempt returns or raises")


def _read(name: bytes, size: int, modified: int, check: Callable[[int], None]) -> bytes:
    # O_NONBLOCK: a FIFO that took the file's place since the listing must not block us.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        check(descriptor)
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


def representable(time: int) -> int:
    """Return the time in ns that is nearest to this one and fits into 64 bits: in the years 1677 to 2262."""
    return min(max(time, _LEAST), _MOST)


def check_size(size: int) -> None:
    """Raise Unreadable where an image has too many bytes."""
    if size > MAX_BYTES:
        raise Unreadable("too_large_file", f"{size:,} bytes are more than {MAX_BYTES:,}")


def denied(error: PermissionError) -> str:
    """Return the code of a failure: what we refuse is no matter of permissions."""
    return "refused" if isinstance(error, Refused) else "read_permission"


def reason(error: OSError) -> str:
    """Return what the system says of an error."""
    return error.strerror or type(error).__name__
