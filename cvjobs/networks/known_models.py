"""Which families and models there are, and their licences: from the catalogue and from packages' metadata.

A family's module is imported only where neither knows its models, as with another version of its library.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from cvjobs.common import extras, plugins
from cvjobs.common.phases import IMPORTING
from cvjobs.common.plugins import BrokenPlugin
from cvjobs.common.progress import during
from cvjobs.networks import licences, plugin_families
from cvjobs.networks.catalogue import catalogue
from cvjobs.networks.catalogue.catalogue import CatalogueEntry
from cvjobs.networks.licences import Licence
from cvjobs.networks.plugin_families import PluginFamily

if TYPE_CHECKING:
    from cvjobs.networks.registry import Family

TASKS = ("embed", "classify", "detect", "segment", "train", "autoencoder")
_FAMILIES, _KIND = "cvjobs.networks.families", "model family"


def families() -> list[str]:
    """Return the model families in the order in which a bare name is looked up: ours, then those of other packages."""
    ours = sorted(plugins.names(_FAMILIES), key=lambda family: (family != "torchvision", family))
    return [*ours, *sorted(_others())]


def _others() -> Mapping[str, PluginFamily]:
    """Return the families of other packages; none takes the name of one of ours."""
    ours = plugins.names(_FAMILIES)
    return {name: family for name, family in plugin_families.found().items() if name not in ours}


def hidden() -> list[str]:
    """Return a sentence for each family of another package that has the name of one of ours and is left out."""
    ours = plugins.names(_FAMILIES)
    return [
        f"The model family {name} of the package {family.package} is left out: cvjobs has one of that name."
        for name, family in plugin_families.found().items()
        if name in ours
    ]


def module(family: str) -> Family:
    """Import and return the module of a family; raises as ``plugins.load``."""
    other = _others().get(family)
    with during(IMPORTING):
        if other is not None:
            return cast("Family", plugins.imported(other.module, f"{_KIND} {family}", ["names"]))
        return cast("Family", plugins.load(_FAMILIES, _KIND, family, families(), ["names"]))


def asked(family: str, what: Callable[[], Any]) -> Any:
    """Return what the code of a family answers; raises BrokenPlugin where it cannot."""
    other = _others().get(family)
    with plugins.guarded(other.module if other else f"{_FAMILIES}.{family}", f"{_KIND} {family}"):
        return what()


def offered(family: str, task: str) -> list[str]:
    """Return the names that the module of a family has for a task; raises BrokenPlugin where it cannot say them."""
    found = module(family)

    def names() -> list[str]:
        answer = found.names(task)
        if not isinstance(answer, list) or not all(isinstance(model, str) for model in answer):
            raise TypeError("its names(task) returns no list of names")
        return answer

    return cast("list[str]", asked(family, names))


def entries(family: str, task: str) -> list[CatalogueEntry]:
    """Return the models that a family has for a task; raises BrokenPlugin where its own code cannot say them."""
    if other := _others().get(family):
        return [entry for entry in other.models if task in entry.tasks]
    if catalogue.is_current(family):
        return [entry for entry in catalogue.entries(family) if task in entry.tasks]
    known = {entry.model: entry for entry in catalogue.entries(family)}
    names = offered(family, task)
    return [
        known.get(model)
        or CatalogueEntry(family=family, model=model, tasks=(task,), licence=_own_licence(family, model))
        for model in names
    ]


def names(task: str, warn: Callable[[str], None] | None = None) -> dict[str, list[str]]:
    """Return the names of the models for a task by family; see ``listed``."""
    return {family: [entry.model for entry in found] for family, found in listed(task, warn).items()}


def listed(task: str, warn: Callable[[str], None] | None = None) -> dict[str, list[CatalogueEntry]]:
    """Return the models for a task by family.

    ``warn`` is told of each family that cannot be used, which is left out.
    """
    found: dict[str, list[CatalogueEntry]] = {}
    for sentence in hidden() if warn else ():
        warn and warn(sentence)
    for family in families():
        try:
            found[family] = entries(family, task)
        except BrokenPlugin as error:
            if warn:
                warn(str(error))
    return found


def entry(family: str, model: str) -> CatalogueEntry | None:
    """Return what is known of a model without importing its family: None where that is nothing."""
    if other := _others().get(family):
        return other.find(model)
    return catalogue.find(family, model) if catalogue.is_current(family) else None


def licence(family: str, model: str) -> Licence:
    """Return the licences of a model: as the catalogue or else its family's own code says, or its package.

    Raises:
        WrongUse: the family is asked, and has no such model.
        BrokenPlugin: it is asked, and cannot say it.
    """
    known = None if family in _others() else entry(family, model)
    return known.licence if known else _own_licence(family, model)


def _own_licence(family: str, model: str) -> Licence:
    other, own = _others().get(family), getattr(module(family), "licence", None)
    if own is None:
        return other.licence if other else licences.UNSAID

    def ask() -> Licence:
        answer = own(model)
        if not isinstance(answer, Licence):
            raise TypeError("its licence(name) returns no Licence of cvjobs.networks.licences")
        return answer

    return cast("Licence", asked(family, ask))


@cache
def lacking(family: str) -> str:
    """Return the line that installs what a family needs and is not here; empty where nothing is missing."""
    package = extras.MODULES.get(family, "").partition(".")[0]
    return f"pip install 'cvjobs[{family}]'" if package and importlib.util.find_spec(package) is None else ""
