"""Files read by a decode child: one after another, and where they are slow to come, several ahead of the decoder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cvjobs.common.failures import Failure
from cvjobs.common.paths import path_bytes
from cvjobs.sources.file_reading import Unreadable, read_file

AHEAD = 8  # files at once
AGAIN = 32  # chunks until it is seen anew whether files are slow
_SLOW = 2e-3  # s for a file that came from no memory of this machine

# A file to read: its name as ``path_text`` writes it, its listed size in bytes and its time stamp in ns.
File = tuple[str, int, int]


class FileReader:
    """Reads the files of one chunk after another; ``seconds`` are those that whoever asked waited."""

    def __init__(self, root: str) -> None:
        self._root, self.seconds = path_bytes(root), 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._slow = False
        self._chunks = 0

    def read(self, files: Sequence[File]) -> Iterator[bytes | Failure]:
        """Yield the bytes of each file, or why they cannot be read; raises LimitReached."""
        before = self.seconds
        self._chunks += 1
        if self._chunks % AGAIN == 0:
            self._slow = False
        ahead: Iterator[bytes | Failure] | None = None
        for at, file in enumerate(files):
            began = time.monotonic()
            if ahead is None and self._slow:
                ahead = self._ahead(files[at:])
            content = self._content(file) if ahead is None else next(ahead)
            self.seconds += time.monotonic() - began
            self._slow = self._slow or self.seconds - before > _SLOW * len(files)
            yield content

    def _ahead(self, files: Sequence[File]) -> Iterator[bytes | Failure]:
        """Return what ``_content`` does, from several threads where they can be started."""
        try:
            self._pool = self._pool or ThreadPoolExecutor(AHEAD, "read")
            return self._pool.map(self._content, files)
        except RuntimeError:
            self._pool = None
            return map(self._content, files)

    def _content(self, file: File) -> bytes | Failure:
        name, size, modified = file
        try:
            return read_file(os.path.join(self._root, path_bytes(name)), size, modified)
        except Unreadable as error:
            return error.failure
