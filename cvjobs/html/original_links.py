"""Where the images of a page are themselves: links to files of this machine, relative to the page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from cvjobs.common.paths import path_bytes


def nowhere(_: str) -> str:
    """Return no address: of a page that does not know where its images are."""
    return ""


def links(page: str, root: str, base: str = "") -> Callable[[str], str]:
    """Return what makes of an image's path the address that a page, a file of this machine, has for it.

    ``root`` and ``base`` are where paths start: the source's folder, or for a list its folder. The address is empty for
    an image or a page that is no file here.
    """
    start = root or base
    if "://" in page or "://" in start:
        return nowhere
    folder = os.path.realpath(Path(page).parent)

    def link(path: str) -> str:
        if "://" in path:
            return ""
        place = os.path.join(path_bytes(start), path_bytes(path))
        return quote(os.path.relpath(place, os.fsencode(folder))) if os.path.isabs(place) else ""

    return link
