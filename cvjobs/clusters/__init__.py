"""Places to run: the name of a cluster is the name of a file in ``cluster/``, its kind a module here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cvjobs.errors import WrongUse, nearest
from cvjobs.paths import shipped


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a cluster is like now; ``address`` is what to give to ``--address``."""

    name: str
    up: bool
    address: str
    processes: int
    told: str

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        return self.told


def files() -> dict[str, Path]:
    """Return the file of each cluster by name."""
    return {file.stem: file for file in sorted(shipped("cluster").glob("*.yaml"))}


def described(name: str) -> dict[str, Any]:
    """Return what a cluster's file says; raises WrongUse with the nearest names where there is none."""
    known = files()
    if name not in known:
        raise WrongUse(f"There is no cluster '{name}'{nearest(name, known)}: give one of {', '.join(known)}.")
    document: dict[str, Any] = yaml.safe_load(known[name].read_text())
    return document
