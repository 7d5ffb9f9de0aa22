"""What a command does where its working folder was deleted: what is named from / on works, other names are refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.config.fields import Field, fields

_replaced: list[str] = []  # the empty folders in which commands of this process stand


def was_deleted() -> bool:
    """Return whether this process was started in a folder that is gone."""
    try:
        return os.getcwd() in _replaced
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def existing(config: Any) -> Iterator[None]:
    """Stand in an empty folder where the working folder is gone: libraries such as MKL end a process in such a one.

    Raises WrongUse for an option whose value is a name in the folder that is gone.
    """
    if not was_deleted():
        yield
        return
    for field in fields(type(config)).values():
        if _within(field, getattr(config, field.name)):
            raise WrongUse(
                f"The working folder was deleted: change into one that exists, or give {field.spelt} a name that "
                "begins with /."
            )
    os.chdir("/")
    empty = os.path.realpath(tempfile.mkdtemp(prefix="cvjobs-"))
    os.chdir(empty)
    _replaced.append(empty)
    try:
        yield
    finally:
        _replaced.remove(empty)
        os.chdir("/")
        shutil.rmtree(empty, ignore_errors=True)


def _within(field: Field, value: object) -> bool:
    if not field.place or not isinstance(value, str) or "://" in value:
        return False
    if field.name == "weights" and os.sep not in value:  # a word: what is no file of that name here
        return False
    return not os.path.isabs(os.path.expanduser(value))
