"""The kinds of JPEG that are valid and not read here, each by its own name.

What a file is says its frame header (ITU-T T.81, T.87), which is looked at only where no decoder made a picture.
"""

from __future__ import annotations

import re
import struct

_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_DEFINE_HIERARCHY, _LS = 0xDE, 0xF7
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_DIFFERENTIAL = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_FRAMES = {0xC0, 0xC1, 0xC2} | _LOSSLESS | _DIFFERENTIAL | _ARITHMETIC
_READ = {1, 3, 4}  # components
_LINES = re.compile(rb"\xff\xdc\0\x04..\xff", re.DOTALL)


def unread(content: bytes) -> tuple[str, str] | None:
    """Return the code and detail of a JPEG that is valid by its header and not read; None for all others."""
    found = _frame(content)
    if found is not None and found[0] == _LS:
        return "unsupported_format", "JPEG-LS images are not supported"
    name = _name(*found, content) if found else None
    return ("unsupported_mode", f"{name} is not supported") if name else None


def _name(marker: int, body: bytes, content: bytes) -> str | None:
    """Return what a JPEG with this header of a frame is; None where it is read, or no standard has it."""
    kind = "lossless JPEG" if marker in _LOSSLESS else "JPEG"
    if marker == _DEFINE_HIERARCHY or marker in _DIFFERENTIAL:
        return f"a hierarchical {kind}"
    bits, lines, _, components = struct.unpack_from(">BHHB", body)
    known = bits in (range(2, 17) if marker in _LOSSLESS else (8, 12))
    if not known or not components or len(body) < 6 + 3 * components:
        return None
    names = {
        f"a {kind} of {bits} bits a sample": bits != 8,
        "a lossless JPEG with arithmetic coding": marker in _LOSSLESS & _ARITHMETIC,
        f"a {kind} of {components} components": components not in _READ,
        "a JPEG that says its height behind its pixels (DNL)": not lines and bool(_LINES.search(content)),
    }
    return next((name for name, said in names.items() if said), None)


def _frame(content: bytes) -> tuple[int, bytes] | None:
    """Return the marker and the body of the first header of a frame, or of a hierarchy; None without a whole one."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        body = content[at + 4 : at + 2 + length]
        if marker in _FRAMES or marker in (_DEFINE_HIERARCHY, _LS):
            return (marker, body) if len(body) >= 6 and len(body) == length - 2 else None
        if length < 2 or marker in (0xDA, 0xD9):
            return None
        at += 2 + length
    return None
