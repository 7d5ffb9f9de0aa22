"""Tells the outcome of a night to a command of the user's: an argv list, the outcome as JSON on its standard input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cvjobs.common import progress
from cvjobs.operations.nightly.outcome import Outcome

LONGEST = 60.0


def tell(command: Sequence[str], outcome: Outcome, folder: Path) -> None:
    """Run the command in a folder; what goes wrong is said on stderr and changes nothing else."""
    content = json.dumps(outcome.as_dict()).encode()
    try:
        # What it prints goes to stderr: stdout is the night's own, perhaps as JSON.
        ended = subprocess.run(list(command), input=content, stdout=2, cwd=folder, timeout=LONGEST, check=False)
        why = f"it ended with exit code {ended.returncode}" if ended.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"it was still running after {LONGEST:g} s"
    except (OSError, ValueError) as error:
        why = f"it could not be run: {getattr(error, 'strerror', None) or error}"
    if why:
        progress.tell(f"the notify-command {command[0]} failed ({why}): the night is not affected.")
