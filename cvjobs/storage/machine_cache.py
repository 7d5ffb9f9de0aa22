"""Where a machine keeps what it made or fetched of something that is in a bucket: ``XDG_CACHE_HOME``, or ~/.cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

VARIABLE = "XDG_CACHE_HOME"


def folder(kind: str, place: str) -> Path:
    """Return this machine's own folder for what it keeps of one kind (``models``, ...) of a place; it may not exist."""
    home = os.environ.get(VARIABLE) or os.path.expanduser("~/.cache")
    return Path(home) / "cvjobs" / kind / hashlib.sha256(place.encode()).hexdigest()[:20]
