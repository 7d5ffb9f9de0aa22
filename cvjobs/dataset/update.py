"""One run on an output, from a listing to the next snapshot; what computes the rows is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from cvjobs.common import categories, rules
from cvjobs.common.errors import CvjobsError, LimitSpent, Stopped, WrongUse
from cvjobs.common.formatting import counted
from cvjobs.dataset import changes, contents, merge, parts, run_files, snapshot, versions
from cvjobs.dataset import keys as dataset_keys
from cvjobs.dataset import schema as dataset_schema
from cvjobs.dataset.changes import Hasher, Plan
from cvjobs.dataset.keys import Known, Want
from cvjobs.dataset.lock import Lock
from cvjobs.dataset.parts import Author, Part
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.sources.exclusion import EXCLUDED
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class UpdateRequest:
    """What a run is asked for.

    ``schema`` is that of the results; ``fingerprint`` digests ``facts``, everything that changes a result;
    ``resolved`` is a note for the next run, ``config`` what is recorded of this one; the rest are the options of
    ``BatchOptions`` of the same name.
    """

    listing: Listing
    schema: pa.Schema
    fingerprint: str
    facts: dict[str, Any]
    hasher: Hasher
    resolved: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False
    retry_failed: bool = False
    allow_deletions: bool = False
    by_content: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class End:
    """How computing ended: with an error, because the user stopped it, or none of these.

    ``spent`` is the limit of time or money by which it ended with images left, as the option that sets it.
    """

    error: CvjobsError | None = None
    stopped: bool = False
    spent: str = ""


_MAKERS = {"instance": "segment", "semantic": "segment"}  # of tasks that are not named like their command

# Commits the rows that a plan asks for, as this author; an error is returned, so that what is done is folded first.
Compute = Callable[[Author, Plan], End]


def check_source(store: Store, base: Snapshot, listing: Listing) -> None:
    """Raise WrongUse for an output that belongs to another source."""
    source = base.source
    if not source:
        source = contents.signature(store).get("source", "")
    if source and source != listing.source:
        raise WrongUse(f"{store.place} holds the results of {source}: choose another -o for {listing.source}.")


def check_command(store: Store, base: Snapshot, command: str) -> None:
    """Raise WrongUse for an output of another command, finished or begun; a query's images are embedded."""
    facts = base.facts if base.version else _unpublished(store)[1]
    task = categories.task(facts) or "embed"
    maker = _MAKERS.get(task, task)
    if facts and maker != {"query": "embed"}.get(command, command):
        raise WrongUse(f"{store.place} holds the results of `cvjobs {maker}`: choose another -o.")


def check_fingerprint(store: Store, base: Snapshot, fingerprint: str, facts: dict[str, Any]) -> None:
    """Raise WrongUse, naming the difference, where the output was computed by another model or preprocessing."""
    earlier, then = (base.fingerprint, base.facts) if base.version else _unpublished(store)
    if earlier in ("", fingerprint):
        return
    raise WrongUse(
        f"{store.place} was computed otherwise ({differences(then, facts)}): "
        "choose another -o, or --overwrite to recompute all."
    )


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words where two sets of facts differ; with another model its preprocessing goes without saying."""
    there, here = _flat(then), _flat(now)
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    shown = ["model"] if "model" in names else names
    return ", ".join(f"{name} {_brief(there.get(name))} there, {_brief(here.get(name))} here" for name in shown)


def _brief(value: Any, length: int = 80) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= length else f"{text[:length]}…"


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **facts.get("transform", {}), "transform": None}


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What the runs before settled for an output, by which this one goes on.

    ``resolved`` is their note for this run, empty for a new output; ``listing_rules`` are those of its source.
    """

    resolved: dict[str, Any] = field(default_factory=dict)
    listing_rules: int = rules.LISTING


# Of a version that left no note in what it began.
_UNNOTED: dict[str, Any] = {"transform": {}}


def earlier(store: Store, base: Snapshot, *, overwrite: bool) -> Earlier:
    """Return what an output was begun with, published or not; nothing where all of it is computed anew."""
    if overwrite:
        return Earlier()
    if base.version:
        return Earlier(resolved=base.resolved or _UNNOTED, listing_rules=base.listing_rules)
    for part in reversed(parts.committed(store)):
        if config := run_files.read(store, part.run):
            then = Snapshot(version=0, **config.draft)
            return Earlier(resolved=then.resolved or _UNNOTED, listing_rules=then.listing_rules)
    return Earlier()


def _unpublished(store: Store) -> tuple[str, dict[str, Any]]:
    """Return the fingerprint and facts of a first run that was killed before it published."""
    for part in reversed(parts.committed(store)):
        if config := run_files.read(store, part.run):
            return part.fingerprint, config.facts
    return "", {}


