"""Fields of JSON records as tools write them: ids exactly, however large or spelt, and numbers that must be there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, refuse
from cvjobs.evaluation.metrics.objects import Id, Ints

Record = dict[str, Any]
LARGEST_ID = 1 << 62
LARGEST_WHOLE = 1 << 64  # of an id that only names something
SHOWN = 80  # letters of what a file holds in a sentence
EXACT = 1 << 53  # floats below hold every whole number
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,19})")


def load(path: Path) -> Any:
    """Return the content of a JSON file; raises BadTruth where it is none."""
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise BadTruth(path, error.lineno, f"is no JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, a nest of brackets
        raise BadTruth(path, None, f"is no JSON that can be read ({type(error).__name__})") from error
    except OSError as error:
        raise BadTruth(path, None, f"cannot be read ({error.strerror})") from error


def sound(records: Sequence[Record], read: Callable[[list[Record]], Any], bad: Complaint) -> list[Record]:
    """Return the records that make sense to ``read``, which raises BadTruth; ``bad`` is told of each of the others.

    Halves are read until what is wrong is found: a few wrong ones cost little.
    """

    def sift(some: list[Record], first: int) -> list[Record]:
        try:
            read(some)
        except BadTruth as error:
            if bad is refuse:
                raise
            if len(some) > 1:
                half = len(some) // 2
                return [*sift(some[:half], first), *sift(some[half:], first + half)]
            error.record = first + 1
            bad(error)
            return []
        return some

    return sift(list(records), 0)


def ids(path: Path, records: Sequence[Record], what: str, key: str) -> list[Id]:
    """Return what identifies something in each record, (n,); raises BadTruth that names the first record without.

    A whole number is an integer, also as ``7.0`` or ``"7"``; other text stays text.
    """
    given: list[Any] = [record.get(key) if isinstance(record, dict) else None for record in records]
    if (
        set(map(type, given)) <= {int}
        and -LARGEST_WHOLE < min(given, default=0) <= max(given, default=0) < LARGEST_WHOLE
    ):
        return given
    found = [identity(value) for value in given]
    if None in found:
        raise _unusable(path, records, what, key, found.index(None))
    return [value for value in found if value is not None]


def identity(value: Any) -> Id | None:
    """Return what a value identifies: a whole number, also as ``7.0`` or ``"7"``, or text; None for nothing."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _WHOLE.fullmatch(text) and abs(int(text)) < LARGEST_WHOLE else text or None
    if isinstance(value, int):
        return int(value) if abs(value) < LARGEST_WHOLE else None
    if isinstance(value, float) and value.is_integer():
        # Above that, digits are lost: equal to what lost the same ones, and to no integer.
        return int(value) if abs(value) < EXACT else repr(value)
    return None


def numbers(path: Path, records: Sequence[Record], what: str, key: str) -> Ints:
    """Return ids that are integers (n,); raises BadTruth that names the first record without one."""
    found = ids(path, records, what, key)
    for at, value in enumerate(found):
        if isinstance(value, str) or abs(value) >= LARGEST_ID:
            raise _unusable(path, records, what, key, at)
    return np.array(found, np.int64)


def positions(path: Path, known: Mapping[Id, int], found: Sequence[Id], what: str) -> Ints:
    """Return where ids are (n,); raises BadTruth for the first that is not known."""
    at = [known.get(value, -1) for value in found]
    if -1 in at:
        at = [place_of(known, value) for value in found]
        if -1 in at:
            unknown = repr(found[at.index(-1)])[:SHOWN]
            words = f"has an annotation with the {what} {unknown}, which it does not describe"
            raise BadTruth(path, None, words, "id_unknown" if what == "image_id" else "class_unknown")
    return np.array(at, np.int64)


def place_of(known: Mapping[Id, int], value: Id) -> int:
    """Return where an id is, also one with zeros before its digits, or -1."""
    place = known.get(value, -1)
    if place < 0 and isinstance(value, str) and value.isascii() and value.isdigit():
        return known.get(int(value), -1)
    return place


def column(path: Path, records: Sequence[Record], what: str, key: str, kind: type, default: Any = None) -> Any:
    """Return one number of each record, (n,), ``default`` for null and for none; raises BadTruth that names the first.

    A number may be written as text.
    """
    try:
        given = [record.get(key) for record in records]
        values = np.array([default if value is None else value for value in given], np.float64)
        if values.ndim == 1 and np.isfinite(values).all() and (np.abs(values) < LARGEST_ID).all():
            return values.astype(kind)
    except (AttributeError, OverflowError, TypeError, ValueError):
        pass
    bad = next(n for n, r in enumerate(records) if not isinstance(r, dict) or not _number(r.get(key), default))
    raise _unusable(path, records, what, key, bad)


def _number(value: Any, default: Any) -> bool:
    try:
        number = np.array(default if value is None else value, np.float64)
        return bool(number.ndim == 0 and np.abs(number) < LARGEST_ID)
    except (OverflowError, TypeError, ValueError):
        return False


def _unusable(path: Path, records: Sequence[Record], what: str, key: str, at: int) -> BadTruth:
    return BadTruth(path, None, f"has no usable '{key}' in {what} {at + 1} of {len(records):,}")
