"""What a snapshot records of the libraries that are installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from commands import here, some

import cvjobs
from cvjobs.common import fingerprint


def test_a_package_that_came_without_its_metadata_is_recorded_as_unknown(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "torchcodec":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    fingerprint.libraries.cache_clear()
    try:
        some(photos, tmp_path / "few", 2)
        ended = here("embed", tmp_path / "few", "-o", tmp_path / "out", "--model", "thumbnail/4")
        assert ended.code == 0, ended.err
    finally:
        fingerprint.libraries.cache_clear()
    recorded = cvjobs.open(tmp_path / "out").snapshot.libraries
    assert recorded["torchcodec"] == "unknown"
    assert recorded["torch"] == real("torch")
