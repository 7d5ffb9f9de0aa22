"""What may not be read, which is the failure of an image and ends no command."""

from __future__ import annotations

import errno


class Refused(PermissionError):
    """What a list may not lead to, or a file that may not be read."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)
