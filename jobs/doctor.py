"""Check this machine: versions, safety, ports, GPUs, decoders, room; each finding says what to do.

Exit code 0: nothing is broken (there may be warnings); 1: something is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvjobs.config.options import Json

if TYPE_CHECKING:
    from cvjobs.operations.doctor.finding import Checked


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs doctor``."""

    json: Json = False


def call(config: Config) -> Checked:  # noqa: ARG001 - every call takes its Config
    """Check and return what was found, the worst last."""
    from cvjobs.operations.doctor import examine
    from cvjobs.operations.doctor.finding import Checked

    return Checked(examine.findings())
