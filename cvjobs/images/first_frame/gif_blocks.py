"""The first picture of a GIF: its palettes, how it is transparent, its blocks; no comments, no later frames."""

from __future__ import annotations

import re

from cvjobs.images.first_frame.layout import Layout

_BLOCK = re.compile(rb"[,!;]")


def find(content: bytes) -> Layout:
    """Return the picture with the control block before it that is whole."""
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 128 else 0)
    header, control = content[:at], b""
    while at + 1 < len(content):
        kind = content[at : at + 1]
        if kind == b",":
            flags = content[at + 9 : at + 10] or b"\0"
            start = at + 11 + (3 << (flags[0] & 7) + 1 if flags[0] & 128 else 0)
            end = _end(content, start)
            whole = start < end <= len(content)
            return Layout(content=header + control + content[at:end] + b";" * whole, cut=not whole)
        if kind == b";":
            return Layout(content=header)
        if kind == b"!":
            if content[at + 1 : at + 3] == b"\xf9\x04":
                control = content[at : at + 7] + b"\0"
            at = _end(content, at + 2)
        else:
            following = _BLOCK.search(content, at)
            at = len(content) if following is None else following.start()
    return Layout(content=header, cut=True)


def _end(content: bytes, at: int) -> int:
    """Return where a chain of blocks ends; behind the content where that ends first."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1
