"""What a run shows while it works: a bar on a terminal, a line every 10 s elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cvjobs.common.formatting import clock, visible, visible_lines

EVERY = 10.0


def tell(what: str, who: str = "cvjobs") -> None:
    """Print a line on stderr; a name in it may hold anything, and a terminal would obey it."""
    print(f"{who}: {visible(what)}", file=sys.stderr, flush=True)


class Progress:
    """Images answered, failures, images per second and the time left; ``update`` is cheap to call often."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._task: Any = None
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TextColumn("{task.fields[count]}"),
                BarColumn(),
                TextColumn("{task.fields[rate]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, rate="", count="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, what: str) -> None:
        """Show what the run is doing before it computes."""
        if self._bar is not None:
            from rich.markup import escape

            self._bar.update(self._task, description=escape(visible(what)))

    def note(self, what: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(f"{self._title}: {visible_lines(what)}", markup=False, highlight=False)
        else:
            print(f"{self._title}: {visible_lines(what)}", file=sys.stderr, flush=True)

    def counting(self, total: int) -> Callable[[int], None]:
        """Return what shows how many of ``total`` images are done, and how fast, whenever it is told."""
        began = time.monotonic()

        def tell(done: int) -> None:
            self.update(done, total, 0, done / max(time.monotonic() - began, 1e-3))

        return tell

    def update(self, answered: int, total: int, failed: int, rate: float) -> None:
        """Show how far the run is; ``rate`` in images per second."""
        text = f"{rate:,.0f} img/s, {failed:,} failed" if rate else f"{failed:,} failed"
        self.show(answered, total, "images", text, (total - answered) / rate if rate else None)

    def show(self, done: int, total: int, what: str, text: str, left: float | None) -> None:
        """Show how far the run is in images or the like, a text beside it, and the seconds that are left."""
        text = text if left is None else f"{text}, {clock(left)} left"
        if self._bar is not None:
            count = f"{done:,}/{total:,}"
            self._bar.update(self._task, description=self._title, total=total, completed=done, rate=text, count=count)
        elif time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            tell(f"{done:,}/{total:,} {what}, {text}", self._title)
