"""One thing that was looked at, and what to do where it is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, warning (works, but not well or not safely) or broken; ``fix`` is a sentence, empty for ok."""

    level: Literal["ok", "warning", "broken"]
    subject: str
    what: str
    fix: str = ""

    @classmethod
    def ok(cls, subject: str, what: str) -> Finding:
        """Return that something is as it should be."""
        return cls("ok", subject, what)

    @classmethod
    def warning(cls, subject: str, what: str, fix: str) -> Finding:
        """Return that something works, but not well or not safely."""
        return cls("warning", subject, what, fix)

    @classmethod
    def broken(cls, subject: str, what: str, fix: str) -> Finding:
        """Return that something does not work, or is open to others."""
        return cls("broken", subject, what, fix)
