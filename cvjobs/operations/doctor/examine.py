"""What `cvjobs doctor` looks at: a module a subject, each with `check()` that yields findings; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cvjobs.common import plugins
from cvjobs.operations.doctor.finding import Finding

SUBJECTS = ("library_versions", "switches", "environment", "token", "ports", "gpus", "faiss", "decoders", "machine")


class Check(Protocol):
    """A module of this package that looks at something."""

    def check(self) -> Iterator[Finding]:
        """Yield what was found, the good as well."""


def findings() -> Iterator[Finding]:
    """Look at everything; a check that cannot look is a finding itself."""
    for name in SUBJECTS:
        try:
            subject: Check = plugins.load("cvjobs.operations.doctor", "subject", name, SUBJECTS)
            yield from subject.check()
        except Exception as error:  # noqa: BLE001 - the other checks are wanted most where one cannot run
            cause = error.__cause__ or error if isinstance(error, plugins.BrokenPlugin) else error
            why = f"{type(cause).__name__}: {cause}".split("\n", 1)[0]
            yield Finding.broken(name, f"could not be checked ({why})", "Install cvjobs anew into a fresh environment.")
