"""What a step's output holds beyond its counts: numbers of what was found, classes, and the distribution of scores."""

from __future__ import annotations

from dataclasses import dataclass, field

from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.prediction.report import findings, history, result_statistics
from cvjobs.prediction.report.result_statistics import Statistics
from cvjobs.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class ResultScores:
    """``counts`` is how many scores there are in each of equal bins from 0 to 1, ``titles`` of a chart and its axes.

    ``classes`` counts detections or images (of class maps: percent of all pixels) by class, the most frequent ones.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    titles: tuple[str, str, str] = ("", "", "")
    counts: tuple[int, ...] = ()


def of(store: Store) -> ResultScores | None:
    """Return what the command that has just ended counted for its own page; None for outputs without scores.

    Raises a CvjobsError where there is no output or it cannot be read; no result is read for it.
    """
    reader = open_newest(store)
    task = reader.task
    if task not in findings.TASKS:
        return None
    total = Statistics()
    for found in result_statistics.gather(store, reader.snapshot.results, task, reader.categories, 0.0).values():
        total.add(found)
    runs = history.load(store)
    what = "percent of pixels" if task == "semantic" else "class"
    return ResultScores(
        numbers=runs[-1].numbers if runs else {},
        classes={f"{what}: {name}": round(number, 2) for name, number in runs[-1].by_class.items()} if runs else {},
        titles=findings.TASKS[task].scores,
        counts=tuple(int(count) for count in total.scores),
    )
