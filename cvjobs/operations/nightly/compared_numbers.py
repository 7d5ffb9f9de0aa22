"""The numbers of a step beside those of the night before, as a page shows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cvjobs.common import formatting
from cvjobs.operations.nightly.record import StepRecord
from cvjobs.prediction.report.findings import REMEMBERED

CLASSES = 12
# Numbers that say how a command was set or named, not what the night was like.
_SETTINGS = frozenset(
    {"exit_code", "version", "generation", "dim", "k", "min_score", "target_recall", "nprobe", "rerank"}
)
_WORDS = {
    "count": "vectors",
    "images_per_second": "images a second",
    "recall": "recall@10",
    "members": "images in groups",
    "exact": "exact copies",
    "surplus": "in all but the first",
}
_COUNTS = ("failures", "skipped_by")  # of what happened; what is not among them did not happen
_SHOWN: dict[str, Callable[[float], str]] = {
    "seconds": formatting.duration,
    "bytes": formatting.size,
    "memory": formatting.size,
    "surplus": formatting.size,
}


@dataclass(frozen=True, kw_only=True)
class ComparedNumber:
    """One number of a step: ``then`` and ``difference`` are "–" where the night before has none or the same one."""

    what: str
    then: str
    now: str
    difference: str


def rows(work: StepRecord, before: StepRecord | None) -> list[ComparedNumber]:
    """Return what a step told and measured beside an earlier one; nothing of a step that told nothing."""
    if not work.summary:
        return []
    now, then = _numbers(work), _numbers(before) if before else {}
    for key in _COUNTS:
        _absent_is_none(work, key, now, then)
        if before:
            _absent_is_none(before, key, then, now)
    found = [
        _row(_WORDS.get(what, what), then.get(what), number, _SHOWN.get(what))
        for what, number in now.items()
        if number or then.get(what)
    ]
    return [*found, *_classes(work, before)]


def _absent_is_none(work: StepRecord, key: str, mine: dict[str, float], others: dict[str, float]) -> None:
    """Count as 0 what another night counts under ``key`` and this step, which counts such things, does not."""
    if isinstance(work.summary.get(key), dict):
        for name in others:
            if name.startswith(f"{_word(key)}: "):
                mine.setdefault(name, 0.0)


def _classes(work: StepRecord, before: StepRecord | None) -> list[ComparedNumber]:
    """Return the most frequent classes of both nights; one that a full record does not mention is not known."""
    now, then = _by_class(work), _by_class(before)
    if now is None:
        return []
    absent = None if then is None or len(then) >= REMEMBERED else 0.0
    then = then or {}
    names = {**now, **then} if len(now) < REMEMBERED else now
    most = sorted(names, key=lambda name: (-max(now.get(name, 0.0), then.get(name, 0.0)), name))
    return [_row(name, then.get(name, absent), now.get(name, 0.0)) for name in most[:CLASSES]]


def _by_class(work: StepRecord | None) -> dict[str, float] | None:
    found = work.summary.get("classes") if work else None
    return found if isinstance(found, dict) else None  # a training tells how many there are


def _numbers(work: StepRecord) -> dict[str, float]:
    """Return what a step's summary counts and measures, by its name."""
    found: dict[str, float] = {}
    for key, value in {**work.summary, "seconds": work.seconds}.items():
        if key == "phases" or (key.endswith("_per_second") and not value):
            continue  # phases are on the step's page; 0 is no rate
        name = key if key in _WORDS else _word(key)
        if isinstance(value, dict) and key != "classes":  # which have rows of their own
            own = "" if key == "found" else f"{name}: "
            found |= {f"{own}{_word(inner)}": float(number) for inner, number in value.items() if _is_number(number)}
        elif _is_number(value) and key not in _SETTINGS:
            found[name] = float(value)
    return found


def _word(key: str) -> str:
    return key.replace("_", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _row(what: str, then: float | None, now: float, shown: Callable[[float], str] | None = None) -> ComparedNumber:
    shown = shown or _with_decimals(_decimals(then or 0.0, now))
    before, after = "–" if then is None else shown(then), shown(now)
    difference = "–"
    if then is not None and before != after:
        difference = f"{'+' if now > then else '-'}{shown(abs(now - then))}"
    return ComparedNumber(what=what, then=before, now=after, difference=difference)


def _with_decimals(decimals: int) -> Callable[[float], str]:
    return lambda number: f"{number:z,.{decimals}f}" if math.isfinite(number) else "–"


def _decimals(*numbers: float) -> int:
    """Return with how many decimals numbers that stand beside each other are written: three or four digits in all."""
    if all(number == round(number) for number in numbers if math.isfinite(number)):
        return 0
    largest = max(abs(number) for number in numbers if math.isfinite(number))
    return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest > 1 else 4
