"""Training on MIN:MAX workers while a machine comes and goes: every epoch once, on as many workers as there are."""

from __future__ import annotations

import contextlib
import io
import signal
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

# What looks for machines more often than a user's command.
PROGRAM = (
    "import sys; from cvjobs import cli; from cvjobs.training.loop import ray_train; "
    "ray_train.RESIZE = 3.0; sys.exit(cli.main(sys.argv[1:]))"
)
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


def test_a_machine_comes_and_goes(tmp_path: Path, variables: dict[str, str]) -> None:
    images, out = folder(tmp_path / "images", 200), tmp_path / "run"
    words = ["train", str(images), "-o", str(out), "--model", "small/cnn", "--img-size", str(SIDE), "--recipe", "quick"]
    words += ["--batch-size", "16", "--epochs", str(EPOCHS), "--workers", "1:2", "--json"]
    with ExitStack() as stack:
        address = stack.enter_context(node(variables, "--head", "--port=0", "--include-dashboard=false"))
        command = [sys.executable, "-c", PROGRAM, *words, "--address", address]
        process = stack.enter_context(started(command, **variables))

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
