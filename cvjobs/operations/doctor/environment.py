"""Whether the variables that name folders and numbers name good ones: a container often has none, or another user's."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cvjobs.clusters import ray_folder
from cvjobs.common import devices
from cvjobs.config import working_folder
from cvjobs.operations.doctor.finding import Finding

CACHES = ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME")


def check() -> Iterator[Finding]:
    """Look at the home, at the folders of weights and of temporary files, at the user's name and at the threads."""
    found = [finding for look in (_home, _caches, _temporary, _user, _threads, _working) for finding in look()]
    yield from found
    if not found:
        yield Finding.ok("environment", "home, temporary files and threads are as they should be")


def _home() -> Iterator[Finding]:
    home = os.environ.get("HOME", "")
    why = "is not set" if not home else _unusable(home)
    if why:
        what = f"HOME {why}: downloaded weights and Ray's token have no place that stays"
        yield Finding.warning("environment", what, "Set HOME to a folder of yours, such as HOME=/tmp/home.")
    elif Path(home) == Path("/"):
        fix = "Set HOME to a folder of yours, such as HOME=/tmp/home."
        yield Finding.warning("environment", "HOME is /, where downloads and tokens are in everybody's way", fix)


def _caches() -> Iterator[Finding]:
    for name in CACHES:
        place = os.environ.get(name, "")
        if place and (why := _unusable(place, may_be_made=True)):
            yield Finding.warning(
                "environment", f"{name} {why}: no weights are kept there", f"Correct or unset {name}."
            )


def _temporary() -> Iterator[Finding]:
    named = os.environ.get("TMPDIR", "")
    if named and os.path.realpath(tempfile.gettempdir()) != os.path.realpath(named):
        what = f"TMPDIR names {named}, which cannot be written to: {tempfile.gettempdir()} is used instead"
        yield Finding.warning("environment", what, "Correct or unset TMPDIR.")
    if why := ray_folder.flaw(ray_folder.wanted()):
        what = f"Ray cannot have its files in {ray_folder.wanted() or 'TMPDIR, which is empty'}: it {why}"
        yield Finding.warning("environment", what, "Name a short folder with room in RAY_TMPDIR, such as /tmp.")


def _user() -> Iterator[Finding]:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            what = f"user {os.getuid()} has no name on this machine, which some libraries ask for"
            yield Finding.warning("environment", what, "Set USER to any name, such as USER=cvjobs.")


def _threads() -> Iterator[Finding]:
    told = os.environ.get("OMP_NUM_THREADS")
    if told is not None and devices.told_threads() is None:
        what = f"OMP_NUM_THREADS is {told!r}, which is no number of threads: it is not obeyed"
        yield Finding.warning("environment", what, "Set it to a whole number from 1 on, or unset it.")


def _working() -> Iterator[Finding]:
    if working_folder.was_deleted():
        fix = "Change into a folder that exists: names that do not begin with / are refused here."
        yield Finding.warning("environment", "the working folder was deleted", fix)


def _unusable(place: str, may_be_made: bool = False) -> str:
    """Return what is wrong with a folder that is to be written to, as the end of a sentence, "" for nothing."""
    path = Path(os.path.expanduser(place)) if may_be_made else Path(place)
    if not path.is_absolute():
        return f"is {place}, which does not begin with /"
    while may_be_made and not os.path.lexists(path) and path != path.parent:
        path = path.parent
    if not os.path.isdir(path):
        return f"is {place}, which is no folder"
    try:
        with tempfile.TemporaryFile(dir=path):
            return ""
    except OSError as error:
        return f"is {place}, which cannot be written to ({error.strerror})"
