"""Benchmarks that write outputs by themselves, and that of a GPU, which must not rot where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cvjobs

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_rows_of_known_images_leave_a_run_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import listing
    import million

    source, out = tmp_path / "images", tmp_path / "out"
    listing.make_tree(source, 30)
    million.make_known(source, out)
    done = cvjobs.embed(source, out, model=million.MODEL)
    assert (done.ok, done.computed) == (30, 0)


def test_of_the_gpus_steps_none_stops_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    import gpu
    import gpu_steps
    from table import Row

    def fails(bench: Any) -> Iterator[Row]:  # noqa: ARG001
        yield Row(what="known before", value=1, unit="s")
        raise ValueError("of no use")

    def lasts(bench: Any) -> Iterator[Row]:
        bench.run(sys.executable, "-c", "import time; time.sleep(200)")
        yield Row(what="never", value=1, unit="s")

    def lacks(bench: Any) -> Iterator[Row]:
        if bench:
            raise gpu_steps.LeftOut("a library is not installed")
        yield Row(what="never", value=1, unit="s")

    def works(bench: Any) -> Iterator[Row]:
        bench.run(sys.executable, "-c", "print('{}')")
        yield Row(what="known after", value=2, unit="s")

    steps = [("fails", fails, 5), ("lasts", lasts, 0.5), ("lacks", lacks, 5), ("works", works, 60)]
    monkeypatch.setattr(gpu, "STEPS", steps)
    found = gpu.main(["--cache", str(tmp_path)])
    assert [row.what for row in found] == ["known before", "known after"]
    said = capsys.readouterr().out
    for words in (
        "fails: failed, of no use",
        "lasts: not finished in ",
        "lacks: left out, a library is not",
        "works: ",
    ):
        assert words in said
    (record,) = (tmp_path / "quick").glob("*-gpu-CPU.json")
    assert [row["target"] for row in json.loads(record.read_text())["rows"]] == [None, None]
    assert "not to be quoted" in record.with_suffix(".md").read_text()
    assert not list(tmp_path.glob("gpu-*/photos*"))


def test_a_step_of_the_gpu_without_time_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    import gpu
    import gpu_steps

    assert gpu.main(["--cache", str(tmp_path), "--seconds", "0"]) == []
    assert capsys.readouterr().out.count(": not begun, the time is over") == len(gpu_steps.STEPS)


@pytest.mark.faults(minutes=4)
def test_all_steps_of_the_gpu_run_on_a_cpu(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCHMARKS / "gpu.py"), "--cache", str(tmp_path), "--seconds", "1500"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not [word for word in ("failed,", "not finished", "not begun") if word in ended.stdout], ended.stdout
    (record,) = (tmp_path / "quick").glob("*-gpu-CPU.json")
    assert len(json.loads(record.read_text())["rows"]) >= 15
