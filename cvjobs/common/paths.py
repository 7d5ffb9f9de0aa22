"""Where shipped folders are, and how the bytes of a file name become text, an id and back."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


# The two top-level folders of a checkout that are no part of the library, and what they are called inside the wheel.
SHIPPED = {"jobs": "drivers", "cluster": "places"}


def shipped(folder: str) -> Path:
    """Return the folder ``jobs`` or ``cluster``: the installed one, or the sibling of a checkout."""
    library = Path(__file__).parent.parent
    installed = library / SHIPPED[folder]
    return installed if installed.is_dir() else library.parent / folder


def path_text(raw: bytes) -> str:
    r"""Return a path as text: UTF-8, an invalid byte as ``\xNN``, a backslash as ``\x5c``; reversible."""
    if b"\\" in raw:
        raw = raw.replace(b"\\", b"\\x5c")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="backslashreplace")


def path_bytes(text: str) -> bytes:
    """Return the bytes that ``path_text`` was given."""
    if "\\" not in text:
        return text.encode()
    pieces = _ESCAPED.split(text)
    return b"".join(bytes([int(piece, 16)]) if i % 2 else piece.encode() for i, piece in enumerate(pieces))


def image_id(raw: bytes) -> bytes:
    """Return the 16-byte key of an image: blake2b-128 of its path's bytes relative to the source root."""
    return hashlib.blake2b(raw, digest_size=16).digest()
