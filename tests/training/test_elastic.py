"""Training while a machine comes and goes: on as many workers as there are, or on so many, waiting for some a while."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import nodes
import pyarrow.parquet as pq
import pytest
from commands import started, until
from nodes import node
from training import SIDE, folder

from cvjobs.common import devices

pytestmark = [
    pytest.mark.faults,
    pytest.mark.ray,
    pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores"),
]

# What looks for machines more often than a user's command, and waits for them less long.
PROGRAM = (
    "import sys; from cvjobs import cli; from cvjobs.training.loop import ray_train; "
    "ray_train.RESIZE, ray_train.PATIENT = 3.0, 60.0; sys.exit(cli.main(sys.argv[1:]))"
)
WAITING = re.compile("train: waiting for machines of the cluster for 2 workers, 0:[0-9]{2}\n")
EPOCHS = 2000  # more than any machine trains meanwhile: it is stopped


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return nodes.variables(tmp_path)


def workers(out: Path) -> list[int]:
    """On how many workers each epoch so far ended."""
    with contextlib.suppress(FileNotFoundError):
        # At once: by its name it is opened twice, and another may have taken its place meanwhile.
        file = io.BytesIO((out / "history.parquet").read_bytes())
        found: list[int] = pq.read_table(file)["workers"].to_pylist()
        return found
    return []


def command(images: Path, out: Path, workers: str, address: str) -> list[str]:
    words = ["train", str(images), "-o", str(out), "--model", "small/cnn", "--img-size", str(SIDE), "--recipe", "quick"]
    words += ["--batch-size", "16", "--epochs", str(EPOCHS), "--workers", workers, "--json", "--address", address]
    return [sys.executable, "-c", PROGRAM, *words]


def test_a_machine_comes_and_goes(tmp_path: Path, variables: dict[str, str]) -> None:
    images, out = folder(tmp_path / "images", 200), tmp_path / "run"
    with ExitStack() as stack:
        address = stack.enter_context(node(variables, "--head", "--port=0", "--include-dashboard=false"))
        process = stack.enter_context(started(command(images, out, "1:2", address), **variables))

        def comes_to(count: int) -> None:
            until(lambda: workers(out)[-1:] == [count] or process.poll() is not None)
            assert process.poll() is None, process.communicate()

        comes_to(1)
        with node(variables, f"--address={address}"):
            comes_to(2)
        comes_to(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 130, err
    epochs = pq.read_table(out / "history.parquet")["epoch"].to_pylist()
    assert epochs == list(range(1, len(epochs) + 1))
    assert set(workers(out)) == {1, 2}


def test_a_team_that_lost_a_machine_waits_a_while_for_another(tmp_path: Path, variables: dict[str, str]) -> None:
    images, out = folder(tmp_path / "images", 200), tmp_path / "run"
    with ExitStack() as stack:
        address = stack.enter_context(node(variables, "--head", "--port=0", "--include-dashboard=false"))
        line = command(images, out, "2", address)

        def trains(process: subprocess.Popen[str]) -> None:
            done = len(workers(out))
            until(lambda: len(workers(out)) > done or process.poll() is not None)
            assert process.poll() is None, process.communicate()

        def waits(process: subprocess.Popen[str]) -> None:
            assert process.stderr is not None
            assert any(map(WAITING.fullmatch, process.stderr)), "it does not say that it waits"

        with started(line, **variables) as process:
            waits(process)  # for its first machine, with all the patience that the user has
            with node(variables, f"--address={address}"):
                trains(process)
            waits(process)
            with node(variables, f"--address={address}"):
                trains(process)
            out_, err = process.communicate(timeout=300)
        assert (process.returncode, out_) == (1, "")
        assert err.splitlines()[-1] == (
            "cvjobs: A machine is gone, and for 60 s the cluster had no room for 2 workers: when it has, the same "
            "command continues from the last checkpoint, and with --workers 1:2 on fewer."
        )
        with started(line, **variables) as process:  # also where it may wait without end, Ctrl-C ends it at once
            waits(process)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert err.splitlines()[-1] == "cvjobs: Stopped: the same command continues."
    epochs = pq.read_table(out / "history.parquet")["epoch"].to_pylist()
    assert epochs == list(range(1, len(epochs) + 1))
