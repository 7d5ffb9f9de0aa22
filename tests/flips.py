"""Single bits that flip in the metadata of a folder: JSON, small tables, the headers of larger files."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cvjobs
from cvjobs.common.errors import CvjobsError

COUNT = int(os.environ.get("CVJOBS_TEST_FLIPS", "0"))  # how many instead of a test's own number
HEADER = 4096  # bytes of a larger file that count as its header, and of a table as its footer


@dataclass(frozen=True)
class Flip:
    """One bit of a file."""

    file: Path
    bit: int

    def __str__(self) -> str:
        return f"bit {self.bit % 8} of byte {self.bit // 8} of {self.file.name}"


def flips(folder: Path, count: int, seed: int, *, besides: tuple[str, ...] = ()) -> Iterator[Flip]:
    """Yield flips, as many of each file; files of a folder or with an ending that is named in ``besides`` have none."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size and not {*path.relative_to(folder).parts, path.suffix} & {*besides}
    )
    chosen = random.Random(seed)
    for number in range(COUNT or count):
        file = files[number % len(files)]
        size = file.stat().st_size
        first = size - HEADER if file.suffix == ".parquet" and size > HEADER else 0
        yield Flip(file, chosen.randrange(8 * first, 8 * min(first + HEADER, size)))


@contextmanager
def flipped(flip: Flip) -> Iterator[None]:
    """Have the bit flipped, and flip it back."""
    content = bytearray(flip.file.read_bytes())
    content[flip.bit // 8] ^= 1 << flip.bit % 8
    whole = flip.file.read_bytes()
    flip.file.write_bytes(content)
    try:
        yield
    finally:
        flip.file.write_bytes(whole)


@dataclass
class Tally:
    """What became of flips: ``named`` by `cvjobs verify`, and those that it passed, which changed no meaning."""

    named: int = 0
    refused: int = 0
    passed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def count(self, flip: Flip, place: Path, meaning: Callable[[], Any], before: Any, *, every: int = 1) -> None:
        """Verify a folder, and compare what it means; an exception that is no CvjobsError is the test's.

        Of those that were named ``every`` one is compared.
        """
        named = bool(said(lambda: cvjobs.verify(str(place)).exit_code))
        total = self.named + len(self.passed)
        now = said(meaning) if not named or total % every == 0 else before
        self.named += named
        self.refused += isinstance(now, CvjobsError)
        if not named:
            self.passed.append(str(flip))
            if now != before:
                self.wrong.append(str(flip))

    def __str__(self) -> str:
        total = self.named + len(self.passed)
        return f"{total} flips: {self.named} named, {len(self.passed)} without a meaning passed, {self.refused} refused"


def said(work: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error that a user can cause that it raised."""
    try:
        return work()
    except CvjobsError as error:
        return error
