"""What a command shows while it works: a line with a bar on a terminal, a line every 10 s elsewhere; on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cvjobs.common import rates
from cvjobs.common.formatting import clock, shortened, visible, visible_lines
from cvjobs.common.phases import Phases

EVERY = 10.0  # s
BAR = 24  # columns
WORDS = 64  # characters of what is being done that a line on a terminal has room for


def tell(what: str, who: str = "cvjobs") -> None:
    """Print a line on stderr; a name in it may hold anything, and a terminal would obey it."""
    print(f"{who}: {visible(what)}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Count:
    """How far the phase of this number was ``at`` a moment of the monotonic clock, and the seconds left then."""

    phase: int
    done: int
    total: int
    what: str
    told: str
    left: float | None
    at: float

    @property
    def text(self) -> str:
        """What is told beside the count, with the time that is left now: it goes on while nothing is told."""
        left = 0.0 if self.left is None else self.left - (time.monotonic() - self.at)
        return ", ".join(filter(None, [self.told, f"{clock(left)} left" if left > 0 else ""]))


class Progress:
    """What a command is doing; within a phase that counts, how many are done, failed, how fast, and the time left.

    A thread of its own shows what is true at the moment, also while the command waits. Within another one of the same
    thread it is that one.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._outer = _CURRENT.get()
        self._token: Token[Progress | None] | None = None
        self._count: _Count | None = None
        self._bar: Any = None
        self._ended = threading.Event()
        self.phases: Phases = Phases() if self._outer is None else self._outer.phases

    def __enter__(self) -> Progress:
        if self._outer is not None:
            return self._outer
        self._token = _CURRENT.set(self)
        if sys.stderr.isatty():
            self._bar = self._drawn()
            self._bar.start(refresh=True)
        else:
            threading.Thread(target=self._repeat, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is None:
            return
        _CURRENT.reset(self._token)
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()

    def phase(self, name: str, words: str = "", at: float | None = None) -> None:
        """Let a phase begin, shown as ``words``; see ``Phases.begin``."""
        self.phases.begin(name, words, at)

    def note(self, what: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(f"{self._title}: {visible_lines(what)}", markup=False, highlight=False)
        else:
            print(f"{self._title}: {visible_lines(what)}", file=sys.stderr, flush=True)

    def counting(self, total: int, what: str = "images", things: str = "img") -> Callable[[int], None]:
        """Return what shows how many of ``total`` are done, and how fast, whenever it is told after a batch."""
        meter = rates.Meter()

        def tell(done: int) -> None:
            meter.answered(done)
            self.show(done, total, what, rates.told(meter.rate, things), meter.left(total))

        return tell

    def update(self, answered: int, total: int, failed: int, rate: float, left: float | None = None) -> None:
        """Show how far the run is; ``rate`` in images per second, ``left`` in s."""
        text = ", ".join(filter(None, [rates.told(rate), f"{failed:,} failed"]))
        self.show(answered, total, "images", text, left)

    def show(self, done: int, total: int, what: str, text: str, left: float | None) -> None:
        """Show how far the phase is in images or the like, a text beside it, and the seconds that are left."""
        self._count = _Count(self.phases.number, done, total, what, text, left, time.monotonic())

    @property
    def count(self) -> _Count | None:
        """How far the present phase is, None where it does not count."""
        counted = self._count
        return counted if counted is not None and counted.phase == self.phases.number else None

    @property
    def doing(self) -> str:
        """The present phase, with its time from the first second on."""
        took = self.phases.present
        return visible(self.phases.words) + (f", {clock(took)}" if took >= 1 else "")

    def _repeat(self) -> None:
        while not self._ended.wait(EVERY):
            count = self.count
            if count is None:
                tell(self.doing, self._title)
            else:
                words = [f"{count.done:,}/{count.total:,} {count.what}", count.text]
                tell(", ".join(filter(None, words)), self._title)

    def _drawn(self) -> Any:
        """Return the line on a terminal, which asks this for what it shows each time that it is drawn."""
        from rich.cells import cell_len
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        spinner = Spinner("dots")

        def line() -> Table:
            grid, count = Table.grid(padding=(0, 1)), self.count
            if count is None:
                took = self.phases.present
                words = [shortened(self.phases.words, WORDS), clock(took) if took >= 1 else ""]
                grid.add_row(spinner, Text(self._title), *map(Text, words))
            else:
                done, text = f"{count.done:,}/{count.total:,}", count.text
                room = console.width - cell_len(f"* {self._title} {done}  {text}")
                shown: list[Any] = [Text(done)] if room >= 0 else []  # in a narrow terminal the words say more
                if room >= 4:
                    shown.append(ProgressBar(total=count.total, completed=count.done, width=min(room, BAR)))
                grid.add_row(spinner, Text(self._title), *shown, Text(text))
            return grid

        console = Console(stderr=True)
        return Live(get_renderable=line, console=console, transient=True, refresh_per_second=10)


_CURRENT: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def during(name: str) -> Iterator[None]:
    """Within the block the command that this thread runs is in a phase, and afterwards in the one before.

    A process or a thread that only helps a command has no phases of its own.
    """
    progress = _CURRENT.get()
    if progress is None:
        yield
        return
    before, words = progress.phases.name, progress.phases.words
    progress.phase(name)
    try:
        yield
    finally:
        progress.phase(before, words)
