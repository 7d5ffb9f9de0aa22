"""The walk over a local folder or glob: which entries are images, which are skipped and why, which fail."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from cvjobs.common.errors import limit
from cvjobs.sources.confinement import Confinement
from cvjobs.sources.exclusion import EXCLUDED, Exclusion
from cvjobs.sources.glob import Glob, Positions
from cvjobs.sources.hidden import HIDDEN, MARKS, NOTED, OURS, Hiding
from cvjobs.sources.left_out import LeftOut
from cvjobs.sources.rows import CHUNK, FailureRows, ImageRows, failure_code

EXTENSIONS = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp"),
    *("tif", "tiff", "avif", "heic", "heif", "ppm", "pgm"),
)
_SUFFIXES = frozenset(f".{extension}".encode() for extension in EXTENSIONS)
_REGULAR = stat.S_IFREG
_FORMAT = 0o170000
_KINDS = {
    stat.S_IFDIR: "folder link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def kind_of(mode: int) -> str:
    """Return what a file that is no regular file is."""
    return _KINDS.get(stat.S_IFMT(mode), "special file")


class Walk:
    """One walk below ``root`` (bytes), depth first, with at most one folder open.

    ``images``, ``failures``, ``left_out`` and ``unreadable`` are what it found. No file is opened. Links to
    files are followed and links to folders are not, so there are no cycles; only those of a ``confinement`` are.
    With ``links`` those to folders are, too, and ``followed`` names them; one to a folder that it is in fails.
    """

    def __init__(
        self,
        root: bytes,
        glob: Glob | None,
        hiding: Hiding,
        on_progress: Callable[[int], None],
        *,
        exclusion: Exclusion | None = None,
        confinement: Confinement | None = None,
        links: bool = False,
    ) -> None:
        self.images = ImageRows()
        self.failures = FailureRows()
        self.left_out = LeftOut()
        self.unreadable: list[bytes] = []
        self.followed: list[bytes] = []
        self._root = os.path.join(root, b"")
        self._glob = glob
        self._hiding = hiding
        self._on_progress = on_progress
        self._exclusion = exclusion
        self._confinement = confinement
        self._links = links
        self._stack: list[tuple[bytes, Positions]] = [(b"", glob.start if glob else frozenset())]
        # Of the folder that is being read: what it holds may all turn out to be ours.
        self._here, self._marks = LeftOut(), set[bytes]()

    def run(self) -> None:
        """Walk to the end. Raises OSError where the root itself cannot be read."""
        while self._stack:
            prefix, at = self._stack.pop()
            below, images, failures = len(self._stack), len(self.images), len(self.failures)
            self._here, self._marks = LeftOut(), set()
            try:
                with os.scandir(self._root + prefix) as entries:
                    self._read(self._wanted(entries, prefix, at), prefix)
            except OSError as error:
                if not prefix or limit(error):
                    raise
                if error.errno not in _GONE:
                    folder = prefix[:-1]
                    self.unreadable.append(folder)
                    self.failures.add(folder, failure_code(error), f"the folder cannot be read: {error.strerror}")
            if prefix and self._hiding.is_ours(self._marks):
                del self._stack[below:]
                self.images.cut(images)
                self.failures.cut(failures)
                self.left_out.add(OURS, prefix[:-1])
            else:
                self.left_out.merge(self._here)
            self._on_progress(len(self.images))

    def _wanted(
        self, entries: Iterator[os.DirEntry[bytes]], prefix: bytes, at: Positions
    ) -> Iterator[os.DirEntry[bytes]]:
        if self._exclusion is not None:
            entries = self._included(entries, prefix, self._exclusion)
        return entries if self._glob is None else self._matching(entries, prefix, at, self._glob)

    def _read(self, entries: Iterator[os.DirEntry[bytes]], prefix: bytes) -> None:
        # This loop runs once an entry, so it binds what it uses and asks first what most entries are.
        rows = self.images
        paths, suffixes, regular, format_of = rows.paths, _SUFFIXES, _REGULAR, _FORMAT
        add_path, add_size, add_time = rows.paths.append, rows.sizes.append, rows.times.append
        hidden, confinement = b"" if self._glob else self._hiding.first, self._confinement
        for entry in entries:
            name = entry.name
            if name[0] in hidden:
                self._hide(prefix, name, HIDDEN)
            elif name[name.rfind(b".") :].lower() in suffixes:
                if confinement is not None and entry.is_symlink() and (flaw := confinement.flaw(entry.path)):
                    self.failures.add(prefix + name, "refused", flaw)
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    self._fail(entry, prefix + name, error)
                    continue
                if status.st_mode & format_of == regular:
                    add_path(prefix + name)
                    add_size(status.st_size)
                    add_time(status.st_mtime_ns)
                    if len(paths) >= CHUNK:
                        rows.flush()
                        self._on_progress(len(rows))
                else:
                    self._pass_over(entry, prefix)
            else:
                self._pass_over(entry, prefix)

    def _fail(self, entry: os.DirEntry[bytes], path: bytes, error: OSError) -> None:
        if limit(error):
            raise error
        if entry.is_symlink():
            self.failures.add(path, failure_code(error), f"the target of the link: {error.strerror}")
        elif isinstance(error, PermissionError):
            raise error  # the folder can be listed and not entered: it is the folder that cannot be read
        elif error.errno not in _GONE:  # deleted since the folder was opened: as if never there
            self.failures.add(path, failure_code(error), f"{error.strerror}")

    def _hide(self, prefix: bytes, name: bytes, reason: str) -> None:
        if name in MARKS:
            self._marks.add(name)
        self._here.add(reason, prefix + name)

    def _pass_over(self, entry: os.DirEntry[bytes], prefix: bytes) -> None:
        """Go into a subfolder later (under a glob, ``_matching`` does); count anything else."""
        name = entry.name
        if name.lower() in NOTED:
            if not self._glob and (reason := self._hiding.reason(name)):
                self._hide(prefix, name, reason)
                return
            if name in MARKS:
                self._marks.add(name)
        try:
            if entry.is_dir(follow_symlinks=False):
                self._stack.append((prefix + name + b"/", frozenset()))
                return
            if not entry.is_file(follow_symlinks=False):
                mode = entry.stat().st_mode
                if self._links and stat.S_ISDIR(mode):
                    self._follow(entry, prefix, frozenset())
                    return
                if not stat.S_ISREG(mode):
                    self._here.add(kind_of(mode), prefix + name)
                    return
        except OSError as error:  # a link to nowhere, or to where we may not look
            if self._links and b"." not in name:  # it may have been a folder's
                self._fail(entry, prefix + name, error)
                return
        dot = name.rfind(b".")
        extension = os.fsdecode(name[dot:]).lower()
        self._here.add(extension if 0 < dot < len(name) - 1 else "no extension", prefix + name)

    def _follow(self, entry: os.DirEntry[bytes], prefix: bytes, at: Positions) -> None:
        """Go into the folder that a link leads to later, unless it is one that the link is in, or lies outside."""
        path = prefix + entry.name
        parts = prefix.split(b"/")[:-1]
        above = {os.path.realpath(self._root + b"/".join(parts[:depth])) for depth in range(len(parts) + 1)}
        if self._confinement is not None and (flaw := self._confinement.flaw(entry.path)):
            self.failures.add(path, "refused", flaw)
        elif os.path.realpath(entry.path) in above:
            self.failures.add(path, "refused", "the link leads to a folder that it is in")
        else:
            self.followed.append(path)
            self._stack.append((path + b"/", at))

    def _included(
        self, entries: Iterator[os.DirEntry[bytes]], prefix: bytes, exclusion: Exclusion
    ) -> Iterator[os.DirEntry[bytes]]:
        exclusion.enter(prefix)
        for entry in entries:
            if exclusion.covers(entry.name):
                self._hide(prefix, entry.name, EXCLUDED)
            else:
                yield entry

    def _matching(
        self, entries: Iterator[os.DirEntry[bytes]], prefix: bytes, at: Positions, glob: Glob
    ) -> Iterator[os.DirEntry[bytes]]:
        """Yield the entries, but no folders, that the glob names; put subfolders that it enters on the stack."""
        for entry in entries:
            name = entry.name
            if name in MARKS:
                self._marks.add(name)
            whole, below, hidden = glob.match(at, name)
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                is_folder_link = not is_folder and entry.is_dir()
            except OSError:
                is_folder = is_folder_link = False
            if is_folder and below:
                self._stack.append((prefix + name + b"/", glob.enter(below)))
            elif is_folder and whole:
                self._here.add("folder", prefix + name)
            elif is_folder_link and below and self._links:
                self._follow(entry, prefix, glob.enter(below))
            elif is_folder_link and (whole or below):
                self._here.add("folder link", prefix + name)
            elif whole:
                yield entry
            elif hidden:
                self._here.add(hidden, prefix + name)
