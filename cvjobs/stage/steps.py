"""What a job brings to the Stage: a step that turns a batch of pixels into columns of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from cvjobs.images import Pixels
from cvjobs.records import Failure, Transform


@dataclass(frozen=True)
class Columns:
    """The results of one batch: one Arrow array per field of the schema, and failures by position in the batch."""

    arrays: list[pa.Array]
    failures: dict[int, Failure] = field(default_factory=dict)


class Step(Protocol):
    """A loaded model with its post-processing; several threads call it at once."""

    def batch(self, count: int) -> Pixels:
        """Return a buffer for ``count`` images, uint8 (count, height, width, 3)."""

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the results of a batch, uint8 (count, height, width, 3); MemoryError where it is too large."""


class Opener(Protocol):
    """A small record that travels to workers and loads the step there."""

    @property
    def transform(self) -> Transform:
        """How images are brought to the step's size."""

    @property
    def results(self) -> pa.Schema:
        """The fields that the step adds to a row."""

    def open(self) -> Step:
        """Load the model; raises WrongUse or JobFailed with a sentence where that is impossible."""
