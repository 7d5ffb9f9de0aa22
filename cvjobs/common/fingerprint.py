"""What identifies results: facts as JSON, their digest, and the versions of the libraries that a snapshot records."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict
from functools import cache
from typing import Any

import cvjobs


def digest(facts: dict[str, Any]) -> str:
    """Return the sha256 (hex) of a JSON-like dict, independent of key order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def facts(record: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(asdict(record)))  # type: ignore[no-any-return]


LIBRARIES = ("torch", "torchvision", "torchcodec", "timm", "pillow", "pyarrow", "ray")


def installed(name: str) -> str:
    """Return the version of an installed package; ``unknown`` where it came without its metadata."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def libraries() -> dict[str, str]:
    """Return the versions that a snapshot records."""
    return {"cvjobs": cvjobs.__version__, **{name: installed(name) for name in LIBRARIES}}
