"""What is known of one model, as `cvjobs models NAME` shows it: from the catalogue, or from its family."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from typing import Any, cast

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.tabular import Readable
from cvjobs.networks import known_models, licences, registry
from cvjobs.networks.catalogue.catalogue import CatalogueEntry


@dataclass(frozen=True, kw_only=True)
class ModelCard(Readable):
    """One model: what the catalogue has of it, and in ``more`` what its family says besides."""

    entry: CatalogueEntry
    more: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the card as JSON types: the keys of a row, and ``forbids``, ``asks`` and ``more``."""
        terms = self.entry.licence.terms
        return {**self.entry.record(), "forbids": terms.forbids, "asks": terms.asks, "more": dict(self.more)}

    def __str__(self) -> str:
        entry, terms = self.entry, self.entry.licence.terms
        needed = licences.restrictive(entry.licence.weights)
        pairs = [
            ("tasks", ", ".join(entry.tasks)),
            ("parameters", f"{entry.parameters:,}" if entry.parameters else ""),
            ("input", entry.size),
            ("repository", entry.repository),
            ("licence of the code", entry.licence.code),
            ("licence of the weights", entry.licence.short),
            ("which", terms.forbids),
            ("which asks for", terms.asks),
            ("to be accepted with", " ".join(f"{licences.OPTION} {shlex.quote(one)}" for one in needed)),
            ("installed by", known_models.lacking(entry.family)),
            *self.more,
        ]
        shown = [(name, value) for name, value in pairs if value]
        width = max(len(name) for name, _ in shown)
        return "\n".join([entry.name, *(f"  {name.ljust(width)}  {value}" for name, value in shown)])


def of(name: str, task: str) -> ModelCard:
    """Return the card of a model by its full or bare name, which is looked up for ``task`` before the others.

    Only the family of a model that neither the catalogue nor a package's metadata name is imported.

    Raises:
        WrongUse: there is no such model.
    """
    family, model = _located(name, task)
    known = known_models.entry(family, model)
    if known is not None and known.model == model:
        return ModelCard(entry=known)
    module = known_models.module(family)
    described, own = (getattr(module, name, None) for name in ("described", "licence"))
    offered = {task: known_models.offered(family, task) for task in known_models.TASKS}
    tasks = tuple(task for task, names in offered.items() if model in names)
    every = {name for names in offered.values() for name in names}
    if described is own is None and not tasks and known is None:
        raise WrongUse(f"There is no model {family}/{model}{nearest(model, every)}: `cvjobs models` lists them.")
    more = known_models.asked(family, lambda: described(model)) if described else ()
    entry = CatalogueEntry(
        family=family,
        model=model,
        tasks=tasks or (known.tasks if known and not more else ()),  # of FILE any, and what was found in it says which
        licence=known_models.licence(family, model),
    )
    return ModelCard(entry=entry, more=tuple(cast("list[tuple[str, str]]", more)))


def _located(name: str, task: str) -> tuple[str, str]:
    others = [one for one in known_models.TASKS if one != task and "/" not in name]
    for one in (task, *others):
        with contextlib.suppress(WrongUse):
            return registry.located(name, one)
    return registry.located(name, task)
