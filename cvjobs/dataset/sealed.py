"""JSON records that tell whether they are what was written: the last entry is the sha256 of all before it.

Records of earlier versions have no seal, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SEAL = "record_sha256"
# The name is looked at only then, so that a seal whose name is damaged does not make an older record of a new one.
_SEALED = re.compile(rb',\n "(.{%d})": "([^"]{64})"\n}\n\Z' % len(SEAL), re.DOTALL)
_END = b"\n}"


def pack(record: dict[str, Any], *, in_order: bool = True) -> bytes:
    """Return a JSON record, not empty, with its seal as bytes; ``in_order`` of the names, or as they are told."""
    body = json.dumps(record, indent=1, sort_keys=in_order).encode()
    seal = hashlib.sha256(body).hexdigest()
    return body.removesuffix(_END) + f',\n "{SEAL}": "{seal}"\n}}\n'.encode()


def unpack(content: bytes) -> dict[str, Any] | None:
    """Return a JSON record without its seal; None where it is cut short, damaged or no record at all."""
    found = _SEALED.search(content)
    if found and found[1] != SEAL.encode():
        return None
    if found and hashlib.sha256(content[: found.start()] + _END).hexdigest().encode() != found[2]:
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or (SEAL in record and not found):
        return None
    record.pop(SEAL, None)
    return record


def is_sealed(content: bytes) -> bool:
    """Return whether a record has a seal; ``unpack`` tells whether it is whole."""
    return _SEALED.search(content) is not None
