"""The geometry of line charts and histograms: scales with round ticks, and places as SVG coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvjobs.common import formatting

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
HALF, MARGIN = 480, 20  # the width of a chart that has another one beside it; half a name at its right
NAMES = 13  # bins that are named
_LARGEST = 1e100  # beyond it nothing is drawn
_STEPS = (1, 2, 2.5, 5, 10)
_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where (in SVG units) and what it says."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart: its name, its path and where it ends, in SVG units."""

    name: str
    path: str
    last: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A chart of lines that is ready to draw: axes, the lines, and the first of them closed down to the axis."""

    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    area: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, x_title: str, y_title: str, clock: bool = False
) -> Lines | None:
    """Return the chart of series by name: (x, y) points in the order of x, y from zero; None where none can be drawn.

    A series of which fewer than two points can be drawn is left out. ``clock``: x is seconds, and its ticks are whole
    seconds, minutes or hours.
    """
    drawn = {name: _drawable(points) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if len(points) > 1 and points[-1][0] > points[0][0]}
    if not drawn:
        return None
    every = [point for points in drawn.values() for point in points]
    first, final = min(x for x, _ in every), max(x for x, _ in every)
    highest = max(0.0, *(y for _, y in every)) or 1.0
    y_step = _step(highest / 4)
    top = math.ceil(highest / y_step - 1e-9) * y_step

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (final - first)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - max(y, 0.0) / top * (HEIGHT - TOP - BOTTOM), 1),
        )

    placed = {name: [place(x, y) for x, y in points] for name, points in drawn.items()}
    paths = [
        Series(name=name, path="M" + " L".join(f"{x:g} {y:g}" for x, y in points), last=points[-1])
        for name, points in placed.items()
    ]
    floor, (left, _), (right, _) = HEIGHT - BOTTOM, *(next(iter(placed.values()))[end] for end in (0, -1))
    x_step = _clock(final - first) if clock else _step((final - first) / 6)
    if all(x == int(x) for x, _ in every):
        x_step = math.ceil(x_step)
    return Lines(
        title=title,
        x_title=x_title,
        y_title=y_title,
        x_ticks=[
            Tick(place(x, 0)[0], _time(x) if clock else formatting.count(x)) for x in _multiples(first, final, x_step)
        ],
        y_ticks=[Tick(place(first, y)[1], formatting.count(y)) for y in _multiples(0, top, y_step)],
        area=f"{paths[0].path} L{right:g} {floor} L{left:g} {floor} Z",
        series=paths,
    )


def _drawable(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(_rounded(x), _rounded(y)) for x, y in points if abs(x) < _LARGEST and abs(y) < _LARGEST]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bin: a rectangle in SVG units, and what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    hint: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A chart of bins that is ready to draw: axes and bars."""

    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bars: list[Bar]
    width: int = HALF
    height: int = HEIGHT
    left: int = LEFT
    right: int = HALF - MARGIN
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def histogram(
    counts: Sequence[float], names: Sequence[str], title: str, x_title: str, y_title: str, every: int = 0
) -> Histogram | None:
    """Return the chart of how many there are in each bin; None where there are none at all.

    ``names`` are of the bins, or of the edges between and around them: one more than bins. Every ``every``-th is
    written; with 0 as many as there is room for.
    """
    counts = [_rounded(count) if count < _LARGEST else _LARGEST for count in counts]
    highest = max(counts, default=0)
    if highest <= 0:
        return None
    edges = len(names) > len(counts)
    step = _step(highest / 4) if highest > 4 else 1.0
    top = max(math.ceil(highest / step - 1e-9), 1) * step
    floor = HEIGHT - BOTTOM
    across, down = (HALF - LEFT - MARGIN) / len(counts), floor - TOP

    def hint(i: int) -> str:
        name = f"{names[i]} to {names[i + 1]}" if edges else names[i]
        return f"{name}: {formatting.count(counts[i])}"

    bars = []
    for i, number in enumerate(counts):
        # What is little beside the highest is still to be seen.
        tall = max(number / top * down, 1.0) if number else 0.0
        x, y = round(LEFT + i * across + 0.5, 1), round(floor - tall, 1)
        bars.append(Bar(x=x, y=y, width=round(max(across - 1, 0.5), 1), height=round(tall, 1), hint=hint(i)))
    every = every or -(-len(names) // NAMES)
    middle = 0.0 if edges else 0.5
    return Histogram(
        title=title,
        x_title=x_title,
        y_title=y_title,
        x_ticks=[Tick(round(LEFT + (i + middle) * across, 1), name) for i, name in enumerate(names) if i % every == 0],
        y_ticks=[Tick(round(floor - y / top * down, 1), formatting.brief(y)) for y in _multiples(0, top, step)],
        bars=[bar for bar in bars if bar.height],
    )


def _rounded(number: float) -> float:
    """Return a number, 0 where it is too small to be told from it: a step of it would be 0."""
    return number if abs(number) > 1 / _LARGEST else 0.0


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds >= 100:
        return formatting.duration(seconds)
    return "1 min" if seconds == 60 else f"1 min {seconds - 60:g} s"


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _step(about: float) -> float:
    """Return the smallest round step (1, 2, 2.5 or 5 times a power of ten) that is not below ``about``."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(step * power for step in _STEPS if step * power >= about * (1 - 1e-9))


def _clock(span: float) -> float:
    """Return a step of whole seconds, minutes or hours that gives a span (s) at most seven ticks."""
    if span < 6:
        return _step(span / 6)
    return next((step for step in _CLOCK if span / step <= 7), _step(span / 6 / 86_400) * 86_400)


SIDE = 360


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a square chart: its name, its path, and its colour as ``palette.place`` says."""

    name: str
    path: str
    colour: int


def square(curves: Mapping[str, Sequence[tuple[float, float]]], colours: Sequence[int]) -> list[Curve]:
    """Return curves of (x, y) points, both from 0 to 1, in a square of SIDE inside margins of LEFT and TOP."""

    def place(x: float, y: float) -> str:
        return f"{LEFT + x * SIDE:.1f} {TOP + (1 - y) * SIDE:.1f}"

    return [
        Curve(name=name, path="M" + " L".join(place(x, y) for x, y in points), colour=colours[at % len(colours)])
        for at, (name, points) in enumerate(curves.items())
    ]
