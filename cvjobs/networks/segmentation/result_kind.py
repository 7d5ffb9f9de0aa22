"""Which kind of results a segmenter gives: a class for every pixel, or objects; of some models a user can choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from cvjobs.common import categories
from cvjobs.common.errors import WrongUse

if TYPE_CHECKING:
    from cvjobs.networks.registry import PictureModel

Kind = Literal["semantic", "instance"]
_IN_WORDS = {"semantic": "a class for every pixel", "instance": "objects"}


@runtime_checkable
class Versatile(Protocol):
    """A segmenter that has several kinds of results, or knows that it has one."""

    @property
    def kinds(self) -> Sequence[Kind]:
        """Those that it has, first what it is for."""

    def of_kind(self, kind: Kind) -> Any:
        """Return the model with results of one of them."""


def chosen(model: PictureModel, kind: Kind) -> PictureModel:
    """Return a model with results of a kind; raises WrongUse where it has none of it."""
    if isinstance(model, Versatile) and kind in model.kinds:
        found: PictureModel = model.of_kind(kind)
        return found
    own = categories.task(model.facts)
    if own == kind:
        return model
    raise WrongUse(f"{model.name} gives {_IN_WORDS[own]} only: leave out --kind, or choose another --model.")
