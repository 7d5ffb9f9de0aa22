"""The page of an evaluation, from its numbers and from what the task has to show beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cvjobs.common.formatting import shortened
from cvjobs.evaluation.result import Evaluation, figure
from cvjobs.html import charts, render

COLOURS = (2, 5, 3)
CLASSES = 200
NUMBERS = 40


@dataclass(frozen=True, kw_only=True)
class EvalSheet:
    """Pictures under a title and a sentence."""

    title: str
    words: str
    pictures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Show:
    """What a page shows beside the numbers.

    ``curves`` are (recall, precision) points by name; ``heat`` and ``confusions`` are those of ``confusion_tables``;
    ``matrix_words`` says what is counted there; ``primary`` is the column that classes are sorted by, lowest first.
    """

    primary: str
    matrix_words: str
    heat: Mapping[str, Any] | None
    confusions: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    sheets: Sequence[EvalSheet] = ()


def page(found: Evaluation, show: Show, original: Callable[[str], str] | None = None) -> str:
    """Return the page as HTML; ``original`` makes an image's path the address of the image itself."""
    classes = sorted(found.classes, key=lambda c: (c[show.primary] in (None, -1), c[show.primary] or 0))
    return render.render(
        "eval.html",
        found=found,
        show=show,
        metrics=[(figure(found.metrics[name]), name.replace("_", " ")) for name in found.headline],
        classes=[
            (c["name"], [figure(c[name]) for name in found.columns], max(c[show.primary] or 0, 0))
            for c in classes[:CLASSES]
        ],
        numbers=_numbers(found.more.get("classes_fit")),
        most_numbers=NUMBERS,
        more_classes=max(len(classes) - CLASSES, 0),
        curves=charts.square(show.curves, COLOURS),
        chart=charts,
        made=time.time(),
        **({"original": original} if original else {}),
    )


def _numbers(fit: Mapping[str, Any] | None) -> list[tuple[int, str, str]]:
    """Return what each number is called on both sides where classes fit by number; see ``Numbered.record``."""
    if fit is None:
        return []
    said, there = dict(fit["predictions"]), dict(fit["truth"])
    names = {id_: shortened(name or "is there, without a name") for id_, name in there.items()}
    return [(id_, shortened(said.get(id_, "no class")), names.get(id_, "–")) for id_ in sorted({*said, *there})]
