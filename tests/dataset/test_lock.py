"""The lock on an output: who holds it, when it is free, and what its heartbeat survives."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import toy
from commands import until
from toy import Run, Toy

from cvjobs.common.errors import JobFailed, OutputHeld
from cvjobs.dataset import lock, schema
from cvjobs.storage.local_store import LocalStore


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


def test_a_second_run_is_refused_with_the_holder_named(six: Toy) -> None:
    with Run(six) as run:
        with pytest.raises(OutputHeld, match=f"held by process {os.getpid()} on ") as refused:
            six.run()
        assert refused.value.exit_code == 5
        run.finish()
    six.check()


def test_a_run_that_is_gone_is_replaced_at_once(six: Toy) -> None:
    toy.killed(Run(six), 1)
    assert lock.holder(six.store) is None
    six.run()
    six.check()


def test_a_released_output_is_free(six: Toy) -> None:
    six.run()
    assert lock.holder(six.store) is None


def test_a_process_that_took_the_number_of_the_holder_does_not_hold(six: Toy) -> None:
    run = Run(six)
    toy.die(run)
    record = {**run.held._holder, "process_started": 1.0}
    (six.out / schema.LEASE / f"hb-{run.held.epoch:06d}.json").write_bytes(schema.pack(record))
    assert lock.holder(six.store) is None


def test_of_two_that_find_an_output_free_one_gets_it(six: Toy) -> None:
    first, second = six.store, six.store
    assert lock._take(first, 1, {"pid": 1})
    assert not lock._take(second, 1, {"pid": 2})


@pytest.mark.parametrize("ends", [None, ValueError, KeyboardInterrupt])
def test_a_lock_is_free_after_its_block_however_that_ends(tmp_path: Path, ends: type[BaseException] | None) -> None:
    store = LocalStore(tmp_path)
    with contextlib.suppress(ValueError, KeyboardInterrupt), lock.held(store) as held:
        assert lock.holder(store) is not None
        with pytest.raises(OutputHeld, match="is held by process"):
            lock.held(LocalStore(tmp_path))
        held.check()
        if ends:
            raise ends
    assert lock.holder(store) is None
    with lock.held(store) as later:
        assert later.epoch == held.epoch + 1
        with pytest.raises(OutputHeld, match=r"took .* over"):
            held.check()


class Flaky(LocalStore):
    """A folder on a share that cannot be listed ``failures`` times."""

    failures = 0

    def names(self, folder: str) -> list[str]:
        """See ``Store.names``."""
        if self.failures:
            self.failures -= 1
            raise JobFailed("The share does not answer.")
        return super().names(folder)


def test_a_share_that_does_not_answer_for_a_while_costs_beats_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    store = Flaky(tmp_path)
    with lock.held(store) as held:
        store.failures = 2
        until(lambda: not store.failures)
        beat = tmp_path / schema.LEASE / f"hb-{held.epoch:06d}.json"
        beat.unlink(missing_ok=True)
        until(beat.exists)
