"""Where a training's command and its workers leave notes for each other: in a folder that all see, or in an actor.

The workers say where they are, what they warn of and what ended them for good; the command says that they should stop.
Workers that were started again are a team with the next number, and what is left of the one before writes no more.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cvjobs.clusters import ray
from cvjobs.common import errors
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import Store

FOLDER = "_cvjobs/team"
ANSWER = 20.0  # seconds for an answer of the actor
OLD = 0.5  # seconds that a worker believes that it was not asked to stop
DECODING, TESTED = "decoding", "tested"  # what else the first worker tells: how far it is there, and the test's metric
_STATE, _STOP, _ENDED, _WARNINGS, _TEAM = "state.json", "stop", "ended.json", "warnings.txt", "team-"

_SUPERSEDED = "other workers of the same training have taken over"
_UNKNOWN = "the machine of the command does not answer"


class Superseded(Exception):
    """Workers are not, or not known to be, the newest team of their training: they end, and the training does not."""


class Board(Protocol):
    """Notes of one training; ``place`` is a folder of the machine of the command, empty at first, for other files."""

    place: Path

    def check(self) -> None:
        """Raise WrongUse in a worker that cannot see the notes."""

    def join(self) -> int:
        """Return the number of a new team of workers, whose first one calls this before it reads the run."""

    def check_team(self, number: int) -> None:
        """Raise Superseded where a team is not the newest, or where that cannot be known."""

    def report(self, state: dict[str, Any]) -> None:
        """Note where the training is."""

    def reported(self) -> dict[str, Any] | None:
        """Return what was noted last of where the training is, None where nothing was or nothing answers."""

    def stop(self) -> None:
        """Ask the workers to stop."""

    def stopping(self) -> bool:
        """Return whether the workers are to stop; cheap to call often."""

    def end(self, record: dict[str, Any]) -> None:
        """Note what ended the training for good."""

    def ended(self) -> dict[str, Any] | None:
        """Return what ended the training for good, None where nothing did."""

    def warn(self, text: str) -> None:
        """Note a line for a person."""

    def warnings(self) -> list[str]:
        """Return the lines."""

    def tell(self, name: str, record: dict[str, Any]) -> None:
        """Note something else, by a name."""

    def told(self, name: str) -> dict[str, Any] | None:
        """Return what was noted last by a name, None where nothing was or nothing answers."""


def end_with(notes: Board, error: CvjobsError) -> None:
    """Note the error that ended a training for good."""
    notes.end({"kind": type(error).__name__, "sentence": str(error)})


def ended_by(notes: Board) -> CvjobsError | None:
    """Return the error that ended a training for good, None where nothing did."""
    record = notes.ended()
    if record is None:
        return None
    kind = getattr(errors, record["kind"], JobFailed)
    error: CvjobsError = kind(record["sentence"])
    return error


@contextmanager
def opened(store: Store, epoch: int) -> Iterator[Board]:
    """Yield the notes between the command and the workers of a run whose lock has this epoch; Ray is connected.

    A later command's notes go elsewhere.
    """
    if not isinstance(store, LocalStore):
        with tempfile.TemporaryDirectory(prefix="cvjobs-", ignore_cleanup_errors=True) as place:
            yield ActorBoard(Path(place))
        return
    boards = Path(store.place) / FOLDER
    board = boards / f"{epoch:06d}"
    board.mkdir(parents=True, exist_ok=True)
    try:
        yield FolderBoard(board, store.place)
    finally:
        with contextlib.suppress(OSError):
            for left in boards.iterdir():  # an earlier run's, which was killed, too
                if not left.is_dir():
                    left.unlink()
                elif left.name <= board.name:
                    shutil.rmtree(left, ignore_errors=True)
            boards.rmdir()


class FolderBoard:
    """Notes as small files in the run's folder; see ``Board``."""

    def __init__(self, place: Path, run: str) -> None:
        self.place, self._run = place, run

    def check(self) -> None:
        """See ``Board``."""
        if not self.place.is_dir():
            raise WrongUse(f"A worker does not see {self._run}: use an -o that every machine of the cluster shares.")

    def join(self) -> int:
        """See ``Board``."""
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                (self.place / f"{_TEAM}{number}").touch(exist_ok=False)
                return number
        raise AssertionError

    def check_team(self, number: int) -> None:
        """See ``Board``."""
        if (self.place / f"{_TEAM}{number + 1}").exists() or not self.place.is_dir():
            raise Superseded(_SUPERSEDED)

    def report(self, state: dict[str, Any]) -> None:
        """See ``Board``."""
        self._put(_STATE, state)

    def reported(self) -> dict[str, Any] | None:
        """See ``Board``."""
        return self._read(_STATE)

    def stop(self) -> None:
        """See ``Board``."""
        (self.place / _STOP).touch()

    def stopping(self) -> bool:
        """See ``Board``."""
        return (self.place / _STOP).exists()

    def end(self, record: dict[str, Any]) -> None:
        """See ``Board``."""
        with contextlib.suppress(OSError):
            self._put(_ENDED, record)

    def ended(self) -> dict[str, Any] | None:
        """See ``Board``."""
        return self._read(_ENDED)

    def warn(self, text: str) -> None:
        """See ``Board``."""
        with (self.place / _WARNINGS).open("a") as file:
            print(text.replace("\n", " "), file=file)

    def warnings(self) -> list[str]:
        """See ``Board``."""
        file = self.place / _WARNINGS
        return file.read_text().splitlines() if file.exists() else []

    def tell(self, name: str, record: dict[str, Any]) -> None:
        """See ``Board``."""
        self._put(f"{name}.json", record)

    def told(self, name: str) -> dict[str, Any] | None:
        """See ``Board``."""
        return self._read(f"{name}.json")

    def _put(self, name: str, record: dict[str, Any]) -> None:
        temporary = (self.place / name).with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self.place / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((self.place / name).read_bytes())
        except (OSError, ValueError):
            return None
        return record


