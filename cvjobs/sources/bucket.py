"""The objects below a prefix of a bucket as a source: which are images, by the same rules as in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cvjobs.sources.folder import EXTENSIONS
from cvjobs.sources.glob import HIDDEN, Glob, Positions
from cvjobs.sources.rows import CHUNK, ImageRows
from cvjobs.storage.object_store import Address
from cvjobs.storage.remote_files import Remote, seen

_SUFFIXES = frozenset(f".{extension}" for extension in EXTENSIONS)
_HIDDEN = tuple(HIDDEN.decode())


class Scan:
    """One pass over the keys below a prefix, which come in their order.

    ``images`` and ``skipped`` are what it found. Empty objects without an extension, which some tools make for
    folders, are as if never there.
    """

    def __init__(self, place: Address, glob: Glob | None, on_progress: Callable[[int], None]) -> None:
        self.images = ImageRows()
        self.skipped: Counter[str] = Counter()
        self._place, self._glob, self._on_progress = place, glob, on_progress
        self._hidden = ""
        self._folder = ""
        self._at: Positions | None = glob.start if glob else frozenset()

    def run(self, remote: Remote) -> None:
        """Scan to the end. Raises WrongUse or JobFailed where the store cannot be listed."""
        start = len(self._place.key) + 1 if self._place.key else 0
        rows = self.images
        for page in remote.below(self._place):
            for meta in page:
                key = meta["path"][start:]
                folder, slash, name = key.rpartition("/")
                if not self._wanted(folder + slash, name):
                    continue
                dot = name.rfind(".")
                suffix = name[dot:].lower() if dot >= 0 else ""
                if suffix in _SUFFIXES:
                    size, modified, tag = seen(meta)
                    rows.paths.append(key.encode())
                    rows.sizes.append(size)
                    rows.times.append(modified)
                    rows.tags.append(tag)
                elif dot > 0 and len(suffix) > 1:
                    self.skipped[suffix] += 1
                elif meta["size"]:
                    self.skipped["no extension"] += 1
            if len(rows.paths) >= CHUNK:
                rows.flush()
            self._on_progress(len(rows))

    def _wanted(self, folder: str, name: str) -> bool:
        """Whether a name in a folder (with its slash, or empty) is to be looked at; hidden ones are counted."""
        if not name:
            return False
        if self._glob is None:
            return not self._is_hidden(folder, name)
        if folder != self._folder:
            self._folder, self._at = folder, self._enter(folder)
        if self._at is None:
            return False
        match = self._glob.match(self._at, name.encode())
        self.skipped["hidden"] += match.hidden
        return match.whole

    def _is_hidden(self, folder: str, name: str) -> bool:
        """Whether a name begins with . or _, or a folder on its way does; such a folder counts once."""
        if self._hidden and folder.startswith(self._hidden):
            return True
        if folder != self._folder:
            self._folder = folder
            way = folder.split("/")[:-1]
            for i, part in enumerate(way):
                if part.startswith(_HIDDEN):
                    self._hidden = "/".join(way[: i + 1]) + "/"
                    self.skipped["hidden"] += 1
                    return True
        if name.startswith(_HIDDEN):
            self.skipped["hidden"] += 1
            return True
        return False

    def _enter(self, folder: str) -> Positions | None:
        """Return where the glob is in a folder, None where it does not go there."""
        assert self._glob is not None
        at = self._glob.start
        for part in folder.split("/")[:-1]:
            match = self._glob.match(at, part.encode())
            if not match.below:
                return None
            at = self._glob.enter(match.below)
        return at
