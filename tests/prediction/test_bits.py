"""Images of which nothing says how many of their 16 bits are used: named once a run, and bright with ``--bits``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Ended, aged, embed, here, opened, rows
from image_writers import BLACK_IS_ZERO, tiff


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two scans of 12 bits in 16, and one of 16."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, bits in enumerate((12, 12, 16)):
        values = np.full((24, 24, 1), 2**bits - 1 - 50 * number, np.uint16)
        (folder / f"scan{number}.tif").write_bytes(tiff(values, BLACK_IS_ZERO, bits=16))
    return aged(folder)


def lights(out: Path) -> list[int]:
    """How bright each image is, 0 to 255."""
    table = rows(out).sort_by("path")
    return [round(255 * vector[0]) for vector in table["embedding"].to_pylist()]


def said(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if "--bits" in line]


@pytest.mark.slow
def test_dark_images_are_named_and_bright_with_bits(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = embed(scans, out)
    assert ended.code == 0, ended.err
    assert said(ended) == [
        "embed: 2 images of 16 bits (first scan0.tif) use at most 12 of them and no tag says so: dark as they are, and "
        "bright with --bits 12"
    ]
    assert lights(out) == [16, 16, 255]
    refused = embed(scans, out, "--bits", "12")
    assert refused.code == 2
    assert "bits not given there, 12 here" in refused.err
    default = embed(scans, out, "--bits", "16", "--json")
    assert (default.code, json.loads(default.out)["computed"]) == (0, 0), "all 16 are what was computed"
    assert embed(scans, out, "--bits", "12", "--overwrite").code == 0
    assert lights(out) == [255, 252, 255]
    again = embed(scans, out, "--json")
    assert (again.code, json.loads(again.out)["computed"], said(again)) == (0, 0, [])
    assert opened(out).snapshot.resolved["transform"]["bits"] == 12
    assert embed(scans, out, "--bits", "16").code == 2
    silent = embed(scans, tmp_path / "other", "--bits", "16")
    assert (silent.code, said(silent)) == (0, []), "who says so is not asked"


@pytest.mark.slow
def test_a_training_takes_bits(scans: Path, tmp_path: Path) -> None:
    words = ("train", scans, "-o", tmp_path / "run", "--task", "autoencoder", "--dim", "1", "--img-size", "8")
    plain = ("--epochs", "1", "--batch-size", "2", "--precision", "fp32", "--val", "0.34")
    ended = here(*words, *plain)
    assert ended.code == 0, ended.err
    assert said(ended)
    ended = here(*words, *plain, "--bits", "12", "--overwrite")
    assert ended.code == 0, ended.err
    assert not said(ended)
    assert json.loads((tmp_path / "run/config.json").read_text())["identity"]["transform"]["bits"] == 12
