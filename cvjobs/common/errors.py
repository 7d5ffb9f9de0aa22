"""The exceptions a user can cause, each with its exit code and one sentence that says what to do.

CvjobsError
├── WrongUse        2    wrong flags, names, sources; nothing was changed
├── JobFailed       1    the job could not go on; the same command continues
│   ├── LimitReached     a limit of the machine: room, memory, open files, threads
│   └── StoreUnreachable an object store does not answer this machine
├── TooManyFailed   3    more images failed than --max-error-rate allows, and nothing was made of the others
├── LimitSpent      4    --max-time or --max-cost is reached with images left; the same command continues
├── OutputHeld      5    another run holds the output
└── Stopped       130    Ctrl-C or a stop request; the output is consistent

A bad image is none of these: it is a row in ``errors/`` (see ``failures.CODES``).
"""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
from collections.abc import Iterable, Iterator


class CvjobsError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_code = 1


class JobFailed(CvjobsError):
    """The job could not go on; the same command continues it."""

    exit_code = 1


class LimitReached(JobFailed):
    """A limit of the machine, or of this process, was reached; the same command continues once there is more."""


class StoreUnreachable(JobFailed):
    """An object store does not answer this machine, and may answer others; the same command continues."""


class WrongUse(CvjobsError):
    """The command was used wrongly; nothing was changed."""

    exit_code = 2


class TooManyFailed(CvjobsError):
    """More images failed than a user allows, and nothing was made of the others."""

    exit_code = 3


class LimitSpent(CvjobsError):
    """What a user allows a command, of time or money, is spent; the same command continues."""

    exit_code = 4


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


def storage_failure(failed: Exception, place: str, option: str = "-o", *, begun: bool = False) -> CvjobsError:
    """Turn an operating-system error, or a library's wrapping of one, on what an option names into a sentence.

    ``begun``: this command has written there before, so that another place is no remedy.
    """
    error = next(filter(None, map(_system, _behind(failed, contexts=True))), None) or OSError(str(failed))
    if error.errno in _ROOM:
        return LimitReached(f"No space left in {place}: make room, then run the same command again to continue.")
    if error.errno in _DENIED and begun:
        return JobFailed(
            f"{place} can no longer be written to ({error.strerror}): make it writable again, then run the same "
            "command to continue."
        )
    if wrong := _wrong_place(error, place, option, begun):
        return WrongUse(wrong)
    if reached := limit(failed):
        return reached
    reason = error.strerror or str(error)
    return JobFailed(f"Writing to {place} failed ({reason}): when it works again, run the same command to continue.")


def _wrong_place(error: OSError, place: str, option: str, begun: bool) -> str:
    """Return the sentence for a place that never was one to write to, empty for another error."""
    if error.errno in _DENIED:
        return f"Cannot write to {place} ({error.strerror}): choose another {option}, or fix its permissions."
    if error.errno in _FILES and not begun:
        return f"{error.filename or place} is a file, or below one: choose another {option}."
    if error.errno == errno.ENAMETOOLONG:
        return f"The names in {place} are too long for its file system: choose a shorter {option}."
    return ""


