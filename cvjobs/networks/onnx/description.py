"""What was recognised in an ONNX file, for a person who looks at it before a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.networks.onnx import box_models, class_map_models, onnx_model, vector_models
from cvjobs.networks.onnx.card import KEYS
from cvjobs.networks.onnx.onnx_model import COMMANDS, listed

FOR = "for"
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
        found = {command: _told(command, find, name, model.elsewhere) for command, find in choices.items()}
        commands = [command for command, told in found.items() if told[0][0] == FOR]
        if commands:
            refused = [row for told in found.values() if told[0][0] != FOR for row in told if choices is _VECTORS]
            known = {FOR: ", ".join(commands)}
            for command in commands:
                known = {**dict(found[command]), **known}
            return [*rows, *refused, (FOR, known.pop(FOR)), *known.items()]
        rows += [row for told in found.values() for row in told]
    return rows


def _told(command: str, find: Callable[[str], Any], name: str, elsewhere: str) -> list[tuple[str, str]]:
    """Return what a command makes of a file, beginning with what it is ``FOR``, or why not, without ``elsewhere``."""
    try:
        model = find(name)
    except WrongUse as error:
        return [(f"not {command}", str(error).replace(f"; {elsewhere}", ""))]
    said: Mapping[str, Any] = model.facts
    rows = [(FOR, command)]
    rows += box_models.shown((key, value) for key, value in said["card"].items() if key in KEYS)
    rows += box_models.shown((key, said.get(key)) for key in ("activation", "layer", "conf", "iou", "landmarks"))
    if categories := said.get("categories"):
        names = [label for _, label in categories]
        rows.append(("classes", f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"))
    return [row for row in rows if row != ("landmarks", "0")]
