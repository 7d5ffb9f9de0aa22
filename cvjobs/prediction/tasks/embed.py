"""The step of ``embed``: a model's vectors as a column, and what identifies them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common.failures import Failure
from cvjobs.images.picture import Pixels
from cvjobs.networks import registry
from cvjobs.networks.registry import Embedder
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.model_choice import ModelRecord, ModelRequest, once
from cvjobs.prediction.tasks.network_step import NetworkStep

COLUMN = "embedding"


@dataclass(frozen=True, kw_only=True)
class EmbedRequest(ModelRequest[Embedder]):
    """Which model makes the vectors; ``layer`` is the module whose pooled output they are, empty for the last."""

    task = "embed"

    layer: str

    def find(self) -> Embedder:
        """See ``ModelRequest``."""
        return once(registry.embedder, self.model, weights=self.weights, layer=self.layer)

    def completed(self, record: ModelRecord, model: Embedder) -> ModelRecord:
        """Return the record with the length of the vectors."""
        return replace(record, dim=model.dim)

    def results(self, record: ModelRecord) -> pa.Schema:
        """Return the field of one column of vectors, float32."""
        return pa.schema([pa.field(COLUMN, pa.list_(pa.field("item", pa.float32()), record.dim))])

    def step(self, model: Embedder, network: Any, record: ModelRecord) -> EmbedStep:
        """See ``ModelRequest``."""
        del model, record
        return EmbedStep(network)


class EmbedStep(NetworkStep):
    """A loaded network as a step of the engine."""

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the vectors of a batch; one that is not finite is a failure."""
        vectors = self._network(pixels)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        finite = np.isfinite(vectors).all(axis=1)
        failure = Failure("infer", "infer_nonfinite", "the vector holds NaN or infinity")
        return Columns([column], {int(i): failure for i in np.flatnonzero(~finite)})
