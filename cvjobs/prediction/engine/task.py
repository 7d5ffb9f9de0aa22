"""What a job brings to the engine: a step that turns a batch of pixels into columns of results.

There are two kinds: a ``Step`` takes images that the transform brought to one size, a ``PictureStep`` images that
have each a size of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from cvjobs.common.failures import Failure
from cvjobs.images.picture import Picture, Pixels
from cvjobs.images.transform import Transform


@dataclass(frozen=True)
class Columns:
    """The results of one batch: one Arrow array per field of the schema, and failures by position in the batch."""

    arrays: list[pa.Array]
    failures: dict[int, Failure] = field(default_factory=dict)


class Step(Protocol):
    """A loaded model with its post-processing; several threads call it at once."""

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the results of a batch, uint8 (count, height, width, 3); MemoryError where it is too large."""


@runtime_checkable
class PictureStep(Protocol):
    """A loaded model with its post-processing, for images of any size; several threads call it at once."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in which the model sees decoded pixels of that size; equal ones share a batch."""

    def __call__(self, pictures: Sequence[Picture]) -> Columns:
        """Return the results of pictures of equal shape; MemoryError where they are too many."""


class Opener(Protocol):
    """A small record that travels to workers and loads the step there."""

    @property
    def transform(self) -> Transform:
        """How images are brought to the step's size; without a size, the step is a ``PictureStep``."""

    @property
    def results(self) -> pa.Schema:
        """The fields that the step adds to a row."""

    def open(self) -> Step | PictureStep:
        """Load the model; raises WrongUse or JobFailed with a sentence where that is impossible."""


@runtime_checkable
class Separable(Protocol):
    """An opener whose model may be in another process than the step: ``open()`` is ``around(network())``."""

    def network(self) -> Any:
        """Load the model's network alone; raises as ``Opener.open``.

        It has the step's ``shape`` where that is a ``PictureStep``, and may have ``pin`` and ``unpin``, which are given
        the memory of batches, uint8, when it comes and before it goes; ``pin`` returns whether the system allowed it.
        """

    def around(self, network: Any) -> Step | PictureStep:
        """Return the step that computes with a network, or with what is called like it and stands for it."""
