"""The step of ``embed``: a model's vectors as a column, and what identifies them."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs import devices, models
from cvjobs.errors import JobFailed
from cvjobs.images import Pixels
from cvjobs.models import Embedder, Network
from cvjobs.records import Failure, Transform, facts
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
        if embedder.facts["weights_sha256"] != self.sha256:
            raise JobFailed(f"The weights of {self.model} differ between this machine and the driver: make them equal.")
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
    """Return what a choice of model comes to: ``facts``, ``dim``, ``transform``, ``device`` and ``precision``.

    ``earlier`` is what an earlier run on the same output resolved to: it is taken where the same was asked for, from
    the same file and library versions, so that a run with nothing to do loads no model; and a precision of "auto"
    means what it meant then.
    """
    device = "cuda" if not model.startswith("thumbnail/") and devices.gpus() else "cpu"
    asked = {"model": model, "weights": weights, "layer": layer, "device": device, "versions": _versions()}
    same = earlier.get("asked") == asked and earlier["file"] == _file(earlier["file"]["path"])
    if same and precision in ("auto", earlier["precision"]):
        return earlier
    embedder = _embedder(model, weights, layer)
    if precision == "auto" and "precision" in earlier:
        precision = earlier["precision"]
    return {
        "asked": asked,
        "file": _file(embedder.file),
        "facts": dict(embedder.facts),
        "dim": embedder.dim,
        "transform": facts(embedder.transform),
        "precision": models.resolve_precision(precision, device),
    }


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


def identity(note: dict[str, Any]) -> dict[str, Any]:
    """Return what makes two runs' vectors the same: model, weights by content, layer, preprocessing, precision.

    Library versions and the device are recorded elsewhere; they are no part of it.
    """
    named = {name: value for name, value in note["facts"].items() if name != "weights"}
    return {
        **named,
        "transform": note["transform"],
        "scaled_decode": "twice the target",
        "precision": note["precision"],
    }


def _file(path: str) -> dict[str, Any]:
    """Return what tells whether a weights file is still the one that was hashed."""
    try:
        state = os.stat(path)
    except OSError:
        return {"path": path, "bytes": 0, "modified": 0}
    return {"path": path, "bytes": state.st_size, "modified": state.st_mtime_ns}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm")}
