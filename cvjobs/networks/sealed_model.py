"""A safetensors file that tells whether it is what was written: a digest of all its other bytes is in its metadata.

Files of others and of earlier versions have none, and are loaded as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import xxhash

# Two entries: where a bit of one is damaged, the other still tells that there was a digest.
_MARK, _DIGEST = "cvjobs_sealed", "cvjobs_xxh3_128"
_DIGITS = 32
_SEALED = re.compile(rb'"%s":"([0-9a-f]{%d})"' % (_DIGEST.encode(), _DIGITS))
_LONGEST = 100_000_000  # bytes of a header that safetensors reads
BLOCK = 1 << 20


def seal(model: bytes) -> bytes:
    """Return a safetensors file with its digest, and its metadata in order.

    The library's own order differs from process to process.
    """
    end = 8 + int.from_bytes(model[:8], "little")
    header = json.loads(model[8:end])
    metadata = {**header.get("__metadata__", {}), _MARK: "xxh3_128", _DIGEST: "0" * _DIGITS}
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    begin = len(text).to_bytes(8, "little") + text
    digest = xxhash.xxh3_128(begin)
    digest.update(memoryview(model)[end:])
    place = _SEALED.search(begin)
    assert place is not None
    return b"".join((begin[: place.start(1)], digest.hexdigest().encode(), begin[place.end(1) :], model[end:]))


def hashed(file: Path) -> tuple[str, bool]:
    """Return the sha256 (hex) of a file of any kind, and whether it is what was written, as far as it can tell."""
    with file.open("rb") as stream:
        begin = stream.read(8)
        length = int.from_bytes(begin, "little")
        begin += stream.read(length) if length <= _LONGEST else b""
        sha256 = hashlib.sha256(begin)
        if _MARK.encode() not in begin and _DIGEST.encode() not in begin:
            _read(stream, sha256.update)
            return sha256.hexdigest(), True
        places = list(_SEALED.finditer(begin))
        if len(places) != 1:
            _read(stream, sha256.update)
            return sha256.hexdigest(), False
        place = places[0]
        digest = xxhash.xxh3_128(begin[: place.start(1)] + b"0" * _DIGITS + begin[place.end(1) :])
        _read(stream, sha256.update, digest.update)
        return sha256.hexdigest(), digest.hexdigest().encode() == place[1]


def _read(stream: io.BufferedReader, *updates: Callable[[memoryview], object]) -> None:
    """Let digests see the rest of a file, which is read once."""
    room = memoryview(bytearray(BLOCK))
    while count := stream.readinto(room):
        for update in updates:
            update(room[:count])
