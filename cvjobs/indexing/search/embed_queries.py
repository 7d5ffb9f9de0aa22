"""Where queries come from: an ``embed`` output as it is, or images that the index's own model turns into vectors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.failures import CODES
from cvjobs.common.fingerprint import digest
from cvjobs.common.formatting import shortened
from cvjobs.config.options import BatchOptions
from cvjobs.dataset import snapshot
from cvjobs.dataset.snapshot_reader import SnapshotReader, open_newest
from cvjobs.dataset.update import differences
from cvjobs.indexing.generation import Generation
from cvjobs.indexing.search.output import AnswerFolder
from cvjobs.indexing.search.queries import Queries
from cvjobs.prediction import model_choice, run
from cvjobs.prediction.context import Resolved
from cvjobs.prediction.model_choice import ModelRecord
from cvjobs.prediction.placement import Placement
from cvjobs.prediction.summary import Summary
from cvjobs.prediction.tasks.embed import EmbedRequest
from cvjobs.sources.left_out import NamedCount
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, open_store

EMBEDDED = "_cvjobs/queries"
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The queries of a source, and which of its images could not become one (by code; the first with a reason).

    ``skipped_by`` and ``left_out`` as in ``Summary``.
    """

    queries: Queries
    exit_code: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)
    skipped_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, NamedCount] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QueryModel:
    """The model that made the index at ``index``; ``weights`` is where its file is now, if not where it was."""

    index: str
    generation: Generation
    weights: str | None = None


def ask(source: str, model: QueryModel, out: AnswerFolder, options: dict[str, Any]) -> Asked:
    """Return the queries of a source, embedded below ``out`` where it holds images.

    ``options`` are of ``BatchOptions``. Raises WrongUse where the vectors are not of the index's model, or cannot be
    made; JobFailed where the only image is bad.
    """
    if is_words(source):
        raise WrongUse(
            f"There is no file or folder {shortened(source)!r}, and words are not searched: name an image, a folder, a "
            "list or an output of `cvjobs embed`."
        )
    given = _embeddings(source, out.options)
    if given is not None:
        _check(given, model)
        if options.get("exclude"):
            raise WrongUse(f"{source} holds vectors, of which none can be excluded: leave out --exclude.")
        return Asked(queries=given)
    # Another source or model gets another folder, so that each continues what it began.
    name = hashlib.sha256(f"{model.generation.fingerprint} {Path(source).absolute()}".encode(errors="surrogateescape"))
    folder = f"{EMBEDDED}/{name.hexdigest()[:16]}"
    asked = BatchOptions(source=source, out=f"{out.store.place}/{folder}", allow_deletions=True, **options)
    summary = run.run(asked, _Embed(model, asked.accept_licence))
    assert isinstance(summary, Summary)
    for other in out.store.names(EMBEDDED):
        if f"{EMBEDDED}/{other}" != folder:
            out.store.delete(f"{EMBEDDED}/{other}")
    return _asked(source, open_store(asked.out, options=out.options), summary)


def is_words(source: str) -> bool:
    """Return whether a source that is not there has nothing of a file's name: no folder, no ending, no pattern."""
    return not os.path.lexists(source) and not any(mark in source for mark in "/.*?[")


def _embeddings(source: str, options: Options) -> Queries | None:
    if source.startswith(("http://", "https://")) or ("://" not in source and not os.path.isdir(source)):
        return None
    store = open_store(source, options=options)
    base = snapshot.latest(store)
    return Queries(reader=SnapshotReader(store=store, snapshot=base)) if base.version else None


def _check(given: Queries, model: QueryModel) -> None:
    made, reader = model.generation, given.reader
    if reader.snapshot.fingerprint != made.fingerprint:
        raise WrongUse(
            f"The index {model.index} and the queries in {reader.store.place} have vectors of different models "
            f"({differences(made.facts, reader.snapshot.facts)}): embed them with the index's, or query the images."
        )


def _asked(source: str, store: Store, summary: Summary) -> Asked:
    if not summary.ok + summary.failed:
        raise WrongUse(f"There is no image in {source} any more: give a source with images.")
    reader = open_newest(store)
    failed = _failed(reader)
    if summary.failed == 1 and not summary.ok and Path(source).is_file() and source.endswith(failed[0]["path"]):
        (one,) = failed
        raise JobFailed(f"{source} is no query ({one['code']}, {one['detail']}): {CODES[one['code']].remedy}.")
    return Asked(
        queries=Queries(reader=reader),
        exit_code=summary.exit_code,
        failures=summary.failures,
        failed=failed,
        skipped_by=summary.skipped_by,
        left_out=summary.left_out,
    )


def _failed(reader: SnapshotReader) -> list[dict[str, str]]:
    named: list[dict[str, str]] = []
    for table in reader.errors(["path", "code", "detail"]):
        named += table.sort_by("path").slice(0, NAMED - len(named)).to_pylist()
    return named


class _Embed:
    """The job: the model that an index was made with."""

    command = "query"

    def __init__(self, model: QueryModel, accepted: Sequence[str]) -> None:
        self._model, self._accepted = model, accepted

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Return the model's step; raises WrongUse where it is not the one that the index was made with."""
        generation = self._model.generation
        made = ModelRecord.load(generation.resolved, EmbedRequest)
        if made is None:
            raise WrongUse(
                f"The index {self._model.index} does not say how its vectors were made: query it with the vectors that "
                "`cvjobs embed` makes of the images."
            )
        request = replace(made.asked, weights=self._model.weights or made.asked.weights)
        cut = made.transform.truncated
        resolved = model_choice.resolve(
            request,
            made.precision,
            earlier or generation.resolved,
            cut,
            placement=placement,
            accepted=self._accepted,
        )
        if digest(resolved.facts) != generation.fingerprint:
            raise WrongUse(
                f"The index {self._model.index} was made otherwise than this machine embeds "
                f"({differences(generation.facts, resolved.facts)}): name the same weights with --weights."
            )
        return resolved
