"""The step of ``embed``: a model's vectors as a column, and what identifies them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cvjobs.common.failures import Failure
from cvjobs.images.picture import Pixels
from cvjobs.networks import registry
from cvjobs.networks.registry import Embedder, Network
from cvjobs.prediction.engine.task import Columns
from cvjobs.prediction.model_choice import ModelRecord, ModelRequest, once

COLUMN = "embedding"


@dataclass(frozen=True, kw_only=True)
class EmbedRequest(ModelRequest[Embedder]):
    """Which model makes the vectors; ``layer`` is the module whose pooled output they are, empty for the last."""

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

    def step(self, model: Embedder, record: ModelRecord) -> EmbedStep:
        """See ``ModelRequest``."""
        return EmbedStep(model.load(record.device, record.precision))


class EmbedStep:
    """A loaded network as a step of the engine."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def image_bytes(self) -> int:
        """See ``headroom.Sized``."""
        return int(getattr(self._network, "image_bytes", 0))

    def batch(self, count: int) -> Pixels:
        """Return a buffer for ``count`` images, uint8 (count, height, width, 3)."""
        return self._network.batch(count)

    def __call__(self, pixels: Pixels) -> Columns:
        """Return the vectors of a batch; one that is not finite is a failure."""
        vectors = self._network(pixels)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        finite = np.isfinite(vectors).all(axis=1)
        failure = Failure("infer", "infer_nonfinite", "the vector holds NaN or infinity")
        return Columns([column], {int(i): failure for i in np.flatnonzero(~finite)})
