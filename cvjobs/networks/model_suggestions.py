"""The names of models that a shell completes: of the catalogue and of packages' metadata, for nothing is imported.

The registry has the last word; what is missing or too much here costs a suggestion, and nothing else.
"""

from __future__ import annotations

from cvjobs.networks import known_models, plugin_families
from cvjobs.networks.catalogue import catalogue

_STANDS = {"thumbnail/N": "thumbnail/8"}
MANY = 1000  # names of a family, of which nothing typed suggests the family alone


def names(task: str, begin: str) -> list[str]:
    """Return the names for a task that begin so, in full, or without the family where nobody's family does."""
    others = plugin_families.found()
    found: list[str] = []
    bare: list[str] = []
    for family in known_models.families():
        entries = others[family].models if family in others else catalogue.entries(family)
        own = [entry for entry in entries if task in entry.tasks]
        if not begin and len(own) > MANY:
            found.append(f"{family}/")
            continue
        full = [_STANDS.get(one.name, one.name) for one in own if not one.stands or one.name in _STANDS]
        found += [name for name in full if name.startswith(begin)]
        bare += [one.model for one in own if one.model.startswith(begin)]
    if not found and "/" not in begin:
        found = bare
    return sorted(set(found)) if begin else list(dict.fromkeys(found))