def update(
    store: Store, held: Lock, order: UpdateRequest, compute: Compute, say: Callable[[str], object]
) -> tuple[Snapshot, Plan]:
    """Bring an output up to date and return its new snapshot and what was computed for it.

    Raises WrongUse where a guard or a check refuses, OutputHeld where a later run took over, Stopped, or the error
    that ended the computing; what was computed until then is in the output. Raises LimitSpent where that is not, for
    it replaces what is there as a whole.
    """
    listing = order.listing
    run = dataset_schema.new_run(held.epoch)
    store.writer = run
    contents.sign(store, contents.RESULTS, listing.source)
    base = snapshot.latest(store)
    versions.heal(store, base.version)
    if not order.overwrite:
        check_fingerprint(store, base, order.fingerprint, order.facts)
    epoch, mine, others = unfolded(store, order, base)
    author = Author(run=run, epoch=epoch, fingerprint=order.fingerprint, listed=listing.started_ns)
    say("comparing")
    state, want = compare(store, order, base, mine)
    draft, none = _draft(order, base, author), pa.array([], dataset_schema.ID)
    change = merge.Change(
        want=want,
        schema=order.schema,
        draft=draft,
        lock=held.epoch,
        listed=listing.started_ns,
        void=none,
        settled=none,
        abandoned=tuple(others),
        merge=False,
    )
    if mine and not order.overwrite and order.limit is None:
        # What a killed run left becomes readable now, not only when this one ends.
        frozen = run_files.write(store, author, order.config, draft, want)
        base = merge.merge(store, base, mine, state, replace(change, draft=replace(draft, listing=frozen)))
        want = Want(table=want.table, accepted=want.versions.copy())
        state, mine = dataset_keys.load(store, base, []), []
    todo = subtract(store, order, state, want)
    if order.limit is not None:
        want = changes.put_off(store, state, want, todo)
    frozen = run_files.write(store, author, order.config, draft, want)
    end = compute(author, todo)
    say("writing")
    held.check()
    whole = end.error is None and not end.stopped and not end.spent
    if whole or not order.overwrite:
        if todo.todo.num_rows or todo.failures.num_rows or mine:
            mine = [p for p in parts.committed(store) if _belongs(p, order, epoch) and p.name not in base.folded]
            state = dataset_keys.load(store, Snapshot(version=0) if order.overwrite else base, mine)
        draft = replace(draft, listing=frozen)
        change = replace(change, want=want, draft=draft, void=todo.void, settled=todo.settled, merge=whole)
        base = merge.merge(store, base, mine, state, change)
    if end.error is not None:
        raise end.error
    if end.stopped:
        raise Stopped(f"Stopped: {store.place} is consistent, the same command continues.")
    if end.spent and order.overwrite:
        left = todo.todo.num_rows + todo.failures.num_rows - sum(p.rows for p in parts.committed(store) if p.run == run)
        raise LimitSpent(
            f"{end.spent} is reached, and {counted(left, 'images remain')}: the results before stay until the new ones "
            "are whole; the same command continues."
        )
    return base, todo


def _belongs(part: Part, order: UpdateRequest, epoch: int) -> bool:
    return part.fingerprint == order.fingerprint and part.epoch == epoch


def unfolded(store: Store, order: UpdateRequest, base: Snapshot) -> tuple[int, list[Part], list[Part]]:
    """Return the overwrite epoch of this run, the unfolded parts that count in it, and those that do not.

    An interrupted ``--overwrite`` with the same fingerprint goes on in its own epoch.
    """
    left = [part for part in parts.committed(store) if part.name not in base.folded]
    epoch = base.epoch
    if order.overwrite:
        begun = [p.epoch for p in left if p.epoch > base.epoch and p.fingerprint == order.fingerprint]
        epoch = max(begun) if begun else max((p.epoch for p in left), default=base.epoch) + 1
    mine = [part for part in left if _belongs(part, order, epoch)]
    return epoch, mine, [part for part in left if part not in mine]


def compare(store: Store, order: UpdateRequest, base: Snapshot, mine: list[Part]) -> tuple[Known, Want]:
    """Return what the output holds and what it should hold; raises WrongUse where too many images are gone."""
    state = dataset_keys.load(store, Snapshot(version=0) if order.overwrite else base, mine)
    want = changes.wanted(store, order.listing, state, keep=order.limit is not None)
    if not order.allow_deletions:
        known = dataset_keys.load(store, base, []) if order.overwrite else state
        changes.guard(store, known, want, excluded=EXCLUDED in order.listing.skipped)
    if order.by_content:
        want = changes.same_content(store, state, want, order.hasher)
    return state, want


def subtract(store: Store, order: UpdateRequest, state: Known, want: Want) -> Plan:
    """Return what is left to do."""
    return changes.plan(
        store,
        state,
        want,
        started=order.listing.started_ns,
        failures=order.listing.failures,
        retry_failed=order.retry_failed,
        limit=order.limit,
        hasher=order.hasher,
    )


def _draft(order: UpdateRequest, base: Snapshot, author: Author) -> Snapshot:
    return Snapshot(
        version=base.version,
        run=author.run,
        epoch=author.epoch,
        fingerprint=order.fingerprint,
        facts=order.facts,
        resolved=order.resolved,
        source=order.listing.source,
        root=order.listing.root,
        listing_rules=order.listing.rules,
        skipped=order.listing.skipped,
        libraries=order.libraries,
    )
