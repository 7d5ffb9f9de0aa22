"""The exceptions a user can cause, each with its exit code and one sentence that says what to do.

CvjobsError
├── WrongUse        2    wrong flags, names, sources; nothing was changed
├── JobFailed       1    the job could not go on; the same command continues
├── OutputHeld      5    another run holds the output
└── Stopped       130    Ctrl-C or a stop request; the output is consistent

A bad image is none of these: it is a row in ``errors/`` (see ``failures.CODES``).
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class CvjobsError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_code = 1


class JobFailed(CvjobsError):
    """The job could not go on; the same command continues it."""

    exit_code = 1


class WrongUse(CvjobsError):
    """The command was used wrongly; nothing was changed."""

    exit_code = 2


class OutputHeld(CvjobsError):
    """Another run holds the output."""

    exit_code = 5


class Stopped(CvjobsError):
    """The user stopped the job; what was done is kept."""

    exit_code = 130


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Return ``" (nearest: a, b)"`` for a misspelt name, or ``""`` where nothing is near."""
    found = difflib.get_close_matches(name, list(choices), n=count, cutoff=0.5)
    return f" (nearest: {', '.join(found)})" if found else ""


def storage_failure(error: OSError, place: str, option: str = "-o") -> CvjobsError:
    """Turn an operating-system error on what an option names into the sentence a user needs."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobFailed(f"No space left in {place}: make room, then run the same command again to continue.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WrongUse(f"Cannot write to {place} ({error.strerror}): choose another {option}, or fix its permissions.")
    if error.errno == errno.ENAMETOOLONG:
        return WrongUse(f"The names in {place} are too long for its file system: choose a shorter {option}.")
    reason = error.strerror or str(error)
    return JobFailed(f"Writing to {place} failed ({reason}): when it works again, run the same command to continue.")
