"""Nights of detectors of transformers and in ONNX files: nothing is computed twice, after kills or on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_detectors
import nodes
import onnx_files
import pytest
from commands import aged, exact, here, killed_often, rows, run, some
from nodes import node
from onnx_files import Rows

import cvjobs

pytestmark = pytest.mark.slow

NIGHTLY = """
state: state
steps:
  - name: transformers
    detect: {source: photos, out: of-transformers, model: "TRANSFORMERS", conf: 0.3}
  - name: onnx
    detect: {source: photos, out: of-onnx, model: "ONNX"}
"""


def transformers(folder: Path) -> str:
    hf_detectors.made("d_fine", folder / "tiny")
    return f"hf/{folder / 'tiny'}"


def onnx(folder: Path) -> str:
    """A file of YOLO v8's kind with three classes, and its card."""
    boxes = Rows(7, (30, 30, 40, 40, -1, -1, -1), 6.0, "Sigmoid", 4, first=True)
    file = onnx_files.detector(folder / "tiny.onnx", {"output0": boxes})
    file.with_suffix(".yaml").write_text("size: 128\nlabels: [cat, dog, bird]\n")
    return f"onnx/{file}"


FAMILIES = pytest.mark.parametrize("made", [transformers, onnx])


def detections(out: Path) -> list[dict[str, Any]]:
    return sorted(rows(out).select(["path", "detections"]).to_pylist(), key=lambda row: str(row["path"]))


@FAMILIES
def test_the_same_command_again_computes_nothing(photos: Path, tmp_path: Path, made: Callable[[Path], str]) -> None:
    source = aged(some(photos, tmp_path / "photos", 4))
    line = ("detect", source, "-o", tmp_path / "out", "--model", made(tmp_path), "--conf", "0.3", "--json")
    for computed in (4, 0):
        ended = here(*line)
        assert (ended.code, f'"computed": {computed},' in ended.out) == (0, True), ended
    exact(tmp_path / "out", source, 4)


@pytest.mark.faults(minutes=1)
def test_the_second_night_computes_nothing_and_the_third_what_is_new(photos: Path, tmp_path: Path) -> None:
    source = aged(some(photos, tmp_path / "photos", 12))
    named = NIGHTLY.replace("TRANSFORMERS", transformers(tmp_path)).replace("ONNX", onnx(tmp_path))
    (tmp_path / "nightly.yaml").write_text(named)

    def night() -> list[dict[str, Any]]:
        answer = cvjobs.run(str(tmp_path / "nightly.yaml")).as_dict()
        assert answer["exit_code"] == 0, answer
        return [step["summary"] for step in answer["steps"]]

    assert [(one["computed"], one["reused"]) for one in night()] == [(12, 0)] * 2
    before = [detections(tmp_path / out) for out in ("of-transformers", "of-onnx")]
    assert all(any(row["detections"] for row in found) for found in before)
    assert [(one["computed"], one["reused"]) for one in night()] == [(0, 12)] * 2
    shutil.copy(sorted(photos.rglob("*.jpg"))[100], source)
    aged(source)
    assert [(one["computed"], one["reused"]) for one in night()] == [(1, 12)] * 2
    for out, earlier in zip(("of-transformers", "of-onnx"), before, strict=True):
        exact(tmp_path / out, source, 13)
        assert [row for row in detections(tmp_path / out) if row in earlier] == earlier


@pytest.mark.faults(minutes=2)
@FAMILIES
def test_a_command_that_is_killed_four_times_is_exact(
    photos: Path, tmp_path: Path, made: Callable[[Path], str]
) -> None:
    killed_often(photos, tmp_path / "outs", 400, 4, 2, ("detect", "--model", made(tmp_path), "--conf", "0.3"))


@pytest.mark.ray
@pytest.mark.faults(minutes=2)
@FAMILIES
def test_a_cluster_finds_the_same_and_its_second_night_nothing(
    photos: Path, tmp_path: Path, made: Callable[[Path], str]
) -> None:
    source, model = aged(some(photos, tmp_path / "photos", 40)), made(tmp_path)
    line = ("detect", source, "--model", model, "--conf", "0.3", "--json")
    own = run(*line, "-o", tmp_path / "own")
    assert own.code == 0, own
    variables: Any = nodes.variables(tmp_path)
    with (
        node(variables, "--head", "--port=0", "--include-dashboard=false") as address,
        node(variables, f"--address={address}"),
    ):
        for computed in (40, 0):
            ended = run(*line, "-o", tmp_path / "cluster", "--address", address, "--workers", 2, **variables)
            assert (ended.code, f'"computed": {computed},' in ended.out) == (0, True), ended
    exact(tmp_path / "cluster", source, 40)
    for one, other in zip(detections(tmp_path / "cluster"), detections(tmp_path / "own"), strict=True):
        assert one["path"] == other["path"]
        same(one["detections"], other["detections"])
        same(other["detections"], one["detections"])


def same(found: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Each object is among the others but for rounding, which differs by the number of threads."""
    sides = ("x0", "y0", "x1", "y1")
    for one in found:
        apart = [
            max(abs(one[side] - other[side]) for side in sides)
            for other in others
            if other["label"] == one["label"] and abs(other["score"] - one["score"]) < 1e-3
        ]
        assert one["score"] < 0.301 or min(apart, default=1.0) < 0.5
