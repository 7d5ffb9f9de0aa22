"""Exports as a folder of YOLO's labels: what is in it, what it never touches, and what a kill leaves."""

from __future__ import annotations

import os
from pathlib import Path

import exported
import pytest
import yaml
from exported import CLASSES, NAMES, read
from hypothesis import example, given
from hypothesis import strategies as st
from predictions import output

import cvjobs
from cvjobs.common import paths
from cvjobs.common.errors import WrongUse
from cvjobs.dataset.exports.yolo import label_file


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.boxes(tmp_path_factory.mktemp("boxes") / "out")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.masks(tmp_path_factory.mktemp("masks") / "out")


class TestYolo:
    """YOLO's folder."""

    def test_boxes(self, boxes: Path, tmp_path: Path) -> None:
        done = cvjobs.export(boxes, tmp_path / "yolo", format="yolo")
        rows = read(boxes)
        assert len([*(tmp_path / "yolo" / "labels").rglob("*.txt")]) == len(rows)
        assert {p.name for p in tmp_path.iterdir()} == {"yolo"}
        data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
        assert data["names"] == dict(enumerate(NAMES.values()))
        written = 0
        for path, row in rows.items():
            file = os.path.join(os.fsencode(tmp_path / "yolo" / "labels"), label_file(path))
            with open(file) as text:
                lines = text.read().splitlines()
            written += len(lines)
            for line, box in zip(lines, row["detections"], strict=True):
                number, cx, cy, w, h = map(float, line.split())
                assert data["names"][number] == box["label"]
                corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                expected = [box["x0"] / 640, box["y0"] / 480, box["x1"] / 640, box["y1"] / 480]
                assert corners == pytest.approx(expected, abs=2e-6)
        assert done.written == written > 0

    @pytest.mark.parametrize("aim", ["nowhere", "link"])
    def test_a_link_that_leads_nowhere(self, boxes: Path, tmp_path: Path, aim: str) -> None:
        (tmp_path / "link").symlink_to(aim)
        with pytest.raises(WrongUse, match=r"link is a link to .*, which leads nowhere: make what it leads to"):
            cvjobs.export(boxes, tmp_path / "link", format="yolo")
        assert os.listdir(tmp_path) == ["link"]

    @given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
    @example(b"/../..//./../a.jpg")
    @example(b"..")
    @example(b"a/...jpg")
    def test_no_name_leads_out_of_the_folder(self, raw: bytes) -> None:
        file = label_file(paths.path_text(raw))
        assert file.endswith(b".txt")
        assert os.path.normpath(b"/labels/" + file) == b"/labels/" + file

    def test_again_replaces_the_labels_and_nothing_else(self, boxes: Path, masks: Path, tmp_path: Path) -> None:
        cvjobs.export(boxes, tmp_path, format="yolo")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "mine.jpg").write_bytes(b"mine")
        (tmp_path / ".tmp-yolo-0123").mkdir()  # of a killed one
        cvjobs.export(masks, tmp_path, format="yolo")
        assert {p.name for p in (tmp_path / "labels").iterdir()} == {"0.txt", "1.txt", "2.txt", "3.txt"}
        assert {p.name for p in tmp_path.iterdir()} == {"labels", "data.yaml", "images"}
        assert (tmp_path / "images" / "mine.jpg").read_bytes() == b"mine"

    @pytest.mark.parametrize("names", [("a/b.jpg", "a/b.png"), ("b.jpg", "b.txt/c.jpg"), ("b.txt/c.jpg", "b.jpg")])
    def test_images_with_one_label_file_are_refused(self, tmp_path: Path, names: tuple[str, str]) -> None:
        rows = [{"path": path, "width": 1, "height": 1, "detections": []} for path in names]
        out = output(tmp_path / "out", "detect", CLASSES, rows)
        with pytest.raises(WrongUse, match="shares its label file"):
            cvjobs.export(out, tmp_path / "yolo", format="yolo")
        assert not (tmp_path / "yolo").exists()

    def test_another_folder_is_refused(self, boxes: Path, tmp_path: Path) -> None:
        (tmp_path / "data.yaml").write_text("names: [mine]\n")
        for to in (tmp_path, tmp_path / "data.yaml"):
            with pytest.raises(WrongUse, match="holds something else than a yolo export"):
                cvjobs.export(boxes, to, format="yolo")
        assert (tmp_path / "data.yaml").read_text() == "names: [mine]\n"
        with pytest.raises(WrongUse, match="no folder of this machine"):
            cvjobs.export(boxes, "s3://bucket/yolo", format="yolo")

    def test_a_kill_while_the_labels_are_put_in_place_is_repaired(self, masks: Path, tmp_path: Path) -> None:
        cvjobs.export(masks, tmp_path, format="yolo")
        aside = tmp_path / ".tmp-yolo-0123"
        (aside / "labels").mkdir(parents=True)
        (tmp_path / "data.yaml").rename(aside / "data.yaml")
        cvjobs.export(masks, tmp_path, format="yolo")
        assert {p.name for p in tmp_path.iterdir()} == {"labels", "data.yaml"}
        assert {p.name for p in (tmp_path / "labels").iterdir()} == {"0.txt", "1.txt", "2.txt", "3.txt"}
