"""What a page says of detections, masks and labels: figures, pictures, charts and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cvjobs.common import categories as common_categories
from cvjobs.common import formatting
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.html import charts as html_charts
from cvjobs.html import palette
from cvjobs.html.charts import Histogram
from cvjobs.prediction.context import Context
from cvjobs.prediction.report import result_pictures, result_statistics
from cvjobs.prediction.report.result_pictures import ResultPicture
from cvjobs.prediction.report.result_statistics import COUNTS, SCORES, SIDES, Statistics

CLASSES = 20  # as bars
REMEMBERED = 100
LEGEND = 20
LEAST, SHARE, STOPPED = 10.0, 0.01, 2.0  # s for statistics: at least, of the run's time, and after a stop


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a task's results are called; ``scored`` says what the score of an image is."""

    heading: str
    charts: str
    things: str
    empty: str
    none: str
    classes: str
    scores: tuple[str, str, str]
    scored: str
    counts: tuple[str, str, str] | None = None


_DETECT = Task(
    heading="What was found",
    charts="Scores and sizes",
    things="detections",
    empty="images without a detection",
    none="Without a detection",
    classes="Detections by class",
    scores=("Detections by score", "score", "detections"),
    scored="the score of its best detection",
    counts=("Images by number of detections", "detections in the image", "images"),
)
TASKS = {
    "detect": _DETECT,
    "instance": _DETECT,
    "semantic": Task(
        heading="What was found",
        charts="Coverage",
        things="pixels with a class",
        empty="images without a class",
        none="Without a class",
        classes="Share of all pixels by class",
        scores=("Images by covered share", "share of the image's pixels that have a class", "images"),
        scored="the share of its pixels that have a class",
        counts=("Images by number of classes", "classes in the image", "images"),
    ),
    "classify": Task(
        heading="What was seen",
        charts="Scores",
        things="images with a label",
        empty="images without a label",
        none="Without a label",
        classes="Images by label",
        scores=("Images by score", "score of the label", "images"),
        scored="the score of its label",
    ),
}
TITLES = {"all": "Every image", "lowest": "Lowest scores", "median": "Median scores", "highest": "Highest scores"}
SHARES = {"lowest": "Least covered", "median": "In the middle", "highest": "Most covered"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the sheet; ``legends`` say of each picture what its colours are, where tags do not."""

    title: str
    caption: str
    pictures: list[ResultPicture]
    legends: list[list[tuple[int, str, str]]]


@dataclass(frozen=True, kw_only=True)
class Class:
    """A bar: ``share`` is its length (0..1), ``figure`` what there is of the class, ``change`` since the run before."""

    colour: int | None
    name: str
    share: float
    figure: str
    change: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the page shows; ``numbers`` and ``by_class`` are what the history remembers for the next run."""

    task: Task
    images: int = 0
    counted: int = 0
    figures: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    legend: list[tuple[int, str, str]] = field(default_factory=list)
    unnamed: int = 0
    charts: list[Histogram] = field(default_factory=list)
    sizes: str = ""
    classes: list[Class] = field(default_factory=list)
    rest: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)


def find(
    context: Context, base: Snapshot, seconds: float, stopped: bool, idle: bool, before: Mapping[str, float]
) -> Findings | None:
    """Return what an output holds; None for vectors.

    ``seconds`` is how long the run took, ``idle`` says that it computed nothing, ``before`` is ``by_class`` of the
    run before. Raises JobFailed where the output cannot be read.
    """
    name = common_categories.task(context.resolved.facts)
    if name not in TASKS:
        return None
    task, categories = TASKS[name], common_categories.things(context.resolved.facts)
    allowed = STOPPED if stopped else max(LEAST, SHARE * seconds)
    files = result_statistics.gather(context.store, base.results, name, categories, allowed)
    total = Statistics()
    for found in files.values():
        total.add(found)
    if not total.images:
        return Findings(task=task, images=base.ok)
    chosen = result_pictures.choose(files)
    places = list(dict.fromkeys(place for row in chosen.values() for place in row))
    shown = result_pictures.of(context, base, places, name, idle)
    names = {c.id: c.name for c in categories}
    by_class = _by_class(total, names, name == "semantic")
    segments = name in ("semantic", "instance")
    legend = [] if segments else _legend(shown.values(), names)
    ordered = sorted(by_class.items(), key=lambda item: (-item[1], item[0]))
    return Findings(
        task=task,
        images=base.ok,
        counted=total.images,
        figures=_figures(task, total, len(by_class), len(categories)),
        rows=_rows(task, chosen, shown, total, names if segments else None),
        legend=legend[:LEGEND],
        unnamed=max(len(legend) - LEGEND, 0),
        charts=_charts(task, total),
        sizes=_sizes(total),
        classes=_classes(
            ordered[:CLASSES],
            categories,
            before,
            name == "semantic",
            name != "classify" or len(categories) <= len(palette.COLOURS),
        ),
        rest=_rest(ordered[CLASSES:], name == "semantic"),
        numbers=_numbers(task, total),
        by_class=dict(ordered[:REMEMBERED]),
    )


def _numbers(task: Task, total: Statistics) -> dict[str, float]:
    share = {"percent of pixels with a class": round(100 * total.things / total.pixels, 2)} if total.pixels else {}
    return {**(share or {task.things: float(total.things)}), task.empty: float(total.empty)}


def _by_class(total: Statistics, names: Mapping[int, str], shares: bool) -> dict[str, float]:
    """Return how much there is of each class, by its name: things, or percent of all pixels."""
    found: dict[str, float] = {}
    for category_id, number in total.classes.items():
        name = names.get(category_id, f"class {category_id}" if category_id >= 0 else "other")
        found[name] = found.get(name, 0.0) + (100 * number / max(total.pixels, 1) if shares else number)
    return found


