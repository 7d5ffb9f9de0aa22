"""One command of a night in a process that ends with the night's: ``python -P child.py PARENT WORD...``.

Run as a file: nothing of the folder in which a pipeline lies is imported by accident.
"""

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path

_DIE_WITH_PARENT = 1


def main() -> None:
    """Become ``cvjobs WORD...``; a night that is killed leaves no command behind that still holds its output."""
    parent, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    root = str(Path(__file__).resolve().parents[3])
    if root not in sys.path:  # the cvjobs of the night's own process, also where it is a checkout
        sys.path.insert(0, root)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    sys.argv = ["cvjobs", *words]
    runpy.run_module("cvjobs", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
