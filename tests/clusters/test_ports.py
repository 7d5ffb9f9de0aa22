"""Every port that listens while this machine alone works: no other machine reaches one.

The machines have a way to the world, or Ray would listen on loopback of its own accord.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hosts
import pytest
from commands import CLI, TESTS, kill, parts, run, started, until
from hosts import Host
from training import SIDE, folder

from cvjobs.common import devices

pytestmark = [
    pytest.mark.faults(minutes=3),
    pytest.mark.ray,
    pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores"),
]
TOYS = [sys.executable, str(TESTS / "with_toys.py")]
LONG = ["--model", "small/cnn", "--img-size", str(SIDE), "--recipe", "quick", "--batch-size", "16", "--epochs", "9999"]
TRAINS = "ray::RayTrainWo"  # torch.distributed's ports
DOCTOR = "from cvjobs.operations.doctor import ports; print(*(finding.what for finding in ports.check()), sep='; ')"


@pytest.fixture(scope="module")
def two() -> Iterator[list[Host]]:
    with hosts.machines(2) as made:
        yield made


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"HOME": str(tmp_path), "PATH": path, "OMP_NUM_THREADS": "1"}


def trains(out: Path) -> bool:
    """Whether the workers of a training are at it."""
    return any((out / "_cvjobs" / "team").glob("*/state.json"))


@contextmanager
def working(words: list[str], out: Path, variables: dict[str, str]) -> Iterator[None]:
    """A command that works until the end."""
    with started(words, **variables) as process:
        until(lambda: parts(out) > 0 or trains(out) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield
        assert process.poll() is None, process.communicate()
        kill(process, signal.SIGINT)
        process.communicate()


def nobody_reaches(machine: Host, other: Host, variables: dict[str, str]) -> None:
    """No program of the machine listens for another, and a doctor agrees."""
    assert machine.open() == {}
    here = machine.open(loopback=True)
    assert len(here) >= 8, "this is not all of Ray"
    asked = other.asks(*(f"{machine.address}:{place.rpartition(':')[2]}" for place in here))
    assert set(asked.values()) == {"refused"}, asked
    # On the machine itself, where other users may work, all that is Ray's asks for the token.
    asked = machine.asks(*here)
    assert {here[place] for place, told in asked.items() if told != "token"} <= {TRAINS}, asked
    told = run("-c", DOCTOR, program=machine.words(sys.executable), cwd=None, **variables)
    assert told.out == "the Ray on this machine is reached from here alone\n", told


def test_embed_on_two_workers(two: list[Host], slow_photos: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    machine, other = two
    out = tmp_path / "out"
    words = ["drowse", str(slow_photos), "-o", str(out), "--model", "thumbnail/4", "--workers", "2"]
    with working(machine.words(*TOYS, *words), out, variables):
        nobody_reaches(machine, other, variables)


def test_train_on_two_workers(two: list[Host], tmp_path: Path, variables: dict[str, str]) -> None:
    machine, other = two
    out, images = tmp_path / "run", folder(tmp_path / "images", 100)
    words = ["train", str(images), "-o", str(out), *LONG, "--workers", "2"]
    with working(machine.words(*CLI, *words), out, variables):
        nobody_reaches(machine, other, variables)


def test_the_cluster_of_one_machine_with_a_training(two: list[Host], tmp_path: Path, variables: dict[str, str]) -> None:
    machine, other = two
    out, images = tmp_path / "run", folder(tmp_path / "images", 100)
    up = run("cluster", "up", "local", program=machine.words(*CLI), cwd=None, **variables)
    assert up.code == 0, up
    try:
        nobody_reaches(machine, other, variables)
        words = ["train", str(images), "-o", str(out), *LONG, "--workers", "2", "--address", hosts.API]
        with working(machine.words(*CLI, *words), out, variables):
            nobody_reaches(machine, other, variables)
    finally:
        down = run("cluster", "down", "local", program=machine.words(*CLI), cwd=None, **variables)
    assert down.code == 0, down
    assert machine.do("ss", "-ltnH") == ""
