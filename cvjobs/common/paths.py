"""Where shipped folders are, which names no file can have, and how a name's bytes become text, an id and back."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import unicodedata
from pathlib import Path

from cvjobs.common.formatting import unmarked, without_controls

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_CONTROLS = re.compile(rb"\\x([89][0-9a-f])")  # U+0080 to U+009F, of which UTF-8 has two bytes
_PLAIN = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)  # what most paths are, and is as it is
_BETWEEN = re.compile(r"\\x5c|\\(?!x[89a-f][0-9a-f])")  # a backslash, as text or as it is, but no invalid byte


# The two top-level folders of a checkout that are no part of the library, and what they are called inside the wheel.
SHIPPED = {"jobs": "drivers", "cluster": "places"}


def shipped(folder: str) -> Path:
    """Return the folder ``jobs`` or ``cluster``: the installed one, or the sibling of a checkout."""
    library = Path(__file__).parent.parent
    installed = library / SHIPPED[folder]
    return installed if installed.is_dir() else library.parent / folder


def flaw(place: str, pattern: bool = False) -> str:
    """Return why no file and no folder can be meant by a name, as the end of a sentence, or ``""``.

    Nothing needs to be there. A glob is a ``pattern``, which may be longer than a name; a URL has limits of its own.
    """
    name = place.removeprefix("file://")
    if not name:
        return "is empty: name a file or a folder"
    if "\0" in name:
        return "holds a NUL character: leave it out"
    try:
        if "://" in name:
            name.encode()
            return ""
        return "" if pattern else _flaw_here(os.path.expanduser(name))
    except UnicodeEncodeError:
        return "holds a character that no name can have: correct it"


def _flaw_here(name: str) -> str:
    if re.match("~[^/]", name) and not os.path.lexists(name):
        return "begins with the home of a user whom this machine does not have: correct it, or put ./ before it"
    if _is_too_long(Path(name)):
        return "is too long for the name of a file or a folder: choose a shorter one"
    return ""


def _is_too_long(path: Path) -> bool:
    """Ask the file system that the path is, or would be, in; one that does not tell takes any."""
    try:
        path = path.absolute()
        there, *missing = path.parts
        while missing and os.path.lexists(below := os.path.join(there, missing[0])):
            there = below
            del missing[0]
        longest, whole = os.pathconf(there, "PC_NAME_MAX"), os.pathconf(there, "PC_PATH_MAX")
    except OSError:
        return False
    return len(os.fsencode(path)) >= whole or any(len(os.fsencode(name)) > longest for name in missing)


def plain(name: str) -> str:
    """Return a name without ``//``, ``.`` and ``x/..``, where it means the same place; a URL as it is."""
    if "://" in name or not name:
        return name
    short = re.sub("^/+", "/", os.path.normpath(name))
    if ".." in name.split("/") and os.path.realpath(short) != os.path.realpath(name):  # a link to a folder elsewhere
        return name
    if name.startswith("./") and short.startswith(("~", "-")):
        short = f"./{short}"
    return f"{short}/" if name.endswith("/") and short != "/" else short


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
    return _unescaped(text.encode())


def _unescaped(raw: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), raw) if b"\\" in raw else raw


def meanings(raw: bytes) -> tuple[bytes, ...]:
    """Return which other names of a file our outputs and exports write so, the likelier first; most often none.

    Those are what ``path_text`` was given, the same without the mark of a cell that a spreadsheet would compute, and
    with the control characters that such a cell has escaped, too.
    """
    if b"\\x" not in raw and not raw.startswith(b"'"):
        return ()
    plain = unmarked(raw.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    controls = _CONTROLS.sub(lambda found: b"\xc2" + bytes([int(found[1], 16)]), plain)
    found = dict.fromkeys(map(_unescaped, (raw, plain, controls)))
    return tuple(name for name in found if name != raw and name.count(b"://") == raw.count(b"://"))


def image_id(raw: bytes) -> bytes:
    """Return the 16-byte key of an image: blake2b-128 of its path's bytes relative to the source root."""
    return hashlib.blake2b(raw, digest_size=16).digest()


def comparable(path: str) -> str:
    r"""Return what paths of one image have in common, however a tool wrote them: ``images\a.jpg``, ``./images/a.jpg``.

    Unicode is composed, folders are parted by ``/``, and what leads nowhere (``.``, ``//``, ``x/..``) is left out.
    """
    if _PLAIN.fullmatch(path):
        return path
    shown = without_controls(path.strip().removeprefix("file://"))
    plain = unicodedata.normalize("NFC", _BETWEEN.sub("/", shown))
    return posixpath.normpath(plain).lstrip("/") if plain else ""
