"""Runs of the dataset layer in which the operating system fails once, at the n-th call of those that write.

``python faulty.py SOURCE SEED OUT STEP kill|eio|enospc OPTIONS`` starts each run from a copy of the output SEED,
runs again without a fault and checks the output; it ends when a run is through before the n-th call, and prints n.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy import Toy

from cvjobs.common.errors import CvjobsError

CALLS = ("write", "fsync", "replace", "link", "unlink")
ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}


class Fault:
    """Counts the calls and fails the n-th one."""

    def __init__(self, at: int, mode: str) -> None:
        self.at, self.mode, self.seen = at, mode, 0

    def wrap(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.seen += 1
            if self.seen != self.at:
                return real(*arguments, **named)
            if self.mode != "kill":
                raise OSError(ERRORS[self.mode], os.strerror(ERRORS[self.mode]))
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])  # as a kill in the middle does
            os._exit(137)

        setattr(os, name, call)


def attempt(toy: Toy, options: dict[str, Any], at: int, mode: str) -> int:
    """Return 0 where the fault did no harm, 1 where it came out as one sentence, 3 where it was not reached."""
    fault = Fault(at, mode)
    for name in CALLS:
        fault.wrap(name)
    try:
        toy.run(**options)
    except CvjobsError as error:
        sentence = str(error)
        return 1 if fault.seen >= at and "\n" not in sentence and sentence.endswith(".") else 4
    return 0 if fault.seen >= at else 3


def forked(toy: Toy, options: dict[str, Any], at: int, mode: str) -> int:
    """Make an attempt in a child process and return its exit code; 5 after a traceback."""
    child = os.fork()
    if child == 0:
        code = 5
        try:
            code = attempt(toy, options, at, mode)
        except BaseException:  # noqa: BLE001 - shown, and told by the exit code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sweep(toy: Toy, seed: Path, step: int, mode: str, options: dict[str, Any]) -> None:
    at = 1
    while True:
        if seed.exists():
            shutil.copytree(seed, toy.out)
        code = forked(toy, options, at, mode)
        assert code in ((137, 3) if mode == "kill" else (0, 1, 3)), f"call {at}, {mode}: exit {code}"
        toy.run(**options)
        toy.check()
        shutil.rmtree(toy.out)
        if code == 3:
            print(at)
            return
        at += step


if __name__ == "__main__":
    source, seed, out, step, mode, options = sys.argv[1:]
    sweep(Toy(Path(source), Path(out), every=2), Path(seed), int(step), mode, json.loads(options))
