"""Locks between real processes: other process and time namespaces, clocks that are set, and outputs that are taken."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import CLI, LONGEST, embed, environment, run, said, sentence, some, started, until
from training import SIDE, folder

import cvjobs
from cvjobs.common.errors import CvjobsError, OutputHeld
from cvjobs.dataset import lock, schema
from cvjobs.storage.local_store import TEMPORARY, LocalStore

HOLDER = [
    sys.executable,
    "-c",
    "import select, sys\n"
    "from cvjobs.dataset import lock\n"
    "from cvjobs.storage.local_store import LocalStore\n"
    "with lock.held(LocalStore(sys.argv[1])) as held:\n"
    "    while True:\n"
    "        select.select([], [], [], 0.1)\n"  # under faketime, sleep has no monotonic clock of its own
    "        held.check()\n",
]
OTHER_PROCESSES = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
OTHER_CLOCKS = ["unshare", "--time", "--boottime", "864000", "--fork", "--kill-child"]
YEAR = 365 * 86_400
TAKEN = "took .* over, for this one's heartbeat had stopped, or by `cvjobs unlock`: nothing is lost"


def needed(words: list[str]) -> None:
    """Skip a test where a mechanism is missing."""
    if not shutil.which(words[0]) or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs {' '.join(words[:2])}")


@contextmanager
def holding(out: Path, words: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds an output until the end of the block, and has beaten."""
    with started([*words, *HOLDER, str(out)], **more) as process:
        until(lambda: process.poll() is not None or list((out / schema.LEASE).glob("hb-*")))
        assert process.poll() is None, process.communicate()
        yield process


