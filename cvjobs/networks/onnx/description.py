"""What was recognised in an ONNX file, for a person who looks at it before a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.networks.onnx import box_models, class_map_models, onnx_model, vector_models
from cvjobs.networks.onnx.onnx_model import COMMANDS, listed

# By command; of a file that finds boxes or pixels' classes no vector is told.
_PICTURES: dict[str, Callable[[str], Any]] = {
    "detect": lambda name: box_models.detector(name, "pretrained", ()),
    "segment": lambda name: class_map_models.segmenter(name, "pretrained", ()),
}
_VECTORS: dict[str, Callable[[str], Any]] = {
    "classify": lambda name: vector_models.classifier(name, "pretrained", ()),
    "embed": lambda name: vector_models.embedder(name, "pretrained", ""),
}


def described(name: str) -> list[tuple[str, str]]:
    """Return what a file is, what of it was recognised, and what its card comes to, as titles and values.

    Raises:
        WrongUse: see ``onnx_model.opened``.
    """
    model = onnx_model.opened(name, "pretrained", *COMMANDS)
    place = model.card.file
    rows = [
        ("file", str(model.file.path)),
        ("sha256", model.file.sha256),
        ("takes", f"{listed(model.file.inputs)}, {model.taken.kind}, {model.taken.layout}"),
        ("gives", listed(model.file.outputs)),
        ("card", str(place) if place.exists() else f"none; {place} would be it"),
    ]
    for choices in (_PICTURES, _VECTORS):
        found = [row for command, find in choices.items() for row in _told(command, find, name)]
        if any(title != "not" for title, _ in found):
            return rows + [row for row in found if row[0] != "not"]
        rows += [("not", sentence) for _, sentence in found]
    return rows


def _told(command: str, find: Callable[[str], Any], name: str) -> list[tuple[str, str]]:
    try:
        model = find(name)
    except WrongUse as error:
        return [("not", f"{command}: {error}")]
    said: Mapping[str, Any] = model.facts
    rows = [("for", f"cvjobs {command}")]
    rows += box_models.shown((key, value) for key, value in said["card"].items())
    rows += box_models.shown((key, said.get(key)) for key in ("activation", "layer", "conf", "iou", "landmarks"))
    if categories := said.get("categories"):
        names = [label for _, label in categories]
        rows.append(("classes", f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"))
    return rows
