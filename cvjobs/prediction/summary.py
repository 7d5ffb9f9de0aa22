"""What a run did, as a record, as JSON and as the lines a person reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cvjobs.clusters.machine_hours import MachineHours, stretched, told_cost
from cvjobs.common import phases, rates
from cvjobs.common.formatting import counted
from cvjobs.common.tabular import Tabular
from cvjobs.dataset.snapshot_reader import open_dataset
from cvjobs.images import blank_images
from cvjobs.sources.left_out import NamedCount, first_names, told, told_failed
from cvjobs.storage.storage_options import Options

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Summary(Tabular):
    """The state of the whole output after a run, and what the run itself did.

    ``listed = ok + failed + skipped + remaining``; ``reused`` of the rows were computed by earlier runs;
    ``images_per_second`` is that of ``rates``, 0.0 where there is none; ``phases`` are the seconds of the command's
    phases, which add up to ``seconds``;
    ``failures`` counts what failed by code, ``skipped_by`` what the listing left out by reason; ``first_failed`` and
    ``left_out`` have the first names of each, too. ``new`` and ``changed`` of the images computed the output did not
    know, or knew with another content; ``gone`` are those that the source has no more; the first of both have names.
    ``blank`` counts those that the run decoded and that are black, white, of one colour or equal, as
    ``BlankImages.record`` has it. ``licence`` has those of the model. ``spent`` is the limit of time or money that the
    run reached with images left, which are ``remaining`` then, as the option that sets it; ``cost`` is the record of
    ``machine_hours.Cost``, empty without a price. ``storage`` has the settings of a bucket, which are never printed.
    """

    listed: int
    ok: int
    failed: int
    skipped: int
    remaining: int
    reused: int
    computed: int
    seconds: float
    images_per_second: float
    out: str
    version: int
    exit_code: int
    phases: dict[str, float] = field(default_factory=dict)
    model: str = ""
    licence: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    first_failed: dict[str, NamedCount] = field(default_factory=dict)
    skipped_by: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, NamedCount] = field(default_factory=dict)
    new: int = 0
    changed: int = 0
    gone: int = 0
    first_changed: list[str] = field(default_factory=list)
    first_gone: list[str] = field(default_factory=list)
    blank: dict[str, Any] = field(default_factory=dict)
    report: str = ""
    spent: str = ""
    cost: dict[str, Any] = field(default_factory=dict)
    storage: Options = field(default_factory=dict, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {name: value for name, value in vars(self).items() if name != "storage"}

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Return the results of the output's newest snapshot, one row per image, as ``cvjobs.open(out)`` does."""
        return open_dataset(self.out, self.storage).to_arrow(columns)

    def errors(self) -> pa.Table:
        """Return the failed images of the output's newest snapshot, one row per image."""
        return open_dataset(self.out, self.storage).errors()

    def __str__(self) -> str:
        lines = [
            f"{self.listed:,} listed = {self.ok:,} ok + {self.failed:,} failed + {self.skipped:,} skipped"
            + (f" + {self.remaining:,} remaining" if self.remaining else "")
            + f", missing {self.missing:,}",
            f"{self.computed:,} computed, {self.reused:,} reused, "
            + f"{self.gone:,} gone, " * bool(self.gone)
            + f"{self.seconds:,.1f} s"
            + (f", {rates.told(self.images_per_second)}" if self.images_per_second else ""),
            *([f"  {phases.told(self.phases)}"] if self.computed else []),
            *([f"  cost {told_cost(self.cost)}"] if self.cost else []),
        ]
        lines += [*told_failed(self.first_failed), *told(self.left_out)]
        lines += [f"  {said} ({first_names(count, first)})" for said, count, first in blank_images.many(self.blank)]
        lines.append(
            f"{self.out}/data (snapshot {self.version})" + (f", errors in {self.out}/errors" * bool(self.failed))
        )
        if self.report:
            lines.append(self.report)
        tried = counted(self.ok + self.failed, "images")
        why = {
            3: f"{self.failed:,} of {tried} failed, and --max-error-rate allows fewer",
            4: f"{counted(self.missing, 'images have')} no row; run the same command again"
            if not self.spent
            else f"{self.spent} is reached, and {counted(self.remaining, 'images remain')}: the same command continues",
        }
        if self.exit_code in why:
            lines.append(f"exit code {self.exit_code}: {why[self.exit_code]}")
        return "\n".join(lines)

    def at(self, took: dict[str, float], machines: MachineHours) -> Summary:
        """Return the summary after these phases, with what the machines cost until now."""
        seconds = phases.whole(took)
        return replace(self, seconds=seconds, phases=took, cost=machines.cost(seconds).as_dict())

    def longer(self, took: dict[str, float]) -> Summary:
        """Return the summary after more phases, for which all its machines stayed."""
        seconds = phases.whole(took)
        cost = stretched(self.cost, seconds / self.seconds) if self.seconds else self.cost
        return replace(self, seconds=seconds, phases=took, cost=cost)

    @property
    def missing(self) -> int:
        """Images that no row and no limit accounts for."""
        return self.listed - self.ok - self.failed - self.skipped - self.remaining


def exit_code(ok: int, failed: int, missing: int, max_error_rate: float, spent: str = "") -> int:
    """Return 4 where images are missing, or left when a limit was ``spent``, 3 where too many failed, else 0."""
    if missing or spent:
        return 4
    return 3 if failed > max_error_rate * (ok + failed) else 0
