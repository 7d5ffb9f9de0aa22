"""What a training run came to, as a record, as JSON and as the lines that a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cvjobs.clusters.machine_hours import MachineHours, told_cost
from cvjobs.common import phases, rates, tabular
from cvjobs.common.formatting import counted, size, visible
from cvjobs.common.tabular import Tabular
from cvjobs.dataset import sealed, sealed_table
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, begun_store
from cvjobs.training.data import omissions
from cvjobs.training.step_costs import StepCosts

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "summary.json"


def figure(name: str, metric: float) -> str:
    """Return a value of the metric of this name as a person reads it."""
    return f"{metric:.2f} dB" if name == "PSNR" else f"{metric:.4f}"


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(Tabular):
    """A finished run. ``classes`` are those of a classifier, 0 of an autoencoder.

    ``metric`` and the losses are those of the best epoch, ``final_loss`` that of the last one.

    ``balanced_accuracy`` is that of the best epoch on val, None of several labels and of an autoencoder.

    ``images`` counts what was trained on, validated and tested with; ``leaks`` the images of val and test whose
    content is in train, too; ``inherited`` the classes whose head began with rows of the weights' own, None where that
    was not asked for. ``left_out`` is the record of ``omissions``, empty of a run before there was one. ``memory``
    is the estimate for a worker in bytes, None where it is unknown. ``licence`` has those of the model and of the
    weights that it began with, empty of a run before it was known. ``phases`` are the seconds of the command's phases,
    which add up to ``seconds``; a run before there were any has none. ``cost`` is the record of ``machine_hours.Cost``
    of that command, empty without a price. The four before it are ``StepCosts`` of all epochs. ``storage`` has the
    settings of a bucket, which are never printed.
    """

    task: str
    model: str
    weights: str
    classes: int
    images: dict[str, int]
    failed: int
    unlabelled: int
    leaks: int
    metric_name: str
    epochs: int
    best_epoch: int
    metric: float
    test_metric: float | None
    train_loss: float
    val_loss: float
    final_loss: float
    images_per_second: float
    seconds: float
    stopped_early: bool
    out: str
    inherited: int | None = None
    parameters: int = 0
    memory: int | None = None
    balanced_accuracy: float | None = None
    left_out: dict[str, Any] = field(default_factory=dict)
    licence: dict[str, str] = field(default_factory=dict)
    up_to_date: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    data_wait: float | None = None
    step_share: float | None = None
    gpu_busy: float | None = None
    gpu_memory: int | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    storage: Options = field(default_factory=dict, repr=False, compare=False)

    def at(self, took: dict[str, float], machines: MachineHours) -> TrainingSummary:
        """Return the summary after these phases, with what the machines cost until now."""
        seconds = phases.whole(took)
        return replace(self, seconds=seconds, phases=took, cost=machines.cost(seconds).as_dict())

    @classmethod
    def read(cls, store: Store, storage: Options | None = None) -> TrainingSummary | None:
        """Return the summary that a finished run left, None where it has not finished or the summary is damaged."""
        try:
            record = sealed.unpack(store.read(FILE))
            return cls(**{**(record or {}), "out": store.place, "up_to_date": True, "storage": storage or {}})
        except (FileNotFoundError, TypeError):
            return None

    def figure(self, metric: float) -> str:
        """Return a value of the metric as a person reads it."""
        return figure(self.metric_name, metric)

    @property
    def _step_costs(self) -> StepCosts | None:
        if self.data_wait is None or self.step_share is None:
            return None
        return StepCosts(
            data_wait=self.data_wait, step_share=self.step_share, gpu_busy=self.gpu_busy, gpu_memory=self.gpu_memory
        )

    @property
    def _size(self) -> str:
        need = f", about {size(self.memory)} of memory" if self.memory else ""
        return f", {self.parameters / 1e6:,.1f} M parameters{need}" if self.parameters else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {name: value for name, value in vars(self).items() if name != "storage"}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the run's history, one row an epoch: the rate, the losses, the metric, the pace."""
        from cvjobs.training.plan import HISTORY

        return tabular.chosen(sealed_table.read(begun_store(self.out, self.storage), HISTORY), columns)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} to {name}" for name, count in self.images.items())
        notes = [
            f"{count:,} {what}"
            for count, what in (
                (self.failed, "failed (errors.parquet)"),
                (self.unlabelled, "without a label or split" if self.classes else "of no split"),
                (self.leaks, "of val and test are in train, too (leaks.parquet)"),
            )
            if count
        ]
        test = f", test {self.metric_name} {self.figure(self.test_metric)}" if self.test_metric is not None else ""
        ended = " (stopped early)" if self.stopped_early else ""
        inherited = f", {self.inherited:,} of them begun as the weights' own" if self.inherited is not None else ""
        lines = [
            f"{counts}; {counted(self.classes, 'classes')}{inherited}" if self.classes else counts,
            *([f"  {', '.join(notes)}"] if notes else []),
            *map(visible, omissions.lines(self.left_out)),
            f"{self.metric_name} {self.figure(self.metric)} in epoch {self.best_epoch} of {self.epochs}{ended}"
            f", val loss {self.val_loss:.4f}{test}",
            "up to date: nothing to train"
            if self.up_to_date
            else ", ".join(filter(None, [f"{self.seconds:,.1f} s", rates.told(self.images_per_second)])),
            *([f"  {phases.told(self.phases)}"] if self.phases and not self.up_to_date else []),
            *([f"  {self._step_costs}"] if self._step_costs and not self.up_to_date else []),
            *([f"  cost {told_cost(self.cost)}"] if self.cost and not self.up_to_date else []),
            f"{self.out} ({self.model}{self._size}; --model {self.out})",
            f"{self.out}/report.html",
        ]
        return "\n".join(lines)
