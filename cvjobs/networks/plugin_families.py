"""Model families of other packages, read from their metadata: which there are and what they have, none imported.

A package names its module in the group of entry points ``cvjobs.families``, and its models in those of their tasks,
such as ``cvjobs.models.embed``: docs/extending.md has an example.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from cvjobs.networks import licences
from cvjobs.networks.catalogue.catalogue import CatalogueEntry
from cvjobs.networks.licences import Licence

FAMILIES, MODELS = "cvjobs.families", "cvjobs.models."


@dataclass(frozen=True, kw_only=True)
class PluginFamily:
    """A family of another package: its module's dotted name, the package's, and its models in the order of tasks.

    ``licence`` is what the package's metadata say, of code and weights alike.
    """

    name: str
    module: str
    package: str
    licence: Licence
    models: tuple[CatalogueEntry, ...]

    def find(self, model: str) -> CatalogueEntry | None:
        """Return what the metadata have of a model, of the name that stands for it where it has none of its own."""
        known = {entry.model: entry for entry in self.models}
        return known.get(model) or next((entry for entry in self.models if entry.stands), None)


def found() -> Mapping[str, PluginFamily]:
    """Return the families of the installed packages by name; of two with one name the first that Python finds."""
    return _found(tuple(sys.path))


@cache
def _found(_path: tuple[str, ...]) -> dict[str, PluginFamily]:
    tasks: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    points = metadata.entry_points()
    for group in sorted(group for group in points.groups if group.startswith(MODELS)):
        for point in points.select(group=group):
            family, _, model = point.name.partition("/")
            tasks[family][model].append(group.removeprefix(MODELS))
    families: dict[str, PluginFamily] = {}
    for point in points.select(group=FAMILIES):
        licence = _licence(point.dist)
        families.setdefault(
            point.name,
            PluginFamily(
                name=point.name,
                module=point.value,
                package=point.dist.name if point.dist else point.value,
                licence=licence,
                models=tuple(
                    CatalogueEntry(family=point.name, model=model, tasks=tuple(own), licence=licence)
                    for model, own in tasks[point.name].items()
                ),
            ),
        )
    return families


def _licence(package: metadata.Distribution | None) -> Licence:
    """Return the licence that a package's metadata name: an expression of SPDX, or in older ones one word of it."""
    about = package.metadata.json if package else {}
    said = str(about.get("license_expression", ""))
    named = str(about.get("license", ""))
    if not said and licences.classified(named):
        said = licences.spelt(named)
    return Licence(code=said or licences.UNKNOWN, weights=said or licences.UNKNOWN)
