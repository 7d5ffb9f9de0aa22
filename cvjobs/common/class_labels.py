"""What names a class: the label that any cell of a table holds, and which labels are one class."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

_MISSING = frozenset({"nan", "<na>"})  # what tables of numbers write as text where there is none
_WHOLE = re.compile(r"([+-]?(?:0|[1-9][0-9]*))\.0+")
_INVISIBLE = "\ufeff\u200b\u200e\u200f\x00"  # marks that stand before or after a text and cannot be seen
_SEVERAL = "|"
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}  # fmt: skip
_TEXTS = (str, bytes, bytearray, memoryview)


def clean(name: str) -> str:
    """Return a name, such as that of a folder, without blanks around it and in Unicode's composed form."""
    before = ""
    while before != name:
        before, name = name, name.strip().strip(_INVISIBLE)
    return unicodedata.normalize("NFC", name)


def text(cell: Any) -> str:
    """Return a cell as text that UTF-8 has: bytes are UTF-8, null is empty."""
    if isinstance(cell, _TEXTS[1:]):
        return bytes(cell).decode(errors="backslashreplace")
    said = "" if cell is None else str(cell)
    return said if said.isascii() else said.encode("utf-8", "backslashreplace").decode()


def split(name: str) -> str:
    """Return the split that a word means: ``train``, ``val`` or ``test``, empty for none."""
    return _SPLITS.get(name.lower(), "")


def label(cell: Any) -> str:
    """Return the label that a cell holds, empty where it holds none: null, NaN, blank.

    A whole number is the same label as an integer, a float or a text of either; bytes are UTF-8. A list of one label is
    that label.

    Raises:
        TypeError: it holds no single value.
    """
    if cell is None or isinstance(cell, _TEXTS):
        name = clean(text(cell))
        if whole := _WHOLE.fullmatch(name):
            name = "0" if whole[1] in ("-0", "+0") else whole[1].removeprefix("+")
        return "" if name.casefold() in _MISSING else name
    if isinstance(cell, Mapping) or (isinstance(cell, Collection) and len(cell) > 1):
        raise TypeError("holds several values")
    if isinstance(cell, Collection):
        return label(next(iter(cell), None))
    if isinstance(cell, Real) and not isinstance(cell, Integral):
        number = float(cell)
        return "" if math.isnan(number) else str(int(number)) if number.is_integer() else clean(str(cell))
    return label(str(cell))


def several(cell: Any) -> tuple[str, ...]:
    """Return the labels that a cell holds, each once: a list of cells, or a text with ``|`` between them.

    Raises:
        TypeError: one of them is no single value.
    """
    if isinstance(cell, _TEXTS):
        cell = text(cell).split(_SEVERAL)
    cells = cell if isinstance(cell, Collection) and not isinstance(cell, Mapping) else [cell]
    return tuple(dict.fromkeys(filter(None, map(label, cells))))


def spelling(name: str) -> str:
    """Return what names of one class have in common: case, blanks and ``_`` make no difference.

    A single letter is itself, as ``a`` and ``A`` are two classes of handwriting.
    """
    plain = " ".join(clean(name).replace("_", " ").split())
    if len(plain) > 1:
        plain = unicodedata.normalize("NFC", plain.casefold())
    return plain or name


def classes(names: Iterable[str], apart: Collection[str] = ()) -> dict[str, str]:
    """Return the class of each label: of those with one spelling the most frequent, and the first of equally many.

    Args:
        names: The labels, as often as they are there.
        apart: Labels that stay classes of their own.
    """
    counts = Counter(names)
    found: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        found.setdefault(spelling(name), name)
    return {name: name if name in apart else found[spelling(name)] for name in counts}


def respelt(classes: Mapping[str, str]) -> list[str]:
    """Return the spellings that became another one's class, as ``Cat: cat``, in their order."""
    return [f"{name}: {own}" for name, own in sorted(classes.items()) if name != own]
