"""The names of models as the packages' own files spell them: a shell completes them before torch could be imported.

A name counts where the registry has it; what is missing or too much here costs a suggestion, and nothing else.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\b.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
_TAGGED = re.compile(r"""^\s+['"](\w+\.(?!untrained)\w+)['"]\s*:""", re.MULTILINE)
_OWN = {"embed": ["thumbnail/8"], "train": ["small/cnn"], "autoencoder": ["small/autoencoder"]}
_OF_CLASSES = ("embed", "classify", "train")


def names(task: str, begin: str) -> list[str]:
    """Return the names for a task that begin so, in full, or without the family where nobody's family does.

    Of nothing typed timm's thousands are ``timm/`` alone.
    """
    families = {"torchvision": _torchvision, "timm": _timm}
    ours = [name for name in _OWN.get(task, ()) if name.startswith(begin)]
    if not begin:
        return [*(f"torchvision/{name}" for name in _torchvision(task, "")), *["timm/"] * (task in _OF_CLASSES), *ours]
    found: list[str] = []
    for family, read in families.items():
        if f"{family}/".startswith(begin) or begin.startswith(f"{family}/"):
            found += [
                full for name in read(task, begin.partition("/")[2]) if (full := f"{family}/{name}").startswith(begin)
            ]
    if not found + ours and "/" not in begin:
        found = [name for read in families.values() for name in read(task, begin) if name.startswith(begin)]
    return sorted({*found, *ours})


def _torchvision(task: str, _begin: str) -> list[str]:
    """Return torchvision's models: the classifiers, or those of a folder of another task."""
    if task in _OF_CLASSES:
        return sorted(_registered("torchvision", "models"))
    detectors = {name for name in _registered("torchvision", "models/detection") if not name.startswith("keypoint")}
    if task == "detect":
        return sorted(detectors)
    masks = {name for name in detectors if name.startswith("maskrcnn")}
    return sorted({*_registered("torchvision", "models/segmentation"), *masks}) if task == "segment" else []


def _timm(task: str, begin: str) -> list[str]:
    """Return timm's models, and with each tag of their weights, of the files that have a word with this beginning."""
    if task not in _OF_CLASSES:
        return []
    known: set[str] = set()
    tagged: set[str] = set()
    for text in (text for text in _texts("timm", "models") if begin in text):
        known.update(_REGISTERED.findall(text))
        tagged.update(_TAGGED.findall(text))
    return sorted({*known, *(name for name in tagged if name.partition(".")[0] in known)})


def _registered(package: str, folder: str) -> set[str]:
    return {name for text in _texts(package, folder) for name in _REGISTERED.findall(text)}


def _texts(package: str, folder: str) -> Iterator[str]:
    """Yield the text of each file in a folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or ()) if found else ():
        yield from (file.read_text(encoding="utf-8") for file in Path(place, folder).glob("*.py"))
