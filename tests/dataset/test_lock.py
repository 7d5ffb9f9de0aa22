"""The lock on an output: who holds it, when it is free, and what its heartbeat survives."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from commands import here, sentence, until
from toy import Run, Toy

from cvjobs.common.errors import JobFailed, OutputHeld
from cvjobs.dataset import holder, lock, schema
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
    mark = six.out / schema.LEASE / f"hb-{run.held.epoch:06d}.json"
    for other in (
        {"ticks": 1},
        {"ticks": None, "clocks": None, "process_started": 1.0},
    ):  # the second as 0.1.0 wrote it
        mark.write_bytes(schema.pack({**run.held._holder, **other}))
        assert lock.holder(six.store) is None


def test_a_clock_that_is_set_takes_no_output_from_a_run_that_works(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with lock.held(store) as held:
        # What a process finds whose clock was set after the holder began: the boot, and so its start, moved by an hour.
        held._holder["process_started"] -= 3600
        held._write(released=False)
        with pytest.raises(OutputHeld, match="is held by process"):
            lock.held(LocalStore(tmp_path))
        held.check()


def marked(folder: Path, **record: object) -> Path:
    """The heartbeat of a run, which is all there is of it."""
    other = {"host": "far", "machine": "another", "pid": 7, "process_started": 1.0, "since": "today", **record}
    mark = folder / schema.LEASE / "hb-000003.json"
    mark.parent.mkdir(parents=True)
    (mark.parent / "epoch-000003.json").write_bytes(schema.pack(other))
    mark.write_bytes(schema.pack(other))
    return mark


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of a second, with beats of a tenth."""
    monkeypatch.setattr(lock, "LIVE", 1.0)
    monkeypatch.setattr(lock, "BEAT", 0.1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("ahead", [60.0, 365 * 86_400.0])
def test_a_heartbeat_from_the_future_that_does_not_change_is_of_the_dead(tmp_path: Path, ahead: float) -> None:
    marked(tmp_path, heartbeat=time.time() + ahead)
    said: list[str] = []
    with lock.held(LocalStore(tmp_path), said.append) as held:
        assert held.epoch == 4
    assert said == ["watching the heartbeat of process 7 on far, whose clock differs, for up to a minute"]


@pytest.mark.usefixtures("short")
def test_a_heartbeat_from_the_future_that_changes_holds(tmp_path: Path) -> None:
    mark = marked(tmp_path, heartbeat=time.time() + 3600)
    record = schema.unpack(mark.read_bytes())
    assert record is not None

    def beat(_: str) -> None:
        assert record is not None
        mark.write_bytes(schema.pack({**record, "heartbeat": record["heartbeat"] + 5}))

    with pytest.raises(OutputHeld, match="is held by process 7 on far since today"):
        lock.held(LocalStore(tmp_path), beat)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("gone", [True, False])
def test_an_old_heartbeat_of_a_process_that_runs_here_is_watched(tmp_path: Path, gone: bool) -> None:
    with lock.held(LocalStore(tmp_path / "mine")) as mine:
        own = dict(mine._holder)
    mark = marked(tmp_path / "out", **{**own, "heartbeat": time.time() - 3600})
    said: list[str] = []

    def beat(text: str) -> None:
        said.append(text)
        if not gone:
            mark.write_bytes(schema.pack(own))

    if gone:
        with lock.held(LocalStore(tmp_path / "out"), beat):
            pass
    else:
        with pytest.raises(OutputHeld, match=f"held by process {os.getpid()} on "):
            lock.held(LocalStore(tmp_path / "out"), beat)
    assert len(said) == 1


GOOD = {"host": "far", "machine": "another", "pid": 7, "process_started": 1.0, "since": "today"}
ODD: list[object] = [
    None,
    "",
    "x" * 1000,
    "9" * 5000,
    [],
    {},
    True,
    False,
    -1,
    0,
    10**400,
    1e300,
    float("nan"),
    float("inf"),
    0.5,
]


def damaged() -> Iterator[tuple[str, bytes]]:
    """Records that no version writes, with what is wrong with each."""
    good = {**GOOD, "heartbeat": time.time(), "released": False, "ticks": 5, "clocks": "time:[1]"}
    content = schema.pack(good)
    yield from {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "garbage": bytes(range(256)),
        "zeros": bytes(4096),
        "deep": b"[" * 200_000,
        "digits": b"9" * 10_000,
        "list": b"[]",
        "nothing in it": b"{}",
    }.items()
    for name in good:
        if name in ("host", "machine", "pid", "since", "heartbeat"):
            yield f"no {name}", schema.pack({key: value for key, value in good.items() if key != name})
        for odd in ODD:
            if not holder.of({**good, name: odd}, b"").sound:
                yield f"{name}: {str(odd)[:20]}", json.dumps({**good, name: odd}).encode()


def test_every_field_of_a_record_may_be_damaged() -> None:
    wrong = [what for what, _ in damaged()]
    for name in ("host", "machine", "pid", "since", "heartbeat"):
        assert f"no {name}" in wrong
        assert f"{name}: None" in wrong
    for name in (*GOOD, "heartbeat", "released", "ticks", "clocks"):
        assert sum(what.startswith(f"{name}: ") for what in wrong) >= 10, name


@pytest.mark.parametrize("which", ["hb", "epoch", "both", "hb alone"])
def test_a_damaged_record_is_in_doubt_and_never_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(lock, "LIVE", 0.002)
    monkeypatch.setattr(lock, "BEAT", 0.001)
    for number, (what, content) in enumerate([*damaged()][:: 3 if which == "both" else 11]):
        out = tmp_path / str(number)
        mark = marked(out, heartbeat=time.time() + 3600)
        taken = mark.with_name("epoch-000003.json")
        for file in {"hb": [mark], "epoch": [taken], "both": [mark, taken], "hb alone": [mark]}[which]:
            file.write_bytes(content)
        if which == "hb alone":
            taken.unlink()
        if which == "epoch":
            mark.unlink()
        store = LocalStore(out)
        found = lock.holder(store)
        assert found is not None, what
        assert not found.sound, what
        said: list[str] = []
        with lock.held(store, said.append) as held:
            assert held.epoch == 4
        assert said == ["watching the lock, whose record is damaged, for up to a minute"], what


@pytest.mark.usefixtures("short")
def test_a_damaged_record_that_changes_holds(tmp_path: Path) -> None:
    mark = marked(tmp_path)
    mark.write_bytes(b"{")
    with pytest.raises(OutputHeld, match="is held by process 7 on far since today"):
        lock.held(LocalStore(tmp_path), lambda _: mark.write_bytes(schema.pack({**GOOD, "heartbeat": 1.0})))

    def worse(_: str) -> None:
        mark.write_bytes(b"[")
        mark.with_name("epoch-000003.json").unlink()

    mark.write_bytes(b"{")
    with pytest.raises(OutputHeld, match="is held by a run whose record is damaged: wait"):
        lock.held(LocalStore(tmp_path), worse)


def test_a_damaged_lock_is_freed_by_hand(tmp_path: Path) -> None:
    for number, (what, content) in enumerate([*damaged()][::5]):
        out = tmp_path / str(number)
        mark = marked(out)
        mark.write_bytes(content)
        mark.with_name("epoch-000003.json").write_bytes(content)
        if number % 10 == 0:
            assert f"{out} is held by " in sentence(here("unlock", out), 2), what
        ended = here("unlock", out, "--yes", "--json")
        assert (ended.code, ended.err) == (0, ""), what
        assert json.loads(ended.out)["held"], what
        assert lock.holder(LocalStore(out)) is None, what


@pytest.mark.parametrize(
    "name", ["epoch-999999.json", "epoch-²²²²²².json", "epoch-x.json", "hb-000009.json", "epoch-1"]
)
def test_names_that_no_run_gives_lock_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LIVE", 0.1)
    monkeypatch.setattr(lock, "BEAT", 0.01)
    mark = tmp_path / schema.LEASE / name
    mark.parent.mkdir(parents=True)
    mark.write_bytes(b"")
    for _ in range(3):
        with lock.held(LocalStore(tmp_path)) as held:
            held.check()
    mark.unlink(missing_ok=True)
    mark.mkdir()
    with lock.held(LocalStore(tmp_path)) as held:
        held.check()
    assert json.loads(here("unlock", tmp_path, "--json").out)["held"] is False


@pytest.mark.parametrize("silent", [True, False])
def test_an_output_is_freed_by_hand(tmp_path: Path, silent: bool) -> None:
    out = tmp_path / "out"
    if silent:
        marked(out, heartbeat=time.time() + 3600)
    with contextlib.nullcontext() if silent else lock.held(LocalStore(out)) as held:
        refused = here("unlock", out)
        who = "process 7 on far since today" if silent else f"process {os.getpid()} on "
        assert f"{out} is held by {who}" in sentence(refused, 2)
        assert "give --yes" in refused.err
        ended = here("unlock", out, "--yes")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{out} is free; it was held by {who}")
        if held:
            with pytest.raises(OutputHeld, match=r"took .* over"):
                held.check()
        with lock.held(LocalStore(out)):
            assert lock.holder(LocalStore(out)) is not None
    assert here("unlock", out).out == f"{out} is free already\n"
    assert json.loads(here("unlock", out, "--json").out)["held"] is False


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
