"""The licence that the model card of a repository names, in the YAML at its head."""

from __future__ import annotations

from typing import Any

import yaml

from cvjobs.common.errors import WrongUse
from cvjobs.networks import licences
from cvjobs.networks.hf.repository import Repository

_CARD = "README.md"
_MARK = "---"
_MOST = 1 << 20  # bytes of a card that are looked at


def licence(repository: Repository) -> str:
    """Return the licence that a repository's card names, as ``licences.spelt``: ``unknown`` where none is to be had.

    With ``license: other`` it is the ``license_name`` that counts.
    """
    try:
        card = repository.file(_CARD)
        text = card.read_bytes()[:_MOST].decode(errors="replace") if card else ""
    except (WrongUse, OSError):  # out of reach: what is not known is no reason to stop
        return licences.UNKNOWN
    fields = _head(text)
    named = fields.get("license")
    name = fields.get("license_name") if named == "other" else named
    return licences.spelt(name if isinstance(name, str) else None)


def _head(text: str) -> dict[str, Any]:
    """Return the mapping between the two lines of dashes that a card begins with; empty where there is none."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != _MARK:
        return {}
    ends = [number for number, line in enumerate(lines[1:], 1) if line.strip() == _MARK]
    try:
        found = yaml.load("\n".join(lines[1 : ends[0]]), yaml.BaseLoader) if ends else {}  # noqa: S506 - texts alone
    except (yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
