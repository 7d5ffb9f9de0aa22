"""A random walk of runs, kills, sleepers and changing images: after each finished run the rows are exact."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from toy import Run, Toy, killed, plain

from cvjobs.common.errors import OutputHeld
from cvjobs.dataset import snapshot_reader
from cvjobs.dataset.changes import Plan
from cvjobs.dataset.parts import Author
from cvjobs.dataset.update import End

NAMES = st.sampled_from([f"{c}.jpg" for c in "abcdefgh"])
CONTENTS = st.sampled_from(["red", "green", "blue", "BAD", "FLAKY"])


class Walk(RuleBasedStateMachine):
    """One source and one output; everything that may happen between and during runs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="walk-"))
        self.toy = Toy(self.folder / "source", self.folder / "out", every=2)
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            self.toy.put(name, f"first {name}")
        self.finished = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(name=NAMES, content=CONTENTS)
    def change(self, name: str, content: str) -> None:
        self.toy.put(name, content)
        self.finished = False

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if len(list(self.toy.source.iterdir())) > 1:
            (self.toy.source / name).unlink(missing_ok=True)
            self.finished = False

    @rule(by_content=st.booleans(), retry=st.booleans())
    def run(self, by_content: bool, retry: bool) -> None:
        self.toy.run(allow_deletions=True, by_content=by_content, retry_failed=retry)
        self.finished = True

    @rule()
    def overwrite(self) -> None:
        self.toy.run(allow_deletions=True, overwrite=True)
        self.finished = True

    @rule(parts=st.integers(0, 3), overwrite=st.booleans())
    def kill(self, parts: int, overwrite: bool) -> None:
        killed(Run(self.toy, allow_deletions=True, overwrite=overwrite), parts)
        self.finished = False

    @rule(limit=st.integers(1, 3))
    def some(self, limit: int) -> None:
        snap = self.toy.run(limit=limit)
        assert len(self.toy.computed) <= limit
        assert snap.wanted - snap.ok - snap.failed <= self.toy.left
        self.finished = False

    @rule(name=NAMES, content=CONTENTS, again=st.booleans())
    def sleep(self, name: str, content: str, again: bool) -> None:
        """A run is overtaken while it computes, by one or two later ones, and wakes up."""
        sleeper = Run(self.toy, allow_deletions=True)

        def compute(author: Author, todo: Plan) -> End:
            sleeper.commit(author, todo.todo.slice(0, 2))
            with Run(self.toy, steal=True, allow_deletions=True) as later:
                later.finish()
            if again:
                self.toy.put(name, content)
                self.toy.run(allow_deletions=True)
            sleeper.commit(author, todo.todo.slice(2, 2))
            return End()

        try:
            sleeper.finish(compute)
        except OutputHeld:
            pass
        else:
            raise AssertionError("an overtaken run published")
        finally:
            sleeper.held.__exit__()
        assert snapshot_reader.open_dataset(str(self.toy.out)).to_arrow().num_rows == len(self.toy.rows())
        self.finished = False

    @precondition(lambda self: self.finished)
    @invariant()
    def exact(self) -> None:
        self.toy.check()
        assert plain(self.toy.out) == self.toy.wanted()


def walks(count: int) -> None:
    """Walk as often, ten steps each time, always the same ways."""
    often = settings(
        max_examples=count,
        stateful_step_count=10,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Walk, settings=often)


@pytest.mark.slow
def test_eight_walks() -> None:
    walks(8)


@pytest.mark.faults(minutes=4)
def test_five_hundred_walks() -> None:
    walks(500)
