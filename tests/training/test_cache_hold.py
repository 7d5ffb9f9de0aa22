"""Folders of decoded images that are in use, and what is deleted of those that are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cvjobs.training.data import cache_hold
from cvjobs.training.data.cache_hold import LOCK, CacheHold, claimed, sweep

HOLDS = "import sys, time; from cvjobs.training.data import cache_hold; hold = "
WAITS = "; print('ready', flush=True); time.sleep(300)"


def aged(folder: Path) -> None:
    """Make as if a folder was used last nine days ago."""
    then = time.time() - 9 * 24 * 3600
    os.utime(folder / LOCK, (then, then))


def used(call: str, folder: Path) -> subprocess.Popen[str]:
    """Another process that uses a folder."""
    program = f"{HOLDS}cache_hold.{call}{WAITS}"
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_folder_is_deleted_by_the_last_that_uses_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    first, last = CacheHold(str(folder)), CacheHold(str(folder))
    (folder / "chunk").mkdir()
    first.clear()
    assert (folder / "chunk").exists()
    last.clear()
    assert not folder.exists()
    CacheHold(str(folder)).clear()
    assert not folder.exists()


def test_what_dead_processes_left_goes_after_a_week(tmp_path: Path) -> None:
    for name in ("old", "young", "used"):
        CacheHold(str(tmp_path / name)).close()
        (tmp_path / name / "chunk").mkdir()
    (tmp_path / "other").mkdir()
    process = used("CacheHold(sys.argv[1])", tmp_path / "used")
    for name in ("old", "used"):
        aged(tmp_path / name)
    sweep(str(tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == {"young", "used", "other"}
    ended(process)
    sweep(str(tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == {"young", "other"}
    sweep(str(tmp_path / "gone"))


def test_each_process_has_a_folder_that_passes_to_who_comes_after_it(tmp_path: Path) -> None:
    process = used("claimed(sys.argv[1], 's3://bucket/run')", tmp_path)
    (first,) = tmp_path.iterdir()
    (first / "chunk.seen").touch()
    hold = claimed(str(tmp_path), "s3://bucket/run")
    assert Path(hold.folder) == first.with_name(first.name.removesuffix("0") + "1")
    ended(process)
    after = claimed(str(tmp_path), "s3://bucket/run")
    assert Path(after.folder) == first
    assert (first / "chunk.seen").exists()
    for each in (hold, after):
        each.close()
        aged(Path(each.folder))
    CacheHold(str(tmp_path / "chunk")).close()
    aged(tmp_path / "chunk")
    sweep(str(tmp_path), passing=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["chunk"]
    assert cache_hold.OLD < 9 * 24 * 3600
