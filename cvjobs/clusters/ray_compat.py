"""What Ray prints on stdout of machines that are lost, whatever ``log_to_driver`` says; it has no switch for it."""

from __future__ import annotations

from typing import Any

VERSIONS = {"ray": ("2.60",)}


def let_print(ray: Any, may: bool) -> None:
    """Let the module ``ray`` print of its workers and machines, or not."""
    ray._private.worker._worker_logs_enabled = may  # Ray's debugger does the same
