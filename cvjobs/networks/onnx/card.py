"""What the owner of an ONNX file says of it: in FILE.yaml beside FILE.onnx, or in the metadata of the file.

Of a key that is in both the YAML's counts. Ultralytics' own metadata (``names``, ``imgsz``, ``task``, ``kpt_shape``,
``stride``) are understood where ours say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.formatting import shortened
from cvjobs.networks import class_names
from cvjobs.networks.onnx.onnx_file import OnnxFile

MOST = 4 << 20  # bytes
# Kinds of output by the command that takes them.
KINDS = {
    "embed": ("vector",),
    "classify": ("logits", "probabilities"),
    "semantic": ("pixel-logits", "class-map"),
    "detect": (
        *("torchvision", "boxes", "detr", "nms", "rows", "yolov5", "yolov8", "yolov10", "yolox"),
        *("ssd", "retinaface", "scrfd", "yunet"),
    ),
}
_TASKS = {"embed": "embed", "classify": "classify", "detect": "detect", "instance": "instance", "semantic": "semantic"}
# What Ultralytics calls the tasks.
_THEIRS = {"detect": "detect", "segment": "instance", "pose": "detect", "classify": "classify", "semantic": "semantic"}


class _NotThisError(Exception):
    """A value is none of its key's; the message says what is."""


@dataclass(frozen=True)
class Card:
    """The values that were given, by key; ``file`` is the YAML, whether it is there or not."""

    file: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Path, ...] = ()  # the file of labels

    def get(self, key: str, default: Any) -> Any:
        """Return what was given for a key, the default where nothing was."""
        return self.values.get(key, default)

    def ask(self, model: Path, what: str, key: str, choices: str) -> WrongUse:
        """Return the error about something that only the user knows, and the key that says it."""
        return WrongUse(f"{model} does not tell {what}: write `{key}:` with {choices} into {self.file}.")


def read(file: OnnxFile) -> Card:
    """Return what is said of an ONNX file.

    Raises:
        WrongUse: the YAML cannot be read, is no mapping, has a key that there is not, or a value that is none of it.
    """
    place = file.path.with_suffix(".yaml")
    given = _yaml(place)
    for key in given:
        if key not in KEYS:
            raise WrongUse(
                f"{place} has the key {shortened(str(key))!r}, which there is not{nearest(str(key), KEYS)}: "
                f"write some of {', '.join(KEYS)}."
            )
    inside = {key: _from_text(text) for key, text in file.metadata.items() if key in KEYS and key not in given}
    values = _theirs(file) if "names" in file.metadata or "imgsz" in file.metadata else {}
    if values:
        inside.pop("task", None)  # which is Ultralytics' word
    for source, where in ((inside, f"The metadata of {file.path}"), (given, str(place))):
        for key, value in source.items():
            try:
                values[key] = KEYS[key](value)
            except _NotThisError as error:
                said = shortened(str(value))
                raise WrongUse(f"{where} says {key}: {said}, and {key} is {error}: correct it in {place}.") from None
    also: tuple[Path, ...] = ()
    if isinstance(values.get("labels"), str):
        also = (place.parent / values["labels"],)
        if "labels" not in given and len(Path(values["labels"]).parts) > 1:
            raise WrongUse(
                f"The metadata of {file.path} name a file of labels outside of its folder, "
                f"{shortened(values['labels'])!r}: write `labels:` with the file into {place}."
            )
        values["labels"] = tuple(class_names.read(str(also[0])))
    return Card(place, values, also)


def _yaml(place: Path) -> dict[str, Any]:
    import yaml

    from cvjobs.config.yaml_loader import YamlLoader

    try:
        if not place.exists():
            return {}
        if not place.is_file():
            raise WrongUse(f"{place} is no file: write the keys of the model into one of that name, or rename it.")
        with place.open("rb") as stream:
            content = stream.read(MOST + 1)
        if len(content) > MOST:
            raise WrongUse(f"{place} is larger than 4 MiB: write the keys of docs/onnx.md into it, and no more.")
        found = yaml.load(content.decode("utf-8-sig"), YamlLoader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise WrongUse(f"Cannot read {place} ({error.strerror}): fix its permissions.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" (line {line + 1})"
        raise WrongUse(f"{place} is no YAML{where}: write lines such as `size: 640`.") from None
    if found in (None, ""):
        return {}
    if not isinstance(found, dict):
        raise WrongUse(f"{place} holds no keys with values: write lines such as `size: 640`.")
    return found


def _from_text(text: str) -> Any:
    """Return a value of a file's metadata; text that makes no sense as YAML is itself."""
    import yaml

    try:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506 - the strictest of the safe loaders
    except (yaml.YAMLError, RecursionError):
        return text


def _theirs(file: OnnxFile) -> dict[str, Any]:
    """Return what Ultralytics' metadata say; what makes no sense there is left out."""
    found: dict[str, Any] = {}
    said = {key: _from_text(text) for key, text in file.metadata.items()}
    task = str(said.get("task", ""))
    if task == "obb":
        raise WrongUse(f"{file.path} finds rotated boxes, for which cvjobs has no column: export a model of boxes.")
    if task in _THEIRS:
        found["task"] = _THEIRS[task]
    names = said.get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=_order)]
    for key, value in (("labels", names), ("size", said.get("imgsz"))):
        try:
            found[key] = KEYS[key](value)
        except _NotThisError:
            continue
    points = said.get("kpt_shape")
    if isinstance(points, list) and len(points) == 2 and all(str(number).isdigit() for number in points):
        found["landmarks"] = tuple(f"point {number}" for number in range(1, int(points[0]) + 1))
    # Its classifiers take values of 0 to 1 as they are.
    return {**found, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1.0}


