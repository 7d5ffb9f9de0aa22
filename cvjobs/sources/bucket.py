"""The objects below a prefix of a bucket as a source: which are images, by the same rules as in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cvjobs.common import rules
from cvjobs.sources.exclusion import EXCLUDED, Exclusion
from cvjobs.sources.folder import EXTENSIONS
from cvjobs.sources.glob import Glob, Positions
from cvjobs.sources.hidden import MARKS, OURS, Hiding
from cvjobs.sources.left_out import LeftOut
from cvjobs.sources.rows import CHUNK, ImageRows
from cvjobs.storage.object_store import Address
from cvjobs.storage.remote_files import Remote, seen

_SUFFIXES = frozenset(f".{extension}" for extension in EXTENSIONS)


@dataclass
class _Folder:
    """A folder on the way to the key that is looked at: its name with its slash, and the images before it.

    ``at`` is where a glob is in it; nothing in a ``shut`` one counts.
    """

    name: str
    images: int
    at: Positions = frozenset()
    shut: bool = False
    left_out: LeftOut = field(default_factory=LeftOut)
    marks: set[bytes] = field(default_factory=set)


class Scan:
    """One pass over the keys below a prefix, which come in their order: those of a folder one after another.

    ``images`` and ``left_out`` are what it found. Empty objects without an extension, which some tools make for
    folders, are as if never there.
    """

    def __init__(
        self,
        place: Address,
        glob: Glob | None,
        hiding: Hiding,
        on_progress: Callable[[int], None],
        exclusion: Exclusion | None = None,
    ) -> None:
        self.images = ImageRows()
        self._place, self._glob, self._hiding, self._on_progress = place, glob, hiding, on_progress
        self._exclusion = exclusion
        self._way = [_Folder("", 0, glob.start if glob else frozenset())]

    @property
    def left_out(self) -> LeftOut:
        """What was passed over."""
        return self._way[0].left_out

    def run(self, remote: Remote) -> None:
        """Scan to the end. Raises WrongUse or JobFailed where the store cannot be listed."""
        start = len(self._place.key) + 1 if self._place.key else 0
        rows = self.images
        for page in remote.below(self._place):
            for meta in page:
                key = meta["path"][start:]
                folder, slash, name = key.rpartition("/")
                if not name:
                    continue
                here = self._way[-1]
                if here.name != folder + slash:
                    here = self._go(folder + slash)
                if here.shut or not self._wanted(here, name):
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
                    here.left_out.add(suffix, key.encode())
                elif meta["size"]:
                    here.left_out.add("no extension", key.encode())
            if len(rows.paths) >= CHUNK:
                rows.flush()
            self._on_progress(len(rows))
        self._go("")

    def _go(self, folder: str) -> _Folder:
        """Leave the folders that a key is not in, enter those that it is in, and return the last of them."""
        while not folder.startswith(self._way[-1].name):
            left = self._way.pop()
            if self._hiding.is_ours(left.marks):
                self.images.cut(left.images)
                self._way[-1].left_out.add(OURS, left.name[:-1].encode())
            else:
                self._way[-1].left_out.merge(left.left_out)
        while (here := self._way[-1]).name != folder and not here.shut:
            name = folder[len(here.name) :].partition("/")[0]
            self._way.append(self._entered(here, name))
        return here

    def _entered(self, above: _Folder, name: str) -> _Folder:
        raw = name.encode()
        path = above.name.encode() + raw
        found = _Folder(f"{above.name}{name}/", len(self.images), shut=True)
        if raw in MARKS:
            above.marks.add(raw)
        if self._excluded(above, raw):
            above.left_out.add(EXCLUDED, path)
        elif self._glob is not None:
            match = self._glob.match(above.at, raw)
            found.at, found.shut = self._glob.enter(match.below), not match.below
            if match.hidden and not match.below and self._hiding.rules > rules.FIRST:
                above.left_out.add(match.hidden, path)
        elif reason := self._hiding.reason(raw):
            above.left_out.add(reason, path)
        else:
            found.shut = False
        return found

    def _wanted(self, here: _Folder, name: str) -> bool:
        """Whether a name in an open folder is to be looked at; what is passed over is counted."""
        raw = name.encode()
        if raw in MARKS:
            here.marks.add(raw)
        if self._excluded(here, raw):
            here.left_out.add(EXCLUDED, here.name.encode() + raw)
            return False
        if self._glob is not None:
            match = self._glob.match(here.at, raw)
            if match.hidden and not match.whole:
                here.left_out.add(match.hidden, here.name.encode() + raw)
            return match.whole
        if reason := self._hiding.reason(raw):
            here.left_out.add(reason, here.name.encode() + raw)
        return not reason

    def _excluded(self, folder: _Folder, name: bytes) -> bool:
        if self._exclusion is None:
            return False
        self._exclusion.enter(folder.name.encode())
        return self._exclusion.covers(name)
