"""One night from its first step to its last: what is done is skipped, the first failure ends it, a page shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cvjobs.common.errors import CvjobsError, Stopped, TooManyFailed, WrongUse, storage_failure
from cvjobs.common.progress import tell
from cvjobs.common.signals import Stop, stoppable
from cvjobs.dataset import contents, lock, schema
from cvjobs.operations.nightly import affected_images, night_page, night_step, record, scores
from cvjobs.operations.nightly.outcome import Outcome, Preview
from cvjobs.operations.nightly.pipeline_file import NightStep, Pipeline
from cvjobs.operations.nightly.record import Night, Status, StepRecord, Try
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.storage_options import parse_options
from cvjobs.storage.store import Store, open_store


def preview(pipeline: Pipeline) -> Preview:
    """Return what a night would do, and change nothing."""
    store = _store(pipeline)
    earlier = record.load(store)
    return replace(Preview.of(pipeline, record.tonight(store, pipeline, earlier)), exit_code=0)


def run(pipeline: Pipeline, say: Callable[[str], None]) -> Outcome:
    """Run what is left of the night; a step that fails is in the outcome, a CvjobsError is about the night itself.

    Raises OutputHeld, with the holder named, while another command works on a night of this pipeline, and where one
    has taken this night over.
    """
    store = _store(pipeline)
    with lock.held(store, say) as held:
        record.tidy(store)
        earlier = record.load(store)
        if earlier and earlier[-1].status == "running":
            earlier[-1].bury()
            record.keep(store, earlier[-1])
        night = record.tonight(store, pipeline, earlier)
        earlier = [other for other in earlier if other.number != night.number]
        with stoppable() as stop:
            stop.guarded = True
            _Watch(pipeline, store, held, night, earlier, say).run(stop)
        return Outcome.of(pipeline, night)


def broken_off(pipeline: Pipeline, error: CvjobsError) -> Outcome:
    """Return the outcome of a night that an error ended, which may be none of its steps': of what is known of it."""
    try:
        store = _store(pipeline)
        night = record.tonight(store, pipeline, record.load(store))
    except (CvjobsError, OSError):
        night = Night(pipeline=pipeline.name, number=0, steps=[], tries=[])
    found = Outcome.of(pipeline, night)
    return replace(found, status="failed", exit_code=error.exit_code, reason=str(error))


def _store(pipeline: Pipeline) -> LocalStore:
    store = open_store(str(pipeline.state), option=_option(pipeline))
    assert isinstance(store, LocalStore)
    contents.check(store, contents.NIGHTS, "give the nights a 'state' folder of their own")
    others = {night.pipeline for night in record.load(store)} - {pipeline.name}
    if others:
        raise WrongUse(
            f"{pipeline.state} holds the nights of '{min(others)}', not of '{pipeline.name}': "
            "give each pipeline a 'state' folder of its own."
        )
    return store


def _option(pipeline: Pipeline) -> str:
    return f"'state' in {pipeline.file.name}"


def _newer(store: Store, since: float) -> bool:
    return isinstance(store, LocalStore) and (store.root / schema.REPORT).stat().st_mtime >= since


