"""Places to run: a name in ``cluster/`` or a file of the user's own, whose ``kind`` is a module here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.paths import shipped
from cvjobs.common.tabular import Readable

KINDS = ("kuberay", "launcher", "local")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_BLANK = re.compile(r"<[^<>]+>")


@dataclass(frozen=True, kw_only=True)
class Status(Readable):
    """What a cluster is like now; ``address`` is what to give to ``--address``, after what ``told`` says to do."""

    name: str
    up: bool
    address: str
    told: str
    processes: int = 0
    machines: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        return self.told


def files() -> dict[str, Path]:
    """Return the file of each cluster by name."""
    return {file.stem: file for file in sorted(shipped("cluster").glob("*.yaml"))}


def called(name: str) -> str:
    """Return the name of a cluster: a file of the user's own names it."""
    stem = Path(name).stem if _own(name) else name
    if not _NAME.fullmatch(stem):
        raise WrongUse(f"The file '{stem}' is not named in small letters, digits and hyphens: rename it.")
    return stem


def described(name: str) -> dict[str, Any]:
    """Return what a cluster's file says; raises WrongUse for one that is not there, not filled in or makes no sense."""
    known = files()
    if not _own(name) and name not in known:
        raise WrongUse(
            f"There is no cluster '{name}'{nearest(name, known)}: give one of {', '.join(known)}, or your own file "
            "(./NAME.yaml)."
        )
    file = Path(name) if _own(name) else known[name]
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise WrongUse(f"{file} cannot be read ({error.strerror}): check its name.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise WrongUse(f"{file} is no YAML{f' in line {where.line + 1}' if where else ''}: correct it.") from error
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise WrongUse(f"{file} describes no cluster: its 'kind' must be one of {', '.join(KINDS)}.")
    blanks = [key for key, value in _values(document) if isinstance(value, str) and _BLANK.fullmatch(value)]
    if blanks:
        raise WrongUse(
            f"{file} is not filled in at {', '.join(dict.fromkeys(blanks))}: copy it, replace what is in <>, and name "
            f"the copy, as in 'cvjobs cluster up ./{file.name}'."
        )
    return document


def part(file: dict[str, Any], *places: str) -> dict[str, Any]:
    """Return a mapping within a cluster's file; raises WrongUse where there is none."""
    found: Any = file
    for place in places:
        found = found.get(place) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise WrongUse(f"The cluster's file has no mapping '{'.'.join(places)}': add it, as the shipped ones do.")
    return found


def _own(name: str) -> bool:
    return "/" in name or name.endswith(".yaml")


def _values(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _values(value, str(name))
    elif isinstance(tree, list):
        for value in tree:
            yield from _values(value, key)
    else:
        yield key, tree
