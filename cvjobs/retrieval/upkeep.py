"""Bringing an index up to date with its embeddings: nothing, an update or a new build, published as a generation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cvjobs.context import libraries
from cvjobs.dataset import layout, lease, snapshot, versions
from cvjobs.errors import OutputHeld, WrongUse
from cvjobs.retrieval import build, generation, kinds
from cvjobs.retrieval.generation import Generation
from cvjobs.retrieval.report import Report
from cvjobs.retrieval.vectors import Embeddings, open_embeddings
from cvjobs.storage import Store, open_store

__all__ = ["Order", "info", "update"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked of an index; ``max_memory`` in bytes, None for half of what is free."""

    kind: str = "auto"
    max_memory: int | None = None
    target_recall: float = 0.95
    rebuild: bool = False


def update(place: str, out: str, order: Order, say: Callable[[str], object]) -> Report:
    """Build the index of the embeddings at ``place``, or bring it up to date, and return what was done.

    Raises a CvjobsError with one sentence for everything a user can cause; the generation before then still answers.
    """
    began = time.monotonic()
    say("reading the embeddings")
    embeddings = open_embeddings(open_store(place))
    store = open_store(out)
    check_place(store, embeddings)
    held = lease.acquire(store)
    try:
        record = {**generation.FORMAT, "source": embeddings.store.place}
        store.create(layout.FORMAT, layout.pack(record))
        new, report = _update(store, embeddings, order, say)
        if new is not None:
            report = replace(report, seconds=round(time.monotonic() - began, 2))
            held.check()
            say("publishing")
            if not generation.publish(store, replace(new, seconds=report.seconds)):
                raise OutputHeld(f"Another run published {store.place} first: run the same command again.")
            generation.sweep(store, new.number)
        report = replace(report, seconds=round(time.monotonic() - began, 2))
        content = layout.pack(report.as_dict())
        store.write(layout.SUMMARY, lambda file: _put(file, content))
        return report
    finally:
        held.release()


def _put(file: object, content: bytes) -> None:
    file.write(content)  # type: ignore[attr-defined]


def check_place(store: Store, embeddings: Embeddings) -> None:
    """Raise WrongUse for an output that holds something else than an index of these embeddings."""
    try:
        record = layout.unpack(store.read(layout.FORMAT)) or {}
    except FileNotFoundError:
        return
    if record.get("format") != generation.FORMAT["format"]:
        raise WrongUse(f"{store.place} holds images' results, no index: choose another -o.")
    if record["source"] != embeddings.store.place:
        raise WrongUse(f"{store.place} holds the index of {record['source']}: choose another -o.")


def _update(
    store: Store, embeddings: Embeddings, order: Order, say: Callable[[str], object]
) -> tuple[Generation | None, Report]:
    current = generation.latest(store)
    if current is not None and current.version == embeddings.snapshot.version and not order.rebuild:
        return None, Report.of(store.place, current, kept=current.count)
    number = versions.following(store)
    limit = order.max_memory or kinds.default_memory()
    kind = kinds.choose(order.kind, len(embeddings), embeddings.dim, limit)
    folder = generation.new_folder(number)
    say(f"building ({kind.factory})")
    base = build.build(store, folder, embeddings, kind)
    of = embeddings.snapshot
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
        embeddings=embeddings.store.place,
        version=of.version,
        source=of.source,
        root=of.root,
        listed_in="" if of.root else os.path.dirname(of.source),
        target_recall=order.target_recall,
        recall=base.recall,
        queries=base.queries,
        nprobe=base.nprobe,
        rerank=base.rerank,
        max_memory=limit,
        built=snapshot.now(),
        seconds=0.0,
        libraries=libraries(),
        files=base.files,
    )
    return new, Report.of(store.place, new, added=new.count, rebuilt=True)


def info(out: str) -> Report:
    """Return what an index holds; raises WrongUse where there is none."""
    store = open_store(out)
    current = generation.latest(store)
    if current is None:
        raise WrongUse(f"{store.place} holds no index: name the -o folder of `cvjobs index`.")
    return Report.of(store.place, current, kept=current.count)
