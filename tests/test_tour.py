"""The tour of the Python interface runs as it is written, cell after cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, some

pytestmark = pytest.mark.slow

TOUR = Path(__file__).parent.parent / "docs" / "tour.py"


@pytest.mark.faults(minutes=0.2)
def test_the_tour(photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "photos", 6)
    words = [sys.executable, str(TOUR), str(source), str(tmp_path / "tour"), "--weights", "random"]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "6 listed = 6 ok" in ended.stdout
    assert ended.stdout.rstrip().endswith("vectors/report.html")
