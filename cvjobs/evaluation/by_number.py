"""Classes that fit by number alone, as a truth has no names of its own: both lists as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cvjobs.common import class_labels
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.align import named

SHOWN = 6
LABELS = "--labels FILE names the truth's"
REMEDIES = {
    "coco": "name the categories of the truth",
    "panoptic": "name the categories of the truth",
    "table": "write names for the numbers in the truth",
    "folders": "name the folders of the truth",
}


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """The classes of predictions, and those numbers that a truth holds, with a name where a file beside it has one.

    ``remedy`` says how a person gives the truth names.
    """

    predictions: Sequence[Category]
    truth: Sequence[Category]
    remedy: str


def of(predictions: Sequence[Category], truth: Sequence[Category], format_: str) -> Numbered | None:
    """Return both lists where a truth of that format has no names; None where the predictions have none either."""
    if not any(category.name for category in predictions):
        return None
    return Numbered(predictions=predictions, truth=truth, remedy=REMEDIES.get(format_, LABELS))


def notes(numbered: Numbered | None) -> list[str]:
    """Return sentences on what fits what, and on numbers that are no class of the predictions."""
    if numbered is None:
        return []
    known = {category.id for category in numbered.predictions}
    strange = [_title(category) for category in numbered.truth if category.id not in known]
    said = [
        f"classes fit by number, as the truth has no names: the predictions have {_some(numbered.predictions)}, "
        f"the truth {_some(numbered.truth)}; {numbered.remedy}"
    ]
    if strange:
        said.append(f"numbers of the truth that are no class of the predictions: {named(strange)}")
    return said


def record(numbered: Numbered | None) -> dict[str, Any]:
    """Return both lists whole for ``eval.json``, as ``classes_fit``; nothing where classes fit by name."""
    if numbered is None:
        return {}
    lists = {
        "predictions": [[category.id, category.name] for category in numbered.predictions],
        "truth": [[category.id, category.name or None] for category in numbered.truth],
    }
    return {"classes_fit": {"by": "number", **lists}}


def check(predictions: Sequence[Category], truth: Sequence[Category], file: str) -> None:
    """Raise WrongUse where the names that a file has for a truth's numbers are not those of the predictions.

    Names that both have must have the same numbers, and there must be one. Case, blanks and ``_`` make no difference.
    """
    given = {class_labels.spelling(category.name): category for category in predictions}
    both = [(given[name], own) for own in truth if (name := class_labels.spelling(own.name)) in given]
    other = next(((one, own) for one, own in both if one.id != own.id), None)
    if both and other is None:
        return
    why = "no name is in both"
    if other is not None:
        why = f"{other[0].name!r} is {other[0].id} in the predictions and {other[1].id} there"
    raise WrongUse(
        f"The classes of the predictions ({_some(predictions, 3)}) are not those of {file} ({_some(truth, 3)}): {why}; "
        f"give --labels {file} and they fit by name, or --labels with names for the truth's numbers."
    )


def _title(category: Category) -> str:
    return f"{category.id} {category.name}".strip()


def _some(categories: Sequence[Category], most: int = SHOWN) -> str:
    return named([_title(category) for category in categories], most)
