"""What ``--exclude`` removes from a listing: by name anywhere, or by path below the source."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence

from cvjobs.common.errors import WrongUse
from cvjobs.sources.glob import Glob, Positions
from cvjobs.sources.hidden import Hiding
from cvjobs.storage.remote_files import is_remote

EXCLUDED = "excluded"  # the reason why something is skipped


class Exclusion:
    """Patterns in the language of globs: one without ``/`` means names, another a path relative to the source.

    What is excluded is so with everything below it. Raises WrongUse for a pattern that can mean nothing.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        plain = [_checked(pattern) for pattern in patterns]
        names = [fnmatch.translate(pattern) for pattern in plain if "/" not in pattern]
        self._names = re.compile("|".join(names)) if names else None
        self._globs = [Glob(pattern.split("/"), Hiding(0)) for pattern in plain if "/" in pattern]
        self._folder = b""
        self._at = [glob.start for glob in self._globs]

    def enter(self, folder: bytes) -> None:
        """Go to a folder, relative to the root and with its slash, which ``covers`` then is asked about."""
        if folder != self._folder:
            self._folder = folder
            self._at = [_positions(glob, folder.split(b"/")[:-1]) for glob in self._globs]

    def covers(self, name: bytes) -> bool:
        """Whether a name in this folder is excluded; of the folder itself ``covers`` was asked above it."""
        if self._names is not None and self._names.match(os.fsdecode(name)):
            return True
        return any(glob.match(at, name).whole for glob, at in zip(self._globs, self._at, strict=True))

    def covers_path(self, path: bytes) -> bool:
        """Whether a path or URI of a list is excluded, or a folder on its way is."""
        plain = path.partition(b"://")[2] if is_remote(path) else path
        folder = b""
        for name in filter(None, plain.split(b"/")):
            self.enter(folder)
            if self.covers(name):
                return True
            folder += name + b"/"
        return False


def _positions(glob: Glob, way: list[bytes]) -> Positions:
    at = glob.start
    for name in way:
        at = glob.enter(glob.match(at, name).below)
    return at


def _checked(pattern: str) -> str:
    plain = pattern.removeprefix("./").rstrip("/")
    parts = plain.split("/")
    if not plain or "\0" in plain or "" in parts or ".." in parts or "." in parts:
        raise WrongUse(
            f"--exclude {pattern!r} names nothing below a source: give a name or a path relative to the source, as in "
            "--exclude '*_small.jpg' or --exclude raw/2019."
        )
    return plain
