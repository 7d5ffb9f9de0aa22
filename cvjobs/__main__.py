"""``python -m cvjobs`` is the command ``cvjobs``, which can be stopped from here on: imports take most of its start."""

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from cvjobs.common import malloc, phases, signals


def main() -> int:
    """Run the command line of this process and return its exit code."""
    phases.begin()
    signals.begin()
    malloc.one_heap()
    from cvjobs import cli

    return cli.main()


def command() -> NoReturn:
    """Run the command line and end the process; the interpreter is not taken apart, which after torch takes seconds."""
    code = main()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # of which the command line has told
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
