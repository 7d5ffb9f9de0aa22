"""The name of an image's file below a folder: its path and an ending, never outside and no two images' the same."""

from __future__ import annotations

import hashlib
import re

LONGEST, DEEPEST = 255, 2048  # bytes of one piece of a name, and of all of it

# In the text of a path: bytes that are no UTF-8, a backslash, what would be read as an escape, control characters, an
# empty piece, a dot that a piece begins with, the end of a folder that is called like a file.
_SPECIAL = {
    suffix: re.compile(
        r"\\x[0-9a-f]{2}|%(?=[0-9A-Fa-f]{2}|~)|[\x00-\x1f\x7f]|(?<![^/])[./]|/\Z|\.(?=" + suffix[1:] + "/)"
    )
    for suffix in (".png", ".jpg")
}


def file_name(path: str, suffix: str) -> str:
    """Return the name of the file of an image's path (``paths.path_text``); ``unquote`` and ``[:-4]`` undo it.

    What a name must not hold is ``%XX``, as in URLs. A piece over 255 bytes ends in ``%~`` and a digest instead.
    """
    *folders, last = _SPECIAL[suffix].sub(_escaped, path).split("/")
    name = "/".join([*(_short(piece) for piece in folders), _short(last, suffix)])
    return name if len(name.encode()) <= DEEPEST else f"%~{_digest(path)}{suffix}"


def _escaped(found: re.Match[str]) -> str:
    text = found.group()
    if text == r"\x5c":
        return "\\"
    return f"%{text[2:].upper()}" if len(text) > 1 else f"%{ord(text):02X}"


def _short(piece: str, suffix: str = "") -> str:
    raw, room = piece.encode(), LONGEST - len(suffix)
    if len(raw) <= room:
        return piece + suffix
    mark = f"%~{_digest(piece)}{suffix}"
    return raw[: LONGEST - len(mark)].decode(errors="ignore") + mark


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