class _Watch:
    """The run of a night: keeps its record and its page true while the steps run."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: LocalStore,
        held: lock.Lock,
        night: Night,
        earlier: list[Night],
        say: Callable[[str], None],
    ) -> None:
        self._pipeline, self._store, self._held = pipeline, store, held
        self._night, self._earlier, self._say = night, earlier, say

    def run(self, stop: Stop) -> None:
        """Run the steps that are not done, up to the first that fails."""
        night = self._night
        now = time.time()
        night.status = "running"
        night.tries.append(Try(began=now, ended=now, status="running"))
        try:
            for number, (entry, step) in enumerate(zip(night.steps, self._pipeline.steps, strict=True), start=1):
                if entry.status == "done":
                    self._say(f"{step.name} ({number} of {len(night.steps)}): done before")
                    continue
                night.tries[-1].step = night.tries[-1].step or step.name
                self._say(f"{step.name} ({number} of {len(night.steps)}): {step.line}")
                status = self._step(number, entry, step, stop)
                if status != "done":
                    return self._end(status, f"{step.name}: {entry.reason}")
                if stop.asked and number < len(night.steps):
                    return self._end("stopped", f"it was stopped after {step.name}")
            return self._end("done", "")
        except KeyboardInterrupt:
            for entry in night.steps:
                if entry.status == "running":
                    entry.status, entry.exit_code, entry.ended = "stopped", Stopped.exit_code, time.time()
                    entry.reason = "it was stopped at once, by a second signal"
            self._end("stopped", "it was stopped at once, by a second signal")

    def _step(self, number: int, entry: StepRecord, step: NightStep, stop: Stop) -> Status:
        entry.begin()
        self._night.failed = None
        self._keep()
        files = self._store.root / self._night.folder / f"{number:02d}-{step.name}"
        try:
            ended = night_step.run(step, self._pipeline.folder, files, stop, self._held.glance)
        except OSError as error:
            raise storage_failure(error, self._store.place, _option(self._pipeline), begun=True) from error
        entry.ended = time.time()
        entry.exit_code, entry.reason, entry.summary = ended.code, ended.reason, ended.summary
        stopped = ended.code == Stopped.exit_code or night_step.spent(ended.summary)
        entry.status = "done" if not ended.code else "stopped" if stopped else "failed"
        if stop.asked and entry.status == "failed":
            entry.status, entry.exit_code = "stopped", Stopped.exit_code
        entry.page = self._page_of(step, files, 0.0 if entry.status == "done" else entry.began)
        if entry.status == "done" or (ended.code == TooManyFailed.exit_code and affected_images.holds_results(entry)):
            self._note_scores(entry, step)
        self._count_failed()
        self._keep()
        return entry.status

    def _page_of(self, step: NightStep, files: Path, since: float) -> str:
        """Keep the page that a step's command left, which the next night's will replace; return its name.

        A step that failed may have left the page of another night: one older than ``since`` is not its own.
        """
        store = self._store_of(step) if step.command not in affected_images.AGAIN else None  # that of another step
        try:
            if store is None or (since and not _newer(store, since)):
                return ""
            files.with_name(f"{files.name}.html").write_bytes(store.read(schema.REPORT))
        except (OSError, CvjobsError):
            return ""  # a command without a page, or one that had no time to write it
        return f"{files.name}.html"

    def _store_of(self, step: NightStep) -> Store | None:
        """Return where a step's output is, None for a step without one."""
        out = step.values.get("out")
        if not out:
            return None
        try:
            place = out if "://" in out else str(self._pipeline.folder / Path(os.path.expanduser(out)))
            return open_store(place, options=parse_options(step.values.get("storage_option", ())))
        except CvjobsError:
            return None

    def _note_scores(self, entry: StepRecord, step: NightStep) -> None:
        """Note what the output holds beyond the command's counts; a night is worth more than that."""
        store = self._store_of(step)
        try:
            found = scores.of(store) if store else None
        except CvjobsError:
            return  # an index, or rows of a query: neither has scores
        except Exception as error:  # noqa: BLE001 - see above
            tell(f"the scores of {step.name} cannot be compared ({error}).")
            return
        if found:
            entry.scores, entry.titles = list(found.counts), list(found.titles)
            entry.summary |= {"found": found.numbers, "classes": found.classes}

    def _count_failed(self) -> None:
        """Count the images that failed in this night, each once, in whatever steps."""
        steps = zip(self._night.steps, self._pipeline.steps, strict=True)
        known = [step for work, step in steps if affected_images.holds_results(work) and work.summary["failed"]]
        try:
            self._night.failed = affected_images.count_once(filter(None, map(self._store_of, known)))
        except Exception as error:  # noqa: BLE001 - a night is worth more than that
            tell(f"the images that failed are counted once a step ({error}).")

    def _end(self, status: Status, reason: str) -> None:
        self._night.status = self._night.tries[-1].status = status
        self._night.tries[-1].reason = reason
        self._keep()

    def _keep(self) -> None:
        self._held.check()
        self._night.tries[-1].ended = time.time()
        record.keep(self._store, self._night)
        try:
            night_page.leave(self._store, self._pipeline, self._night, self._earlier)
        except Exception as error:  # noqa: BLE001 - a night is worth more than its page
            why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
            tell(f"this night has no {schema.REPORT} ({why}).")
