"""The curves of a run as TensorBoard's event files, made of the rows of its history: one point an epoch, each once."""

from __future__ import annotations

import fnmatch
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from cvjobs.common.errors import storage_failure
from cvjobs.common.fingerprint import facts
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store
from cvjobs.training.plan import TrainPlan

FOLDER = "tensorboard"
CURVES = {"train/loss": "train_loss", "val/loss": "val_loss", "lr": "lr", "images_per_second": "images_per_second"}
_FILES = "events.out.tfevents.*"


class Events:
    """The event files of one run; one writer, which has written a point when the call for it returns.

    (tensorboardX's own ``SummaryWriter`` writes in a thread, and waits for ever where that met a full disk.)
    """

    def __init__(
        self, run: Store, metric: str, settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
    ) -> None:
        """Begin with the epochs so far, rows of ``history.parquet``; ``metric`` is the name of that column's values.

        What an earlier process wrote may end within a record, or with an epoch whose checkpoint was never made: its
        files are replaced, and what they should have had is written again, with the times that the epochs took.

        Raises:
            CvjobsError: the run's folder cannot be written to.
        """
        self._bucket = None if isinstance(run, LocalStore) else run
        self._spool = tempfile.TemporaryDirectory(prefix="cvjobs-") if self._bucket else None
        folder = Path(self._spool.name if self._spool else run.place) / FOLDER
        self._folder, self._curves = folder, {**CURVES, f"val/{metric}": "metric"}
        if self._bucket:
            self._bucket.delete(FOLDER)
        try:
            for file in folder.glob(_FILES):
                file.unlink()
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            self._put(summary.text("settings", _table(settings)), 0, time.time())
            ago = sum(row["seconds"] for row in history)
            for row in history:
                ago -= row["seconds"]
                self._row(row, time.time() - ago)
            self._flush()
        except OSError as error:
            raise storage_failure(error, str(folder), begun=True) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the row of an epoch that has just ended; raises OSError where that is not possible."""
        self._row(row, time.time())
        self._flush()

    def _flush(self) -> None:
        """Have all events in the run: an object is put anew, for it cannot grow."""
        self._writer.flush()
        if self._bucket:
            for file in self._folder.iterdir():
                self._bucket.write_bytes(f"{FOLDER}/{file.name}", file.read_bytes())

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        if self._spool:
            self._spool.cleanup()

    def _row(self, row: Mapping[str, Any], moment: float) -> None:
        values = [Summary.Value(tag=tag, simple_value=row[column]) for tag, column in self._curves.items()]
        self._put(Summary(value=values), row["epoch"], moment)

    def _put(self, what: Summary, step: int, moment: float) -> None:
        self._writer.write_event(Event(wall_time=moment, step=step, summary=what))


def complete(run: Store, metric: str, settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
    """Write the event files of a run that ended without any; raises as ``Events``."""
    if not fnmatch.filter(run.names(FOLDER), _FILES):
        Events(run, metric, settings, history).close()


def settings(plan: TrainPlan) -> dict[str, Any]:
    """Return what is trained, and how, by name."""
    subject = plan.subject
    own = {"task": subject.task, "model": subject.model, "weights": subject.weights, "seed": subject.seed}
    return {**own, "batch_size": plan.batch, "precision": plan.precision, **facts(plan.recipe)}


def _table(values: Mapping[str, Any]) -> str:
    """Return names and values as the Markdown that TensorBoard shows."""
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())])
