"""Whether what is installed is what cvjobs needs, and whether torch and torchvision belong together."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from cvjobs.operations.doctor.finding import Finding

# From here on the security fixes that cvjobs counts on are in: https://nvd.nist.gov, CVE-2026-24747 and CVE-2026-25087.
SAFE = {"torch": "2.10", "pyarrow": "23.0.1"}


def check() -> Iterator[Finding]:
    """Look at Python, at each requirement of cvjobs, and at torch and torchvision together."""
    yield Finding.ok("versions", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    wrong = [finding for requirement in metadata.requires("cvjobs") or () for finding in _one(requirement)]
    yield from wrong
    if not wrong:
        yield Finding.ok("versions", "every package that cvjobs needs is installed, in a version that it works with")
    yield from _together()
    for name, least in SAFE.items():
        if (found := _installed(name)) and found < Version(least):
            fix = f"Install {name} {least} or newer: older ones can be made to run code by a file."
            yield Finding.broken("versions", f"{name} {found} has a known hole", fix)


def _one(text: str) -> Iterator[Finding]:
    """Look at one requirement, such as ``ray[data]>=2.55,<3``; those of other machines and of extras are left out."""
    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return
    requirement.marker = None
    found = _installed(requirement.name)
    fix = f"Run: python -m pip install '{requirement}'."
    if found is None:
        yield Finding.broken("versions", f"{requirement.name} is not installed", fix)
    elif not requirement.specifier.contains(found, prereleases=True):
        what = f"{requirement.name} {found} is installed and cvjobs needs {requirement.specifier}"
        yield Finding.broken("versions", what, fix)


def _together() -> Iterator[Finding]:
    """Look whether torchvision was made for this torch, as it says itself, and whether its operators can be called."""
    torch, vision, codec = (_installed(name) for name in ("torch", "torchvision", "torchcodec"))
    if not torch or not vision or not codec:
        return
    needed = [Requirement(text) for text in metadata.requires("torchvision") or ()]
    reasons = [f"it needs {r}" for r in needed if r.name == "torch" and not r.specifier.contains(torch.public, True)]
    if not reasons and not _operators():
        reasons = ["its operators cannot be called"]
    if reasons:
        what = f"torch {torch} and torchvision {vision} do not belong together: {reasons[0]}"
        fix = f"Run: python -m pip install --force-reinstall 'torchvision=={vision}'."
        yield Finding.broken("versions", what, fix)
        return
    yield Finding.ok("versions", f"torch {torch}, torchvision {vision}, torchcodec {codec}")


def _operators() -> bool:
    try:
        import torch
        import torchvision  # noqa: F401 - registers them

        return callable(torch.ops.torchvision.nms)
    except (ImportError, AttributeError, RuntimeError, OSError):
        return False


def _installed(name: str) -> Version | None:
    try:
        return Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None
