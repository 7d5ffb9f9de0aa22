"""The one error that an image which cannot be decoded ends in."""

from __future__ import annotations


class Undecodable(Exception):
    """An image cannot be decoded; ``code`` is one of ``failures.CODES``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, " ".join(detail.split())[:500]
