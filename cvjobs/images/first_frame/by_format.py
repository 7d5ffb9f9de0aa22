"""Where the first picture of a file lies, by its format; and files whose metadata alone would take minutes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from cvjobs.images.first_frame import avif_boxes, gif_blocks, jpeg_segments, png_chunks, tiff_directory, webp_chunks
from cvjobs.images.first_frame.layout import Layout

MUCH = 1 << 20  # bytes of metadata that decoders may take their time for
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])++"
_PPM = {kind: re.compile(rb"P.(?:%b[\d.+-]++){%d}" % (_GAP, 2 if kind in b"14" else 3)) for kind in b"123456fF"}
_PPM_CUT = re.compile(rb"P.(?:[\s\d.+-]|#[^\r\n]*+)*+", re.DOTALL)


def find(content: bytes, format_: str) -> Layout | None:
    """Return where the first picture of a file lies; None where the file makes no sense, or is of another format."""
    finders: dict[str, Callable[[bytes], Layout]] = {
        "PNG": png_chunks.find,
        "JPEG": jpeg_segments.find,
        "GIF": gif_blocks.find,
        "TIFF": tiff_directory.find,
        "WEBP": webp_chunks.find,
        "AVIF": avif_boxes.find,
        "BMP": _bmp,
        "PPM": _ppm,
    }
    finder = finders.get(format_)
    try:
        return None if finder is None else finder(content)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError):
        return None


def lighter(content: bytes, format_: str) -> bytes:
    """Return the content without metadata that decoders would need minutes for: nearly always the content itself."""
    if len(content) > MUCH and format_ == "JPEG":
        return jpeg_segments.lighter(content)
    if len(content) > MUCH and format_ == "PPM" and (header := _PPM[content[1]].match(content)) is not None:
        return content if header.end() < MUCH else _ppm(content).content
    return content


def _bmp(content: bytes) -> Layout:
    """Return a bitmap as it is: nothing around its pixels is in a decoder's way."""
    places, header = struct.unpack_from("<II", content, 10) if len(content) >= 18 else (18, 18)
    return Layout(content=content, cut=len(content) < max(places, 14 + min(header, 124)))


def _ppm(content: bytes) -> Layout:
    header = _PPM[content[1]].match(content)
    if header is None:
        return Layout(content=content, cut=len(content) < MUCH and _PPM_CUT.fullmatch(content) is not None)
    return Layout(content=re.sub(rb"#[^\r\n]*[\r\n]", b"\n", header[0]) + content[header.end() :])
