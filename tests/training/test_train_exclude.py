"""``--exclude`` of a training: the images of another pattern are other images."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import here, sentence
from training import folder


@pytest.mark.slow
def test_what_is_excluded_is_not_trained_on(tmp_path: Path) -> None:
    source, run = folder(tmp_path / "images", 8), tmp_path / "run"
    line = ("train", source, "-o", run, "--model", "small/cnn", "--img-size", 28, "--recipe", "quick", "--epochs", 1)
    ended = here(*line, "--exclude", "red", "--exclude", "*/007.png")
    assert ended.code == 0, ended
    assert ended.out.startswith("12 to train, 2 to val; 2 classes\n")
    assert str(run) in sentence(here(*line), 2)
    assert here(*line, "--exclude", "red", "--exclude", "*/007.png").code == 0
