"""The tables of tests that try numbers on both sides of a data type's limit."""

from __future__ import annotations

from collections.abc import Callable

from cvjobs.common.errors import CvjobsError

RIGHT, REFUSED = "right", "refused: "


def said(number: Callable[[], str]) -> str:
    """What comes of a case: ``right`` or what is wrong, or the sentence by which it is refused."""
    try:
        return number()
    except CvjobsError as error:
        return REFUSED + str(error)


def shown(title: str, rows: list[tuple[str, int, str]]) -> None:
    print(f"\n{title}")
    for what, number, outcome in rows:
        print(f"{what:32} {number:>32,}  {outcome[:110]}")
