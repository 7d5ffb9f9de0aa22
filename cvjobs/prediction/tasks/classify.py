"""The step of ``classify``: the likeliest classes of an image as columns, and what identifies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common.failures import Failure
from cvjobs.dataset.schema import GUESS, SCHEMAS
from cvjobs.images.picture import Pixels
from cvjobs.networks import registry
from cvjobs.networks.registry import Classifier, Network
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.model_choice import ModelRecord, ModelRequest, once
from cvjobs.prediction.tasks.network_step import NetworkStep

SCHEMA = SCHEMAS["classify"]


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest(ModelRequest[Classifier]):
    """Which model names the classes: ``labels`` where they are given, and how many of them are wanted of an image."""

    task = "classify"

    labels: tuple[str, ...]
    top: int

    def find(self) -> Classifier:
        """See ``ModelRequest``."""
        return once(registry.classifier, self.model, weights=self.weights, labels=self.labels)

    def completed(self, record: ModelRecord, model: Classifier) -> ModelRecord:
        """Return the record with the number of classes kept of an image."""
        return replace(record, top=min(self.top, len(model.labels)))

    def step(self, model: Classifier, network: Any, record: ModelRecord) -> ClassifyStep:
        """See ``ModelRequest``."""
        assert record.top is not None, "``completed`` says how many"
        return ClassifyStep(network, model.labels, record.top, several=model.activation == "sigmoid")


class ClassifyStep(NetworkStep):
    """A loaded network as a step of the engine."""

    def __init__(self, network: Network, labels: Sequence[str], top: int, *, several: bool) -> None:
        super().__init__(network)
        self._several, self._top = several, top
        self._labels = pa.array(labels, pa.string())

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the likeliest classes of a batch; an image whose logits are not finite is a failure."""
        logits = self._network(pixels)
        finite = np.isfinite(logits).all(axis=1)
        failure = Failure("infer", "infer_nonfinite", "the scores of the classes hold NaN or infinity")
        logits = np.where(finite.reshape(-1, 1), logits, np.float32(0))
        return Columns(self._columns(logits), {int(i): failure for i in np.flatnonzero(~finite)})

    def _columns(self, logits: NDArray[np.float32]) -> list[pa.Array]:
        indices, scores = best(logits, self._top, several=self._several)
        first = np.arange(0, indices.size + 1, self._top, dtype=np.int32)
        labels, values = self._labels.take(pa.array(indices.ravel())), pa.array(scores.ravel())
        guesses = pa.StructArray.from_arrays([labels, values], fields=list(GUESS))
        top = pa.ListArray.from_arrays(pa.array(first), guesses, type=SCHEMA.field("top").type)
        return [labels.take(pa.array(first[:-1])), values.take(pa.array(first[:-1])), top]


def best(logits: NDArray[np.float32], count: int, *, several: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the classes (B, count) of the highest finite logits (B, K), best first, and their probabilities, float32.

    Of equal ones the first class is the better. ``several``: each class has a probability of its own (sigmoid), else
    those of all classes sum to 1 (softmax).
    """
    least = -np.partition(-logits, count - 1, axis=1)[:, count - 1 : count]
    above, equal = logits > least, logits == least
    equal &= equal.cumsum(axis=1) <= count - above.sum(axis=1, keepdims=True)
    indices = np.nonzero(above | equal)[1].reshape(-1, count)
    order = np.argsort(-np.take_along_axis(logits, indices, axis=1), axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    chosen = np.take_along_axis(logits, indices, axis=1)
    if several:
        return indices, np.exp(-np.logaddexp(0, -chosen))
    highest = chosen[:, :1]
    return indices, np.exp(chosen - highest) / np.exp(logits - highest).sum(axis=1, keepdims=True)