class Notes:
    """What an ``ActorBoard`` is made of, in an actor of its own: values by name."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._lines: list[str] = []
        self._teams = 0

    def join(self) -> int:
        """Return the number of a new team."""
        self._teams += 1
        return self._teams

    def teams(self) -> int:
        """Return the number of the newest team."""
        return self._teams

    def put(self, name: str, value: Any) -> None:
        """Keep a value."""
        self._values[name] = value

    def get(self, name: str) -> Any:
        """Return a value, None where there is none."""
        return self._values.get(name)

    def add(self, line: str) -> None:
        """Keep a line."""
        self._lines.append(line)

    def lines(self) -> list[str]:
        """Return the lines."""
        return self._lines


class ActorBoard:
    """Notes in an actor on the machine of the command, for a run that is in no folder; see ``Board``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        library = ray.library()
        here = library.get_runtime_context().get_node_id()
        # Not softly: Ray puts an actor that needs no core on any machine then, and its notes would go with that one.
        there = library.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._actor = library.remote(Notes).options(num_cpus=0, scheduling_strategy=there).remote()
        self._asked = -OLD

    def check(self) -> None:
        """See ``Board``."""

    def join(self) -> int:
        """See ``Board``."""
        library = ray.library()
        number: int = library.get(self._actor.join.remote(), timeout=ANSWER)
        return number

    def check_team(self, number: int) -> None:
        """See ``Board``."""
        library = ray.library()
        try:
            newest: int = library.get(self._actor.teams.remote(), timeout=ANSWER)
        except library.exceptions.RayError as error:
            raise Superseded(_UNKNOWN) from error
        if newest != number:
            raise Superseded(_SUPERSEDED)

    def report(self, state: dict[str, Any]) -> None:
        """See ``Board``; nothing waits for it to arrive."""
        self._actor.put.remote(_STATE, state)

    def reported(self) -> dict[str, Any] | None:
        """See ``Board``."""
        found: dict[str, Any] | None = self._get(_STATE)
        return found

    def stop(self) -> None:
        """See ``Board``."""
        self._actor.put.remote(_STOP, True)

    def stopping(self) -> bool:
        """See ``Board``."""
        if (now := time.monotonic()) - self._asked < OLD:
            return False
        self._asked = now
        return bool(self._get(_STOP))

    def end(self, record: dict[str, Any]) -> None:
        """See ``Board``."""
        library = ray.library()
        with contextlib.suppress(library.exceptions.RayError):
            library.get(self._actor.put.remote(_ENDED, record), timeout=ANSWER)

    def ended(self) -> dict[str, Any] | None:
        """See ``Board``."""
        found: dict[str, Any] | None = self._get(_ENDED)
        return found

    def warn(self, text: str) -> None:
        """See ``Board``."""
        self._actor.add.remote(text.replace("\n", " "))

    def warnings(self) -> list[str]:
        """See ``Board``."""
        library = ray.library()
        with contextlib.suppress(library.exceptions.RayError):
            found: list[str] = library.get(self._actor.lines.remote(), timeout=ANSWER)
            return found
        return []

    def tell(self, name: str, record: dict[str, Any]) -> None:
        """See ``Board``; nothing waits for it to arrive."""
        self._actor.put.remote(name, record)

    def told(self, name: str) -> dict[str, Any] | None:
        """See ``Board``."""
        found: dict[str, Any] | None = self._get(name)
        return found

    def _get(self, name: str) -> Any:
        library = ray.library()
        try:
            return library.get(self._actor.get.remote(name), timeout=ANSWER)
        except library.exceptions.RayError:  # the machine of the command does not answer now, or is gone
            return None
