"""Whether what is installed is what cvjobs needs, and whether the three torch packages belong together."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from cvjobs.operations.doctor.finding import Finding

# From here on the security fixes that cvjobs counts on are in: https://nvd.nist.gov, CVE-2026-24747 and CVE-2026-25087.
SAFE = {"torch": (2, 10), "pyarrow": (23, 0, 1)}
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*([^;]*)")


def check() -> Iterator[Finding]:
    """Look at Python, at each requirement of cvjobs, and at torch, torchvision and torchcodec together."""
    yield Finding.ok("versions", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    wrong = [finding for requirement in metadata.requires("cvjobs") or () for finding in _one(requirement)]
    yield from wrong
    if not wrong:
        yield Finding.ok("versions", "every package that cvjobs needs is installed, in a version that it works with")
    yield from _together()
    for name, least in SAFE.items():
        if (found := _installed(name)) and _numbers(found) < least:
            wanted = ".".join(map(str, least))
            fix = f"Install {name} {wanted} or newer: older ones can be made to run code by a file."
            yield Finding.broken("versions", f"{name} {found} has a known hole", fix)


def _one(requirement: str) -> Iterator[Finding]:
    """Look at one requirement, such as ``ray[data]>=2.55,<3``; markers of other machines and extras are left out."""
    named, _, marker = requirement.partition(";")
    other = ("win" in marker or "!=" in marker) and sys.platform == "linux" and platform.machine() == "x86_64"
    match = _REQUIREMENT.match(named.strip())
    if "extra" in marker or other or not match:
        return
    name, wanted = match[1], match[2].strip()
    found = _installed(name)
    if found is None:
        yield Finding.broken("versions", f"{name} is not installed", f"Run: python -m pip install '{named.strip()}'.")
    elif not all(_holds(found, part) for part in wanted.split(",") if part):
        fix = f"Run: python -m pip install '{named.strip()}'."
        yield Finding.broken("versions", f"{name} {found} is installed and cvjobs needs {wanted}", fix)


def _together() -> Iterator[Finding]:
    """Look whether the torch packages belong together: torchvision 0.N goes with torch 2.(N-15) as from 2.0 on."""
    torch, vision, codec = (_installed(name) for name in ("torch", "torchvision", "torchcodec"))
    if not torch or not vision or not codec:
        return
    fits = _numbers(torch)[0] == 2 and _numbers(vision)[:2] == (0, _numbers(torch)[1] + 15)
    if not fits:
        fix = "Install both in one command from one index, as in: python -m pip install --upgrade torch torchvision."
        yield Finding.broken("versions", f"torch {torch} and torchvision {vision} do not belong together", fix)
        return
    yield Finding.ok("versions", f"torch {torch}, torchvision {vision}, torchcodec {codec}")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _holds(found: str, condition: str) -> bool:
    """Return whether a version meets ``>=2.55`` or ``<3``, the two kinds that cvjobs uses."""
    match = re.fullmatch(r"\s*(>=|<)\s*([\d.]+)\s*", condition)
    if not match:
        return True
    here, there = _numbers(found), _numbers(match[2])
    return here >= there if match[1] == ">=" else here < there
