"""Which kind of index fits: sizes as people write them, what each kind needs in memory, and the choice."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted, size

EXACT_UP_TO = 200_000  # above, searching takes longer than people wait
POINTS = 40  # the fewest training vectors that a list's centroid is the mean of
FEWEST = {"exact": 1, "ivf": 16 * POINTS, "pq": 11_000}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of index for some vectors: FAISS's factory string, its lists, and the memory it is searched in (bytes)."""

    name: str
    factory: str
    lists: int
    memory: int


def parse_size(text: str) -> int:
    """Return the bytes that a size such as ``400MB`` or ``2GiB`` stands for; raises WrongUse."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if found is None or not float(found[1]):
        raise WrongUse(f"--max-memory {text} is no size: write it as in 400MB or 2GiB.")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def default_memory() -> int:
    """Return half of the memory that is free on this machine, in bytes."""
    return devices.memory() // 2


def kind_of(name: str, count: int, dim: int, limit: int) -> Kind:
    """Return a kind for ``count`` vectors, trained within ``limit`` bytes; raises WrongUse where they are too few."""
    if name == "exact":
        return Kind(name=name, factory="Flat", lists=0, memory=4 * dim * count)
    if count < FEWEST[name]:
        raise WrongUse(
            f"{counted(count, 'vectors are')} too few for --kind {name} ({FEWEST[name]:,}): take --kind exact."
        )
    lists = max(1, min(round(4 * math.sqrt(count)), min(count, budget(name, limit) // (4 * dim)) // POINTS))
    if name == "ivf":
        return Kind(
            name=name, factory=f"IVF{lists},SQfp16", lists=lists, memory=(2 * dim + 8) * count + 4 * dim * lists
        )
    pieces = max(1, min(64, dim // 4))  # of a byte each
    turned = dim // pieces * pieces
    factory = (
        f"OPQ{pieces}_{turned},IVF{lists},PQ{pieces}np"  # np: polysemous codes take minutes and are of no use here
    )
    return Kind(name=name, factory=factory, lists=lists, memory=(pieces + 8) * count + 4 * turned * (lists + dim))


def budget(name: str, limit: int) -> int:
    """Return how many bytes of vectors to train on; what PQ is trained on exists twice, as it is and rotated."""
    return limit // 8 if name == "pq" else limit // 4


def choose(name: str, count: int, dim: int, limit: int) -> Kind:
    """Return the kind that was asked for, or with ``auto`` the most exact that fits into ``limit`` bytes.

    Raises WrongUse where it does not fit.
    """
    names = [name] if name != "auto" else ["exact", "ivf", "pq"] if count <= EXACT_UP_TO else ["ivf", "pq"]
    if name == "auto":
        names = [each for each in names if count >= FEWEST[each]]
    kinds = [kind_of(each, count, dim, limit) for each in names]
    for kind in kinds:
        if kind.memory <= limit:
            return kind
    smallest = kinds[-1]
    raise WrongUse(
        f"{counted(count, 'vectors')} of {counted(dim, 'numbers')} need {size(smallest.memory)} as kind "
        f"{smallest.name}, and --max-memory is {size(limit)}: allow more"
        f"{', or take another --kind' if smallest.name != 'pq' else ''}."
    )
