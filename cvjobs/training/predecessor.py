"""A training that begins with what another run learnt (``--weights RUN``): what it takes from there, in words, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted, shortened
from cvjobs.networks import head_transfer
from cvjobs.networks import weights as files
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.families import training_run
from cvjobs.storage.object_store import address

NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """A run whose model another one begins with; ``side`` is that of its images in pixels, ``labels`` its classes.

    ``backbone`` is a detector's, empty for its own, and ``anchors`` are those that it was given.
    """

    place: str
    task: str
    model: str
    side: int
    dim: int
    labels: tuple[str, ...]
    backbone: str = ""
    anchors: DetectorAnchors | None = None

    def check(self, task: str) -> None:
        """Raise WrongUse where the run learnt another task."""
        if self.task != task:
            remedy = f"give {_asked(self.task)}" if self.task != "classify" else f"leave out --task {task}"
            raise WrongUse(f"{self.place} was trained for {_asked(self.task)}: {remedy}, or --weights of another run.")

    def inherited(self, classes: Sequence[str]) -> list[str]:
        """Return the classes that have the name of one of the run's; see ``head_transfer.matches``."""
        rows = head_transfer.matches(classes, [(label,) for label in self.labels])
        return [classes[number] for number in sorted(rows)]

    def words(self, classes: Sequence[str]) -> str:
        """Return which classes begin as the run knows them, and which anew."""
        known = self.inherited(classes)
        if not known:
            return f"none of {counted(len(classes), 'classes')} is one of {self.place}: all begin anew"
        begin = "begins" if len(known) == 1 else "begin"
        fresh = [name for name in classes if name not in set(known)]
        anew = f"; anew: {_listed(fresh)}" if fresh else ""
        whole = counted(len(classes), "classes")
        return f"{len(known):,} of {whole} {begin} as {self.place} knows them: {_listed(known)}{anew}"


def _asked(task: str) -> str:
    """Return the options that ask for a task."""
    return "--task segment --kind instance" if task == "instance" else f"--task {task}"


def predecessor(weights: str) -> Predecessor | None:
    """Return the run whose folder ``--weights`` names, None where it names something else.

    Raises:
        WrongUse: the run has no model yet, or it is damaged.
    """
    if weights in ("pretrained", "random") or not (address(weights) or Path(weights).is_dir()):
        return None
    found = files.given(weights)
    assert found.file is not None
    about = training_run.about(found.file)
    return Predecessor(
        place=weights,
        task=about.get("task", "classify"),
        model=about["model"],
        side=min(about["transform"]["size"]),
        dim=about.get("dim", 0),
        labels=files.head(found).labels,
        backbone=about.get("backbone", ""),
        anchors=DetectorAnchors.of(about.get("anchors")),
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(shortened, names[:NAMED])) + more