def _order(key: Any) -> tuple[int, str]:
    text = str(key)
    return (int(text) if text.isdigit() else 1 << 62, text)


def _number(least: float, most: float, what: str, whole: bool = False) -> Callable[[Any], Any]:
    def parsed(value: Any) -> float | int:
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            raise _NotThisError(what) from None
        if not math.isfinite(found) or not least <= found <= most or (whole and found != int(found)):
            raise _NotThisError(what)
        return int(found) if whole else found

    return parsed


def _word(*words: str) -> Callable[[Any], str]:
    def parsed(value: Any) -> str:
        if value not in words:
            raise _NotThisError(f"{', '.join(words[:-1])} or {words[-1]}{nearest(str(value), words)}")
        return str(value)

    return parsed


def _several(one: Callable[[Any], Any], what: str, count: int = 0) -> Callable[[Any], tuple[Any, ...]]:
    def parsed(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value or (count and len(value) != count):
            raise _NotThisError(what)
        try:
            return tuple(one(each) for each in value)
        except _NotThisError:
            raise _NotThisError(what) from None

    return parsed


def _flag(value: Any) -> bool:
    if str(value).lower() not in ("true", "false", "yes", "no"):
        raise _NotThisError("true or false")
    return str(value).lower() in ("true", "yes")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _NotThisError("a name")
    return value.strip()


def _sides(value: Any) -> int | tuple[int, int]:
    what = "a number of pixels, or [height, width]"
    side = _number(1, 16384, what, whole=True)
    found: int | tuple[int, int] = _several(side, what, 2)(value) if isinstance(value, list) else side(value)
    return found


def _labels(value: Any) -> str | tuple[str, ...] | dict[int, str]:
    """Return the names of the classes, those by number, or the name of the file that has them."""
    what = "a list of different names, names by number, or a file with one a line"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        number = _number(0, 1 << 31, what, whole=True)
        found = {number(key): _text(name) for key, name in value.items()}
        if not found or len(set(found.values())) < len(found):
            raise _NotThisError(what)
        return dict(sorted(found.items()))
    names = _several(_text, what)(value)
    if len(set(names)) < len(names):
        raise _NotThisError(what)
    return names


def _outputs(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) and name for name in value.values()):
        raise _NotThisError("what each is with its name, such as {boxes: output0, scores: output1}")
    return {str(key): name for key, name in value.items()}


_SHARE = _number(0, 1, "a number from 0 to 1")
_THREE = "three numbers, in the order of the channels"
# The keys of the YAML with what reads each one's value.
KEYS: dict[str, Callable[[Any], Any]] = {
    "task": _word(*_TASKS),
    "output": _word(*(kind for kinds in KINDS.values() for kind in kinds)),
    "outputs": _outputs,
    "labels": _labels,
    "size": _sides,
    "resize": _word("squash", "letterbox", "crop", "keep", "shrink"),
    "rounding": _word("nearest", "down"),
    "padding": _word("inside", "outside"),
    "short": _number(1, 16384, "a number of pixels", whole=True),
    "place": _word("centre", "corner"),
    "fill": _number(0, 255, "a grey value from 0 to 255"),
    "interpolation": _word("nearest", "bilinear", "bicubic", "lanczos"),
    "antialias": _flag,
    "channels": _word("RGB", "BGR"),
    "layout": _word("NCHW", "NHWC", "CHW", "HWC"),
    "scale": _number(1, 255, "1 or 255: what white is before mean and std"),
    "mean": _several(_number(-1e6, 1e6, _THREE), _THREE, 3),
    "std": _several(_number(1e-6, 1e6, _THREE), f"{_THREE} above 0", 3),
    "activation": _word("none", "softmax", "sigmoid"),
    "background": _word("none", "first", "last"),
    "boxes": _word("xyxy", "yxyx", "xywh", "cxcywh"),
    "relative": _flag,
    "columns": _several(_word("image", "box", "score", "class"), "a list of image, box, score and class"),
    "strides": _several(_number(1, 256, "a list of numbers of pixels", whole=True), "a list of numbers of pixels"),
    "landmarks": _several(_text, "a list of names of points"),
    "nms": _word("inside", "outside"),
    "conf": _SHARE,
    "iou": _SHARE,
    "max_det": _number(1, 1_000_000, "a whole number above 0", whole=True),
}
