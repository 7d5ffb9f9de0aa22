"""A command that is stopped while it starts: exit code 130 and one sentence, whatever it is just importing."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import CLI, embed, environment, some

COMMANDS = {
    "embed": ("embed", "{photos}", "-o", "{out}", "--model", "thumbnail/4"),
    "train": ("train", "{photos}", "-o", "{out}", "--model", "small/cnn", "--epochs", "500"),
    "detect": ("detect", "{photos}", "-o", "{out}", "--model", "torchvision/ssdlite320_mobilenet_v3_large"),
    "models": ("models",),
}


def catches(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has told the kernel what to do on a signal: until then the interpreter itself starts."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def stopped(words: list[str], number: int, after: float) -> tuple[int, str]:
    """Start a command, send it a signal that long after it can take one, and return how it ended."""
    with subprocess.Popen(
        [*CLI, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        while not catches(process, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(after)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embed", "models"])
def test_sigterm_in_the_middle_of_the_imports(photos: Path, tmp_path: Path, name: str) -> None:
    words = [word.format(photos=photos, out=tmp_path / "out") for word in COMMANDS[name]]
    assert stopped(words, signal.SIGTERM, 0.05) == (130, "cvjobs: Stopped.\n")


@pytest.mark.faults(minutes=4)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["embed", "train", "detect"])
def test_a_signal_at_twenty_moments_of_the_start(photos: Path, tmp_path: Path, name: str, number: int) -> None:
    source = some(photos, tmp_path / "photos", 20)
    for moment in range(20):
        out = tmp_path / f"out{moment}"
        words = [word.format(photos=source, out=out) for word in COMMANDS[name]]
        code, err = stopped(words, number, moment * 0.1)
        assert code in (130, 0) if name == "embed" else code == 130, (moment, code, err)  # it may have been done
        assert "Traceback" not in err, (moment, err)
        if code:
            assert "cvjobs: Stopped" in err, (moment, code, err)
    if name == "embed":
        assert embed(source, tmp_path / "out7").code == 0
