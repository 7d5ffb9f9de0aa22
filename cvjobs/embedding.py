"""The step of ``embed``: a model's vectors as a column, and what identifies them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs import models, resolving
from cvjobs.images import Pixels
from cvjobs.models import Embedder, Network
from cvjobs.records import Failure, Transform
from cvjobs.stage.steps import Columns

COLUMN = "embedding"


@dataclass(frozen=True, kw_only=True)
class EmbedOpener:
    """Which model makes the vectors, on which device; loads it in a worker."""

    model: str
    weights: str
    layer: str
    sha256: str
    dim: int
    transform: Transform
    device: str
    precision: str

    @property
    def results(self) -> pa.Schema:
        """One column of vectors, float32."""
        return pa.schema([pa.field(COLUMN, pa.list_(pa.field("item", pa.float32()), self.dim))])

    def open(self) -> Embed:
        """Load the model; raises JobFailed where its weights are not those that the run began with."""
        embedder = _embedder(self.model, self.weights, self.layer)
        resolving.check_weights(embedder, self.sha256)
        return Embed(embedder.load(self.device, self.precision))


class Embed:
    """A loaded network as a step of the Stage."""

    def __init__(self, network: Network) -> None:
        self._network = network

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


@lru_cache(maxsize=1)
def _embedder(model: str, weights: str, layer: str) -> Embedder:
    # The driver needs the model's facts before a worker in the same process loads it.
    return models.embedder(model, weights=weights, layer=layer)


def resolve(model: str, weights: str, layer: str, precision: str, earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the note on a choice of model, as ``resolving.resolve``, with ``dim``."""
    model = models.settled(model)
    return resolving.resolve(
        {"model": model, "weights": weights, "layer": layer},
        precision,
        earlier,
        lambda: _embedder(model, weights, layer),
        lambda embedder: {"dim": embedder.dim},
    )


def opener(note: dict[str, Any]) -> EmbedOpener:
    """Return the step that a resolved choice stands for."""
    asked = note["asked"]
    return EmbedOpener(
        model=asked["model"],
        weights=asked["weights"],
        layer=asked["layer"],
        sha256=note["facts"]["weights_sha256"],
        dim=note["dim"],
        transform=Transform.load(note["transform"]),
        device=asked["device"],
        precision=note["precision"],
    )
