"""JSON records that tell whether they are what was written: the last entry is the sha256 of all before it.

Records of earlier versions have no seal, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SEAL = "record_sha256"
_SEALED = re.compile(rb',\n "%s": "([0-9a-f]{64})"\n}\n\Z' % SEAL.encode())
_END = b"\n}"


def pack(record: dict[str, Any]) -> bytes:
    """Return a JSON record, not empty, with its seal as bytes."""
    body = json.dumps(record, indent=1, sort_keys=True).encode()
    seal = hashlib.sha256(body).hexdigest()
    return body.removesuffix(_END) + f',\n "{SEAL}": "{seal}"\n}}\n'.encode()


def unpack(content: bytes) -> dict[str, Any] | None:
    """Return a JSON record without its seal; None where it is cut short, damaged or no record at all."""
    found = _SEALED.search(content)
    if found and hashlib.sha256(content[: found.start()] + _END).hexdigest() != found[1].decode():
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
