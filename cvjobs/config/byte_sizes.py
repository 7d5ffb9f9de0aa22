"""Sizes as options have them: `200GB`, `1.5 TB`, `64MiB`."""

from __future__ import annotations

import re

from cvjobs.common.errors import WrongUse

_UNITS = {name: 1000**power for power, name in enumerate(("", "k", "M", "G", "T", "P"))}
_UNITS |= {f"{name}i": 1024**power for power, name in enumerate(("", "k", "M", "G", "T", "P")) if name}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGTP]?i?)B?", re.ASCII | re.IGNORECASE)


def parse_bytes(text: str, option: str) -> int:
    """Return how many bytes a size is; raises WrongUse where it is none, or nothing."""
    found = _SIZE.fullmatch(text.strip())
    units = {name.lower(): factor for name, factor in _UNITS.items()}
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None or not (size := int(float(found[1]) * factor)):
        raise WrongUse(f"{option} must be a size such as 200GB or 64MiB, not {text!r}.")
    return size
