"""Which names in a folder are nobody's images: hidden ones, what systems leave behind, and what cvjobs made."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from cvjobs.common import rules as versions

HIDDEN, SYSTEM, OURS = "hidden", "system", "output of cvjobs"  # reasons why something is skipped

OWN = b"_cvjobs"  # in every output and index
_BESIDE = frozenset({b".cvjobs-masks", b".cvjobs-pictures"})  # in a folder of masks, in one of annotated pictures
_RUN = frozenset({b"config.json", b"checkpoints", b"history.parquet"})  # in the folder of a training
MARKS = frozenset({OWN, *_BESIDE, *_RUN})

# In lower case: what Windows, macOS, Linux, NAS boxes and photo managers write beside the images of people.
_SYSTEM = frozenset(
    {
        *(b"$recycle.bin", b"recycler", b"system volume information", b"thumbs.db", b"ehthumbs.db"),
        *(b"ehthumbs_vista.db", b"desktop.ini", b"found.000", b"__macosx", b"icon\r", b"desktop db", b"desktop df"),
        *(b"network trash folder", b"temporary items", b"thevolumesettingsfolder", b"lost+found", b"~snapshot"),
        *(b"@eadir", b"@tmp", b"@recycle", b"@recently-snapshot", b"@sharebin", b"@sharesnap", b"#recycle"),
        *(b"#snapshot", b"_nas_recycle_raid", b"picasa.ini", b"thumbnails-digikam.db"),
    }
)
NOTED = _SYSTEM | MARKS  # in lower case: no other name without a dot before it means anything here


@dataclass(frozen=True)
class Hiding:
    """The names that a walk passes over by version ``rules``; none by version 0."""

    rules: int

    @property
    def first(self) -> bytes:
        """The characters that hidden names begin with."""
        if not self.rules:
            return b""
        return b"._" if self.rules == versions.FIRST else b"."

    def reason(self, name: bytes) -> str:
        """Return why a name is passed over, empty where it is not."""
        if name and name[0] in self.first:
            return HIDDEN
        if self.rules > versions.FIRST:
            if name == OWN:
                return OURS
            if name.lower() in _SYSTEM:
                return SYSTEM
        return ""

    def is_ours(self, names: Set[bytes]) -> bool:
        """Whether a folder with these names in it is an output, an index or a training run; those of ``MARKS`` do."""
        if self.rules <= versions.FIRST:
            return False
        return OWN in names or bool(_BESIDE & names) or names >= _RUN