def _figures(task: Task, total: Statistics, seen: int, known: int) -> list[tuple[str, str]]:
    figures = [(formatting.count(total.empty), task.none.lower())]
    if total.pixels:
        figures.insert(0, (formatting.percent(total.things / total.pixels), "of all pixels have a class"))
    else:
        figures.insert(0, (formatting.count(total.things), task.things))
    if task.counts and not total.pixels:
        figures.append((formatting.count(round(total.things / total.images, 1)), f"{task.things} an image"))
    if not total.pixels and total.scores.sum():
        middle = np.searchsorted(np.cumsum(total.scores), total.scores.sum() / 2)
        figures.append((f"{(middle + 0.5) / SCORES:.2f}", "median score"))
    return [*figures, (f"{seen:,} of {known:,}" if known else f"{seen:,}", "classes seen")]


def _rows(
    task: Task,
    chosen: Mapping[str, Sequence[result_pictures.Place]],
    shown: Mapping[result_pictures.Place, ResultPicture],
    total: Statistics,
    names: Mapping[int, str] | None,
) -> list[Row]:
    titles = {**TITLES, **(SHARES if total.pixels else {}), "without": task.none}
    captions = {
        "all": f"in the order of {task.scored}",
        "lowest": f"an image counts by {task.scored}",
        "median": "around the median of all images",
        "highest": "the highest first",
        "without": f"{formatting.count(total.empty)} of {formatting.count(total.images)} images",
    }
    rows = []
    for key, places in chosen.items():
        there = [shown[place] for place in places if place in shown]
        if there:
            legends = [[] if names is None else _legend([picture], names) for picture in there]
            rows.append(Row(title=titles[key], caption=captions[key], pictures=there, legends=legends))
    return rows


def _legend(shown: Iterable[ResultPicture], names: Mapping[int, str]) -> list[tuple[int, str, str]]:
    seen: dict[int, int] = {}
    for picture in shown:
        for category_id in picture.seen:
            seen[category_id] = seen.get(category_id, 0) + 1
    most = sorted(seen, key=lambda i: -seen[i])
    return [(palette.place(i), names.get(i, f"class {i}"), "") for i in most]


def _charts(task: Task, total: Statistics) -> list[Histogram]:
    steps = [f"{i / SCORES:g}" for i in range(SCORES + 1)]
    drawn = [html_charts.histogram(total.scores.tolist(), steps, *task.scores, every=SCORES // 10)]
    if task.counts:
        drawn.append(_trimmed(total.counts.tolist(), COUNTS, task.counts))
    title = ("Detections by size of the box", "side of a square of the same area, pixels", "detections")
    drawn.append(_trimmed(total.sides.tolist(), SIDES, title, edges=True))
    return [chart for chart in drawn if chart and len(chart.bars) > 1]


def _trimmed(
    counts: list[int], firsts: Sequence[int], titles: tuple[str, str, str], edges: bool = False
) -> Histogram | None:
    """Return a chart of bins whose first values are given, without empty bins at its end."""
    last = max((i for i, number in enumerate(counts) if number), default=0)
    if edges:
        names = [*map(str, firsts), "∞"][: last + 2]
    else:
        ends = [*(first - 1 for first in firsts[1:]), None]
        pairs = zip(firsts, ends, strict=True)
        names = [f"{a}+" if b is None else f"{a}" if a == b else f"{a}–{b}" for a, b in pairs][: last + 1]
    return html_charts.histogram(counts[: last + 1], names, *titles)


def _sizes(total: Statistics) -> str:
    """Return the shares of small, medium and large boxes, by COCO's areas, in words."""
    boxes = int(total.sides.sum())
    if not boxes:
        return ""
    first, last = SIDES.index(32), SIDES.index(96)
    pieces = {"small": total.sides[:first], "medium": total.sides[first:last], "large": total.sides[last:]}
    small, medium, large = (f"{formatting.percent(sides.sum() / boxes)} {name}" for name, sides in pieces.items())
    return f"By COCO's areas {small} (under 32 × 32 pixels), {medium}, {large} (from 96 × 96 on)."


def _classes(
    most: Sequence[tuple[str, float]],
    categories: Sequence[common_categories.Category],
    before: Mapping[str, float],
    shares: bool,
    coloured: bool,
) -> list[Class]:
    ids = {c.name: c.id for c in reversed(categories)} if coloured else {}
    complete = len(before) < REMEMBERED
    longest = most[0][1] if most else 1.0

    def change(name: str, now: float) -> str:
        if not before or (name not in before and not complete):
            return ""
        difference = now - before.get(name, 0.0)
        if shares:
            return f"{difference:+.1f}" if abs(difference) >= 0.05 else ""
        return f"{difference:+,.0f}" if difference else ""

    return [
        Class(
            colour=palette.place(ids[name]) if name in ids else None,
            name=name,
            share=number / max(longest, 1e-9),
            figure=_amount(number, shares),
            change=change(name, number),
        )
        for name, number in most
    ]


def _rest(others: Sequence[tuple[str, float]], shares: bool) -> str:
    if not others:
        return ""
    total = _amount(sum(number for _, number in others), shares)
    return f"and {len(others):,} more class{'' if len(others) == 1 else 'es'}: {total}"


def _amount(number: float, shares: bool) -> str:
    if shares:
        return f"{number:.1f}%" if number >= 0.05 else "<0.1%"
    return formatting.count(number)
