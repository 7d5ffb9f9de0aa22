"""Running a step on a batch: what is too large goes in halves, and of what fails each image alone is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from cvjobs.common.errors import CvjobsError, JobFailed
from cvjobs.common.failures import Failure
from cvjobs.prediction.engine.batching import BatchSize
from cvjobs.prediction.engine.model_process import ModelDied
from cvjobs.prediction.engine.task import Columns

_LONGEST = 500  # characters of a detail

Piece = tuple[int, Columns]  # where it begins in its batch, and its results


class Inference:
    """A step that several threads call; ``results`` are the fields that it adds to a row."""

    def __init__(self, step: Callable[[Any], Columns], results: pa.Schema) -> None:
        self._step, self._results = step, results

    def __call__(self, images: Any, size: BatchSize, start: int = 0) -> list[Piece]:
        """Return the results of images in pieces; raises JobFailed where the step fails on every one of several."""
        count = len(images)
        try:
            return [(start, self._step(images))]
        except CvjobsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model raises, one image is to blame or the job
            code, detail = _blamed(error)
        # Tried again out here, because the traceback of the first error would keep its memory.
        if count == 1:
            nothing = [pa.nulls(1, field.type) for field in self._results]
            return [(start, Columns(nothing, {0: Failure("infer", code, detail)}))]
        if code == "oom":
            size.too_large(count)
            half = count // 2
            return self(images[:half], size, start) + self(images[half:], size, start + half)
        pieces = [piece for i in range(count) for piece in self(images[i : i + 1], size, start + i)]
        if all(columns.failures for _, columns in pieces):
            raise useless(detail)
        return pieces


def _blamed(error: Exception) -> tuple[str, str]:
    """Return the code and the detail of what a model raised."""
    if isinstance(error, ModelDied):
        return "worker_crash", str(error)[:_LONGEST]
    code = "oom" if isinstance(error, MemoryError) else "infer_error"
    return code, f"{type(error).__name__}: {error}".split("\n", 1)[0][:_LONGEST]


def useless(detail: str) -> JobFailed:
    """Return the error that ends a job whose model fails on every image."""
    return JobFailed(f"The model fails on every image ({detail}): try another --model or device.")
