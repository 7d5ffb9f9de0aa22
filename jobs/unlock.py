"""Free an output, an index, a training run or a night whose holder is gone, and say who held it.

Rarely needed: the next command takes over by itself where the holder is dead, or silent for a minute. A command that
does run notices that its output was taken, and ends with exit code 5.

For example `cvjobs unlock vectors`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cvjobs.common.errors import WrongUse
from cvjobs.common.tabular import Readable
from cvjobs.config.options import Json, StorageOptions


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of ``cvjobs unlock``."""

    out: Annotated[str, typer.Argument(help="The folder or URL that another command's -o named.")]
    yes: Annotated[
        bool, typer.Option("--yes", help="Free it without a question.", rich_help_panel="Updates and failures")
    ] = False
    storage_option: StorageOptions = ()
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class Unlocked(Readable):
    """Who held an output; ``heartbeat`` is the last one, in s since 1970.

    Nothing did where ``held`` is False; what the record does not tell, for it is damaged, is empty or 0.
    """

    out: str
    held: bool = False
    host: str = ""
    pid: int = 0
    since: str = ""
    heartbeat: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.out} is free; it was held by {self.holder}" if self.held else f"{self.out} is free already"

    @property
    def holder(self) -> str:
        """Who held it, in words."""
        if not self.pid:
            return "a run whose record is damaged"
        beat = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.heartbeat))
        return f"process {self.pid} on {self.host} since {self.since}, last heard of at {beat}"


def _look(config: Config) -> tuple[Any, Unlocked]:
    from cvjobs.dataset import contents, lock
    from cvjobs.storage.storage_options import parse_options
    from cvjobs.storage.store import open_store

    store = open_store(config.out, options=parse_options(config.storage_option), option="OUT")
    contents.check_there(store)
    found = lock.holder(store)
    if found is None:
        return store, Unlocked(out=store.place)
    who = {name: getattr(found, name) for name in ("host", "pid", "since", "heartbeat")}
    return store, Unlocked(out=store.place, held=True, **{name: value for name, value in who.items() if value})


def call(config: Config) -> Unlocked:
    """Free the output and return who held it; raises WrongUse where something holds it and ``yes`` is not given."""
    from cvjobs.dataset import lock

    store, held = _look(config)
    if held.held and not config.yes:
        raise WrongUse(f"{held.out} is held by {held.holder}: where that is gone, give --yes.")
    lock.free(store)
    return held


def run(config: Config) -> None:
    """Free the output, after a question on a terminal, and print who held it."""
    import json
    from dataclasses import replace

    from cvjobs.common.formatting import visible_lines
    from cvjobs.config import commands

    _, held = _look(config)
    if held.held and not config.yes and sys.stdin.isatty() and not config.json:
        print(visible_lines(f"{held.out} is held by {held.holder}."))
        if input("Free it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was changed.")
            return
        config = replace(config, yes=True)
    done = call(config)
    with commands.printing(done.out):
        print(json.dumps(done.as_dict()) if config.json else visible_lines(str(done)))
