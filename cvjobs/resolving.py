"""What a choice of model comes to on this machine, noted so that a later run on the same output need not load it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, TypeVar

from cvjobs import devices
from cvjobs.context import Resolved
from cvjobs.errors import JobFailed
from cvjobs.models import Model
from cvjobs.precision import resolve_precision
from cvjobs.records import facts
from cvjobs.stage import Opener

Loaded = TypeVar("Loaded", bound=Model)


def resolve(
    asked: dict[str, Any],
    precision: str,
    earlier: dict[str, Any],
    load: Callable[[], Loaded],
    more: Callable[[Loaded], dict[str, Any]] = lambda _: {},
) -> dict[str, Any]:
    """Return the note on a choice: ``asked``, ``file``, ``facts``, ``transform``, ``precision``, and ``more`` of it.

    ``asked`` is everything that the model is made from (with ``model``, and JSON throughout); the device and the
    libraries' versions are added to it. ``earlier`` is the note of an earlier run on the same output: it is taken
    where the same was asked for, from the same file and library versions, so that a run with nothing to do loads no
    model; and a precision of "auto" means what it meant then.
    """
    device = "cuda" if not asked["model"].startswith("thumbnail/") and devices.gpus() else "cpu"
    asked = {**asked, "device": device, "versions": _versions()}
    same = earlier.get("asked") == asked and earlier["file"] == _file(earlier["file"]["path"])
    if same and precision in ("auto", earlier["precision"]):
        return earlier
    model = load()
    if precision == "auto" and "precision" in earlier:
        precision = earlier["precision"]
    return {
        "asked": asked,
        "file": _file(model.file),
        "facts": dict(model.facts),
        "transform": facts(model.transform),
        "precision": resolve_precision(precision, device),
        **more(model),
    }


def resolved(opener: Opener, note: dict[str, Any], facts: dict[str, Any] | None = None) -> Resolved:
    """Return what a noted choice comes to; ``facts`` identify its results where it is not ``identity(note)``."""
    return Resolved(
        opener=opener,
        device=note["asked"]["device"],
        facts=identity(note) if facts is None else facts,
        note=note,
        title=title(note),
    )


def identity(note: dict[str, Any]) -> dict[str, Any]:
    """Return what makes two runs' results the same: model, weights by content, preprocessing, precision and so on.

    Library versions and the device are recorded elsewhere; they are no part of it.
    """
    named = {name: value for name, value in note["facts"].items() if name != "weights"}
    scaled = {"scaled_decode": "twice the target"} if note["transform"]["size"] else {}
    return {**named, "transform": note["transform"], **scaled, "precision": note["precision"]}


def title(note: dict[str, Any]) -> str:
    """Return the choice as a person reads it."""
    return f"{note['facts']['model']} ({note['facts']['weights']}, {note['precision']})"


def check_weights(model: Model, sha256: str) -> None:
    """Raise JobFailed where a worker's weights are not those that the run began with."""
    if model.facts["weights_sha256"] != sha256:
        raise JobFailed(f"The weights of {model.name} differ between this machine and the driver: make them equal.")


def _file(path: str) -> dict[str, Any]:
    """Return what tells whether a weights file is still the one that was hashed."""
    try:
        state = os.stat(path)
    except OSError:
        return {"path": path, "bytes": 0, "modified": 0}
    return {"path": path, "bytes": state.st_size, "modified": state.st_mtime_ns}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm")}