def clock() -> str:
    """The library that gives a program another clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("needs faketime")
    return str(found[0])


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("ahead", [0, YEAR])
def test_a_holder_that_died_in_another_process_namespace(photos: Path, tmp_path: Path, ahead: int) -> None:
    needed(OTHER_PROCESSES)
    out, source = tmp_path / "out", some(photos, tmp_path / "photos", 3)
    fake = {"LD_PRELOAD": clock(), "FAKETIME": f"+{ahead}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"} if ahead else {}
    with holding(out, OTHER_PROCESSES, **fake):
        if not ahead:  # it is fresh, and nobody here can look for its process
            assert "is held by process" in sentence(embed(source, out), 5)
    began = time.monotonic()
    if not ahead:
        assert "is held by process" in sentence(embed(source, out), 5)
        until(lambda: embed(source, out).code == 0, 90)
    else:
        ended = embed(source, out)
        assert ended.code == 0, ended
        assert "whose clock differs, for up to a minute" in ended.err
    assert 50 < time.monotonic() - began < 90
    assert cvjobs.verify(str(out)).exit_code == 0


@pytest.mark.faults
def test_a_holder_of_another_time_namespace_holds_until_it_dies(photos: Path, tmp_path: Path) -> None:
    needed(OTHER_CLOCKS)
    out, source = tmp_path / "out", some(photos, tmp_path / "photos", 3)
    with holding(out, OTHER_CLOCKS) as process:
        assert "is held by process" in sentence(embed(source, out), 5)
        assert process.poll() is None
    assert embed(source, out).code == 0


@pytest.mark.faults
@pytest.mark.parametrize("step", [YEAR, -YEAR, 3600, -3600])
def test_the_clock_of_a_run_is_set_while_it_works(photos: Path, tmp_path: Path, step: int) -> None:
    out, source, set_to = tmp_path / "out", some(photos, tmp_path / "photos", 3), tmp_path / "clock"
    set_to.write_text("+0")
    fake = {"FAKETIME_TIMESTAMP_FILE": str(set_to), "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with holding(out, [], LD_PRELOAD=clock(), **fake) as process:
        beat = next((out / schema.LEASE).glob("hb-*"))
        set_to.write_text(f"{step:+d}s")
        until(lambda: abs((schema.unpack(beat.read_bytes()) or {})["heartbeat"] - time.time() - step) < 60)
        ended = embed(source, out)
        assert ended.code == 5, ended
        assert "whose clock differs, for up to a minute" in ended.err
        assert "is held by process" in said(ended.err)[-1]
        assert process.poll() is None  # it goes on
    assert embed(source, out).code == 0  # and once it is dead, it is known to be at once
    assert cvjobs.verify(str(out)).exit_code == 0


@pytest.mark.faults
@pytest.mark.parametrize("step", [YEAR, -YEAR])
def test_a_command_whose_clock_differs_takes_nothing_from_a_run_that_works(tmp_path: Path, step: int) -> None:
    fake = {"LD_PRELOAD": clock(), "FAKETIME": f"{step:+d}s"}
    with holding(tmp_path, []) as process:
        ended = subprocess.run(
            [*HOLDER, str(tmp_path)],
            env=environment(**fake),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert "OutputHeld" in ended.stderr
        assert f"is held by process {process.pid} on " in ended.stderr
        assert process.poll() is None


def train(images: Path, out: Path, epochs: int, **more: Any) -> object:
    return cvjobs.train(
        images, out, model="small/cnn", recipe="quick", epochs=epochs, img_size=str(SIDE), batch_size=16, **more
    )


def state(place: Path) -> dict[Path, bytes]:
    """The files of a run, without those of its lock and those that a process has not finished."""
    files = [file for file in place.rglob("*") if file.is_file() and "lease" not in file.parts]
    files = [file for file in files if not file.name.startswith(TEMPORARY)]
    return {file: file.read_bytes() for file in files}


@pytest.mark.slow
def test_a_training_run_notices_that_its_folder_was_taken(tmp_path: Path) -> None:
    images, out = folder(tmp_path / "images", 20), tmp_path / "run"
    ended: list[CvjobsError] = []

    def work() -> None:
        try:
            train(images, out, 5000)
        except CvjobsError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: list(out.glob("checkpoints/0*")) or not thread.is_alive())
    assert run("unlock", out, "--yes").code == 0
    thread.join(30)
    assert not thread.is_alive()
    (error,) = ended
    assert isinstance(error, OutputHeld), error
    with pytest.raises(OutputHeld, match=TAKEN):
        raise error
    assert "training" in (out / "report.html").read_text()
    with lock.held(LocalStore(out)):
        before = state(out)
    assert state(out) == before


@pytest.mark.faults
@pytest.mark.ray
def test_workers_notice_it_too(tmp_path: Path) -> None:
    images, out = folder(tmp_path / "images", 20), tmp_path / "run"
    options = ["--model", "small/cnn", "--recipe", "quick", "--epochs", "5000", "--img-size", str(SIDE)]
    words = ["train", str(images), "-o", str(out), *options, "--batch-size", "16", "--workers", "2"]
    with started([*CLI, *words]) as process:
        until(lambda: list(out.glob("checkpoints/0*")) or process.poll() is not None)
        assert run("unlock", out, "--yes").code == 0
        _, err = process.communicate(timeout=120)
        assert process.returncode == 5, err
    assert "took " in said(err)[-1]
    assert "nothing is lost" in said(err)[-1]
    assert not (out / "_cvjobs" / "team").exists()


@pytest.mark.faults
def test_a_night_notices_it_and_stops_its_command(slow_photos: Path, tmp_path: Path) -> None:
    file, source = tmp_path / "night.yaml", tmp_path / "photos"
    for number in range(6):
        shutil.copytree(slow_photos, source / str(number))
    file.write_text(
        f"name: night\nstate: state\nsteps: [{{embed: {{source: {source}, out: out, model: thumbnail/4}}}}]\n"
    )
    with started([*CLI, "run", str(file)]) as process:
        until(lambda: list(tmp_path.glob("out/_cvjobs/parts/*.json")) or process.poll() is not None)
        assert run("unlock", tmp_path / "state", "--yes").code == 0
        _, err = process.communicate(timeout=120)
    assert process.returncode == 5, err
    assert "took " in said(err)[-1]
    assert "nothing is lost" in said(err)[-1]
    with lock.held(LocalStore(tmp_path / "out")):  # its command is at rest
        pass
    ended = run("run", file)
    assert ended.code == 0, ended
    assert cvjobs.verify(str(tmp_path / "out")).exit_code == 0


@pytest.mark.faults
def test_a_training_run_that_stood_still_for_a_minute_notices_it(tmp_path: Path) -> None:
    images, out = folder(tmp_path / "images", 20), tmp_path / "run"
    options = ["--model", "small/cnn", "--recipe", "quick", "--epochs", "100", "--img-size", str(SIDE)]
    words = ["train", str(images), "-o", str(out), *options, "--batch-size", "16"]
    with started([*CLI, *words]) as process:
        until(lambda: list(out.glob("checkpoints/0*")) or process.poll() is not None)
        process.send_signal(signal.SIGSTOP)
        until(lambda: run(*words).code == 0, 180)
        before = state(out)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert state(out) == before
