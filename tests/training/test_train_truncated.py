"""Training with what can be read of pictures that are cut short."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import here, sentence
from PIL import Image

SETTINGS = ("--model", "small/cnn", "--img-size", 16, "--epochs", 1, "--batch-size", 4, "--weights", "random")
TRAIN = (*SETTINGS, "--json", "--max-error-rate", 1)


@pytest.mark.slow
def test_cut_pictures_are_errors_or_used(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(16):
        place = data / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)).save(file, "JPEG")
        place.write_bytes(file.getvalue()[:-800] if number < 3 else file.getvalue())
    failed = {}
    for kind in ("fail", "use"):
        ended = here("train", data, "-o", tmp_path / kind, *TRAIN, "--truncated", kind)
        assert ended.code == 0, ended
        failed[kind] = pq.read_table(tmp_path / kind / "errors.parquet")["code"].to_pylist()
    assert failed == {"fail": ["truncated"] * 3, "use": []}
    made = {kind: json.loads((tmp_path / kind / "config.json").read_text()) for kind in failed}
    assert "truncated" not in json.dumps(made["fail"]["identity"])
    assert made["use"]["identity"]["transform"]["truncated"] == "use"
    assert "transform" in sentence(here("train", data, "-o", tmp_path / "use", *TRAIN), 2)
    # The model is one that takes any picture.
    ended = here("classify", data, "-o", tmp_path / "labels", "--model", tmp_path / "use", "--max-error-rate", "1")
    assert ended.code == 0, ended
    assert len(list((tmp_path / "labels/errors").glob("*.parquet"))) == 1
