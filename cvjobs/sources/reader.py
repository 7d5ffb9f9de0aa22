"""Reading the images of a source: one small interface, for files and for objects."""

from __future__ import annotations

from typing import Protocol

from cvjobs.common.errors import limit
from cvjobs.common.paths import path_bytes
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.file_reading import Unreadable, check_size, denied, read_file, reason
from cvjobs.sources.listing import open_path
from cvjobs.storage.addresses import AddressRules
from cvjobs.storage.remote_files import Changed, Remote, is_remote
from cvjobs.storage.storage_options import Options


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

    @property
    def open_to_all(self) -> bool:
        """Whether whoever knows the ``root`` and a row's path may read the file without asking here."""
        return bool(self.root) and self._confinement is None

    def read(self, path: str, size: int, modified: int) -> bytes:
        """Return the bytes of ``path``; see ``read_file``."""
        name, held = open_path(self.root, self.base, path), self._confinement
        if held is None:
            return read_file(name, size, modified)

        def check(descriptor: int) -> None:
            held.check_opened(descriptor)

        if flaw := held.flaw(name):
            raise Unreadable("refused", flaw)
        return read_file(name, size, modified, check)


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
        check_size(size)
        if self._confinement is not None and (flaw := self._confinement.flaw(place)):
            raise Unreadable("refused", flaw)
        try:
            content, now = self._remote.read(place.decode(), size)
        except FileNotFoundError as error:
            raise Unreadable("read_vanished", reason(error)) from error
        except PermissionError as error:
            raise Unreadable(denied(error), reason(error)) from error
        except Changed as error:
            raise Unreadable("changed_during_run", reason(error)) from error
        except OSError as error:
            if reached := limit(error):
                raise reached from error
            raise Unreadable("read_io", reason(error)) from error
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
