"""Bringing an index up to date with its embeddings: nothing, an update or a new build, published as a generation."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvjobs.common.errors import OutputHeld, WrongUse
from cvjobs.common.fingerprint import libraries
from cvjobs.common.paths import plain
from cvjobs.common.progress import Progress
from cvjobs.dataset import contents, lock, schema, snapshot, versions
from cvjobs.indexing import damage, delta, generation, index_files, index_page, kinds
from cvjobs.indexing.builder import build
from cvjobs.indexing.builder.build import Add, Site
from cvjobs.indexing.delta import Difference, Update
from cvjobs.indexing.generation import Generation
from cvjobs.indexing.index_report import IndexReport
from cvjobs.indexing.vectors import Embeddings, no_vector, open_embeddings
from cvjobs.storage.store import Store, open_store

CHURN = 0.2  # of the base: more, and a new build searches faster and measures its recall anew

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class IndexRequest:
    """What is asked of an index; ``max_memory`` in bytes, None for half of what is free.

    ``rebuild`` builds anew where an update would do. ``add`` codes the vectors, spread over ``workers`` workers.
    """

    kind: str = "auto"
    max_memory: int | None = None
    target_recall: float = 0.95
    rebuild: bool = False
    workers: int = 1
    add: Add = build.in_turn
    storage: Mapping[str, str] = field(default_factory=dict)


def update(place: str, out: str, request: IndexRequest, progress: Progress) -> IndexReport:
    """Build the index of the embeddings at ``place``, or bring it up to date, and return what was done.

    Raises a CvjobsError with one sentence for everything a user can cause; the generation before then still answers.
    """
    say = progress.phase
    say("reading the embeddings")
    store = open_store(out, options=request.storage)
    contents.check(store, contents.INDEX)
    known = generation.latest(store)
    embeddings = open_embeddings(open_store(place, options=request.storage), known.dim if known else 0)
    _check_source(store, embeddings)
    limit = request.max_memory or kinds.default_memory()
    # What is free now limits a new base; an index that is there is not refused for it.
    if len(embeddings) and (request.max_memory or known is None or not _satisfies(known, request, embeddings)):
        kinds.choose(request.kind, len(embeddings), embeddings.dim, limit)
    with lock.held(store) as held, embeddings.reader.unless_replaced("run the same command again"):
        contents.sign(store, contents.INDEX, embeddings.reader.store.place)
        current = generation.latest(store)
        if current is not None:
            generation.heal(store, current)
        if current is not None and _satisfies(current, request, embeddings):
            say("comparing with the embeddings")
            new, report = _brought_up(store, current, embeddings)
        else:
            new, report = None, None
        if new is None or report is None:
            new, report = _built(store, current, embeddings, limit, request, say)
        report = report.at(progress.phases.spent())
        changed = new != current
        if changed:
            say("writing")
            new = replace(new, seconds=report.seconds)
            _publish(store, held, new)
        _note(store, report)
        if changed:
            say("page")
            index_page.leave(store, new, report, request.storage, ours=True, spent=progress.phases.spent)
        report = report.at(progress.phases.spent())
        _note(store, report)
        return report


def rollback(out: str, storage: Mapping[str, str]) -> IndexReport:
    """Make the generation before the newest one count again, as a new one, and return what it holds."""
    store = open_store(out, options=storage)
    _before(store)
    with lock.held(store) as held:
        before = _before(store)
        again = replace(before, number=versions.following(store))
        _publish(store, held, again)
        report = IndexReport.of(store.place, again, kept=again.count)
        _note(store, report)
        index_page.leave(store, again, report, storage)
        return report


def _before(store: Store) -> Generation:
    """Return the generation to go back to: where the newest one cannot be read, the newest that can."""
    kept = generation.kept(store)
    try:
        newest = generation.current(store)
    except generation.DamagedGeneration:
        whole = [made for made in kept if not generation.lacking(store, made.files)]
        if not whole:
            raise WrongUse(
                f"{store.place} keeps no generation that can be read: {generation.from_the_rest(store)}."
            ) from None
        versions.say(
            f"{store.place}/{versions.name_of(versions.head(store))} is damaged, and generation "
            f"{whole[-1].number} counts again"
        )
        return whole[-1]
    before = next((g for g in kept if g.number == newest.previous), None)
    if before is None:
        raise WrongUse(f"{store.place} keeps no generation before {newest.number}: {generation.anew(store, newest)}.")
    for name, reason in generation.lacking(store, before.files):
        raise WrongUse(
            f"{store.place}/{name} of generation {before.number} is damaged ({reason}), so nobody can go back to it: "
            f"{generation.anew(store, newest)}."
        )
    return before


def info(out: str, storage: Mapping[str, str]) -> IndexReport:
    """Return what an index holds; raises WrongUse where there is none."""
    store = open_store(out, options=storage)
    current = generation.current(store)
    return IndexReport.of(store.place, current, kept=current.count)


def _publish(store: Store, held: lock.Lock, new: Generation) -> None:
    held.check()
    if not generation.publish(store, new):
        raise OutputHeld(f"Another run published {store.place} first: run the same command again.")
    generation.sweep(store, new.number)


def _note(store: Store, report: IndexReport) -> None:
    store.write_bytes(schema.SUMMARY, schema.pack(report.as_dict()))


def _check_source(store: Store, embeddings: Embeddings) -> None:
    """Raise WrongUse for an index of other embeddings."""
    source = contents.signature(store).get("source")
    if source is not None and plain(source) != plain(embeddings.reader.store.place):
        raise WrongUse(f"{store.place} holds the index of {source}: choose another -o.")


def _satisfies(current: Generation, request: IndexRequest, embeddings: Embeddings) -> bool:
    """Return whether an update of a generation can give what is asked for."""
    return (
        not request.rebuild
        and request.kind in ("auto", current.kind)
        and (request.max_memory is None or current.memory <= request.max_memory)
        and request.target_recall <= max(current.recall, current.target_recall)
        and (current.fingerprint, current.dim) == (embeddings.reader.snapshot.fingerprint, embeddings.dim)
    )


def _brought_up(
    store: Store, current: Generation, embeddings: Embeddings
) -> tuple[Generation, IndexReport] | tuple[None, None]:
    """Return the generation that an update makes, the current one where nothing changed, None where too much did.

    Raises DamagedIndex where a file of the current one is gone or cut and no new build is to replace it.
    """
    of = embeddings.reader.snapshot
    # Embeddings that were deleted and made anew number their snapshots from 1 again.
    if current.version == of.version and of.created <= current.built:
        damage.check(store, current.files)
        return current, IndexReport.of(store.place, current, kept=current.count)
    scratch = Path(tempfile.mkdtemp(prefix="cvjobs-index-"))
    try:
        paths = index_files.fetch(store, delta.known_files(current), scratch)
        difference = delta.compare(paths, embeddings)
        same = current.version == of.version and not difference.count
        churn = current.churn + difference.count
        if not same and churn > CHURN * current.base and len(embeddings):
            return None, None
        damage.check(store, current.files)
        if same:
            return current, IndexReport.of(store.place, current, kept=current.count)
        number = versions.following(store)
        work = Update(store=store, current=current, paths=paths, embeddings=embeddings)
        written = work.write(generation.new_folder(number), difference) if difference.count else current.files
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    more = len(difference.added) + len(difference.changed)
    new = replace(
        current,
        number=number,
        previous=current.number,
        count=len(embeddings),
        removed=current.removed + len(difference.dead),
        delta=current.delta + more,
        churn=churn,
        version=of.version,
        confined=embeddings.reader.confined,
        memory=current.memory * (current.base + current.delta + more) // (current.base + current.delta),
        built=snapshot.now(),
        files=written,
    )
    return new, _report(store, new, difference)


def _report(store: Store, new: Generation, difference: Difference) -> IndexReport:
    added, changed = len(difference.added), len(difference.changed)
    kept = new.count - added - changed
    return IndexReport.of(store.place, new, added=added, changed=changed, removed=difference.removed, kept=kept)


def _built(
    store: Store,
    current: Generation | None,
    embeddings: Embeddings,
    limit: int,
    request: IndexRequest,
    say: Say,
) -> tuple[Generation, IndexReport]:
    if not len(embeddings):
        raise no_vector(embeddings.reader.store)
    kind = kinds.choose(request.kind, len(embeddings), embeddings.dim, limit)
    number = versions.following(store)
    site = Site(
        store=store,
        folder=generation.new_folder(number),
        limit=limit,
        add=request.add,
        workers=request.workers,
        options=request.storage,
    )
    base = build.build(site, embeddings, kind, request.target_recall, say)
    of = embeddings.reader.snapshot
    new = Generation(
        number=number,
        previous=current.number if current else 0,
        kind=kind.name,
        factory=kind.factory,
        dim=embeddings.dim,
        count=len(embeddings),
        base=len(embeddings),
        removed=0,
        delta=0,
        fingerprint=of.fingerprint,
        facts=of.facts,
        resolved=of.resolved,
        embeddings=embeddings.reader.store.place,
        version=of.version,
        source=of.source,
        root=of.root,
        listed_in=embeddings.reader.base,
        confined=embeddings.reader.confined,
        target_recall=request.target_recall,
        recall=base.setting.recall,
        queries=base.queries,
        nprobe=base.setting.nprobe,
        rerank=base.setting.rerank,
        memory=kind.memory,
        max_memory=limit,
        built=snapshot.now(),
        seconds=0.0,
        libraries=libraries(),
        files=base.files,
    )
    return new, IndexReport.of(store.place, new, added=new.count, rebuilt=True)
