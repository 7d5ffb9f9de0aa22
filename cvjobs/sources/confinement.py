"""Where the entries of a source may lead with ``--confine``: below its folder or bucket, and to the public web."""

from __future__ import annotations

import os
import posixpath
from functools import cached_property

from cvjobs.common.errors import WrongUse
from cvjobs.storage.object_store import address
from cvjobs.storage.refusal import Refused
from cvjobs.storage.remote_files import is_remote

OUTSIDE = "it lies outside of the list's own folder or bucket, as --confine asks"


class Confinement:
    """What lies below ``home``: the folder or URL that a listing's paths are relative to.

    Files are where their real path is, so that a link out of the folder, or a folder on the way that is one, lies
    outside; a hard link lies where its name does. What may be connected to on the web is for ``AddressRules`` to say.
    """

    def __init__(self, home: bytes) -> None:
        self._home = home

    @cached_property
    def _folder(self) -> bytes:
        return os.path.realpath(self._home).rstrip(b"/")

    def flaw(self, place: bytes) -> str:
        """Return why a file or URL may not be read, empty where it may; whether it is there makes no difference."""
        if not is_remote(place):
            return "" if not is_remote(self._home) and self._holds(_real(place)) else OUTSIDE
        try:
            there = address(place.decode())
            return "" if there is None or self._has_key(there) else OUTSIDE
        except (UnicodeDecodeError, WrongUse):
            return OUTSIDE

    def check_opened(self, descriptor: int) -> None:
        """Raise ``Refused`` where an opened file lies outside: a link may have changed since ``flaw`` was asked."""
        try:
            real = os.readlink(b"/proc/self/fd/%d" % descriptor)
        except OSError:
            raise Refused("without /proc it cannot be told where it lies, as --confine asks") from None
        if is_remote(self._home) or not self._holds(real):
            raise Refused(OUTSIDE)

    def _holds(self, real: bytes) -> bool:
        return real.startswith(self._folder + b"/")

    def _has_key(self, there: tuple[str, str, str]) -> bool:
        home = address(self._home.decode()) if is_remote(self._home) else None
        if home is None or there[:2] != home[:2]:
            return False
        key = there[2]
        return posixpath.normpath(key) == key and (not home.key or key.startswith(f"{home.key}/"))


def _real(place: bytes) -> bytes:
    """Return where a file is or would be; what has no name is nowhere."""
    try:
        return os.path.realpath(place)
    except (ValueError, OSError):
        return b""