_ROOM = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FILES = (errno.EEXIST, errno.ENOTDIR)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EREMOTEIO)
_LIMITS = (*_ROOM, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
# What libraries make of them: their words, and the error of the system that they stand for.
_WORDS = {
    **{os.strerror(number): number for number in _LIMITS},
    "Not enough free space": errno.ENOSPC,
    "can't start new thread": errno.EAGAIN,
    "pthread_create failed": errno.EAGAIN,
    "can't allocate memory": errno.ENOMEM,
    "not enough memory": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    "bad_alloc": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
    "cannot allocate memory in static TLS block": errno.ENOMEM,
}
_GPU = (
    "The GPU is out of memory: choose a smaller batch, image size or model, or end what else runs on it, then run the "
    "same command again."
)
_LEAST = 512 << 20  # bytes of address space
_NUMBERS = re.compile(r"\b(?:os error|[Ee]rrno|code:) (\d+)")


def explained(error: BaseException) -> CvjobsError | None:
    """Return the error that says what a user can do about another one, None for what is a bug.

    A limit of the machine is what is said, whatever was made of it on its way; else what a user caused, or a disk that
    does not work.
    """
    if isinstance(error, LimitReached):
        return error
    if reached := limit(error):
        return reached
    if isinstance(error, CvjobsError):
        return error
    said = next(filter(None, map(_refused, _behind(error, contexts=False))), "")
    return JobFailed(said) if said else None


def _refused(error: BaseException) -> str:
    """Return a sentence about what the system denies or lacks, "" where an error is about neither."""
    if isinstance(error, FileNotFoundError):
        return _folder_gone(error)
    if isinstance(error, OSError) and error.errno in (*_DENIED, *_BROKEN):
        what = f"{_named(error) or 'A file'} cannot be used ({error.strerror})"
        remedy = "fix its permissions" if error.errno in _DENIED else "when it works again"
        return f"{what}: {remedy}, then run the same command again."
    if isinstance(error, RuntimeError) and "Could not determine home directory" in str(error):
        return "This user has no home folder: set HOME to a folder of yours, then run the same command again."
    return ""


def _folder_gone(error: FileNotFoundError) -> str:
    """Return a sentence about what no command makes: the working folder, the system's, that of temporary files."""
    if "No usable temporary directory" in str(error):
        return (
            "No folder for temporary files can be written to: make room in /tmp, or name another folder in TMPDIR, "
            "then run the same command again."
        )
    if (place := _named(error)).startswith(("/dev/", "/proc/")):
        return f"{place} is missing: mount it where this command runs, then run the same command again."
    try:
        os.getcwd()
    except FileNotFoundError:
        return "The working folder was deleted: change into one that exists, then run the same command again."
    return ""


def limit(error: BaseException) -> LimitReached | None:
    """Return what to do about the limit of the machine that an error comes from, None where it comes from none.

    The error may be the system's, a library's wrapping of it, or one that was raised because of either.
    """
    number, place = None, ""
    for one in _behind(error, contexts=True):
        if isinstance(one, LimitReached):
            return one
        if found := _limit(one):
            if "CUDA" in str(one):
                return LimitReached(_GPU)
            number, place = found, _named(one)
    return LimitReached(_advice(number, place)) if number else None


def _behind(error: BaseException, *, contexts: bool) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, or while handling what."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (one.__context__ if contexts and not one.__suppress_context__ else None)


def _system(error: BaseException) -> OSError | None:
    """Return the error of the system that an error is, or that its words number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    found = _NUMBERS.search(str(error))
    number = int(found[1]) if found else _limit(error)
    return OSError(number, os.strerror(number)) if number else None


def _limit(error: BaseException) -> int | None:
    """Return the number of the limit that an error itself tells of."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _LIMITS else None
    if isinstance(error, (WrongUse, OutputHeld, Stopped)):
        return None
    said = str(error)
    numbers = [int(found) for found in _NUMBERS.findall(said) if int(found) in _LIMITS]
    if isinstance(error, CvjobsError):
        said = said.replace("out of memory", "")  # our own words for a job that the system killed
    return numbers[0] if numbers else next((number for words, number in _WORDS.items() if words in said), None)


def _named(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return "" if name is None or isinstance(name, int) else os.fsdecode(name)


def _advice(number: int, place: str) -> str:
    again = "then run the same command again"
    if number in _ROOM:
        return f"No space left{f' for {place}' if place else ''}: make room, {again}."
    if number == errno.EFBIG:
        return f"{place or 'A file'} is larger than one may be here: raise `ulimit -f`, {again}."
    if number == errno.EMFILE:
        return f"Too many open files ({_allowed('NOFILE')}): raise `ulimit -n` to 1024 or more, {again}."
    if number == errno.ENFILE:
        return f"Too many open files on this machine: end other programs, {again}."
    if number == errno.EAGAIN and min(_most("AS"), _most("DATA")) == math.inf:  # else the stack of a thread had no room
        return (
            f"No more threads or processes can be started ({_allowed('NPROC')}): raise `ulimit -u`, or the limit of "
            f"the container, {again}."
        )
    kind = "DATA" if _most("DATA") < _most("AS") else "AS"
    return (
        f"Out of memory ({_allowed(kind)}): raise `ulimit -{'d' if kind == 'DATA' else 'v'}` where it is set, end "
        f"other programs, or choose a smaller model or batch, {again}."
    )


def check_memory() -> None:
    """Raise LimitReached where this process may not load numpy, whose OpenBLAS would end it without a sentence."""
    if _most("AS") < _LEAST or _most("DATA") < _LEAST // 2:
        raise LimitReached(_advice(errno.ENOMEM, ""))


def _most(name: str) -> float:
    """Return what this process may have of something, infinity where there is no limit."""
    import resource

    most = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    return math.inf if most == resource.RLIM_INFINITY else most


def _allowed(name: str) -> str:
    from cvjobs.common import formatting

    most = _most(name)
    whom = "this user" if name == "NPROC" else "this process"
    if most == math.inf:
        return f"{whom} has no limit of its own"
    return f"{whom} may have {formatting.size(most) if name in ('AS', 'DATA') else f'{most:,}'}"
