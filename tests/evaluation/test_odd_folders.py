"""Truths that are folders as tools export them: YOLO's labels and VOC's XML, and what the commands here wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.images.masks import rle

NAMES = ["cat", "no"]
CATEGORIES = [Category(1, "cat"), Category(2, "no")]
SIZE = {"width": 100, "height": 200}
Record = dict[str, Any]


def box(x0: float, y0: float, label: int) -> Record:
    mask = rle.encode(np.ones((60, 50), bool), (int(y0), int(x0)), (200, 100))
    corners = {"x0": x0, "y0": y0, "x1": x0 + 50, "y1": y0 + 60}
    return {**corners, "score": 0.9, "category_id": label, "label": NAMES[label - 1], "rle": mask}


BOXES = {"a": [box(10, 20, 2)], "b": [box(30, 90, 1), box(0, 0, 2)], "c": []}
LINES = {"a": "1 0.35 0.25 0.5 0.3\n", "b": "0 0.55 0.6 0.5 0.3\n1 0.25 0.15 0.5 0.3\n", "c": ""}


def made(folder: Path, task: str = "detect", before: str = "") -> Path:
    rows = [{"path": f"{before}{name}.jpg", **SIZE, "detections": boxes} for name, boxes in BOXES.items()]
    return output(folder, task, CATEGORIES, rows)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("found"))


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def said(found: Path, truth: Path, tmp_path: Path, **options: Any) -> Any:
    return cvjobs.eval(str(found), str(truth), out=str(tmp_path / "out"), **options)


def is_right(got: Any, images: int = 3) -> bool:
    """Whether all three objects are there and found."""
    assert got.images == {"truth": images, "evaluated": 3, "failed": 0, "missing": images - 3, "unknown": 0}
    assert [(c["name"], c["truths"], c["AP"]) for c in got.classes] == [
        ("cat", 1, pytest.approx(1.0)),
        ("no", 2, pytest.approx(1.0)),
    ]
    return True


def labels(change: Callable[[str], str] = str, names: str | bytes = "names: [cat, no]\n") -> dict[str, str | bytes]:
    return {"data.yaml": names, **{f"labels/{name}.txt": change(text) for name, text in LINES.items()}}


def words(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "".join(" ".join(change(line.split())) + "\n" for line in text.splitlines())


def corners(line: list[str]) -> list[str]:
    """A box as a polygon."""
    x, y, w, h = map(float, line[1:])
    points = [(x - w / 2, y - h / 2), (x + w / 2, y - h / 2), (x + w / 2, y + h / 2), (x - w / 2, y + h / 2)]
    return [line[0], *(f"{number:.6f}" for point in points for number in point)]


CHANGES: dict[str, dict[str, str | bytes]] = {
    "classes as floats": labels(words(lambda line: [f"{int(line[0]):.1e}", *line[1:]])),
    "numbers of numpy": labels(words(lambda line: [f"{float(word):.18e}" for word in line])),
    "scores": labels(words(lambda line: [*line, "0.75"])),
    "polygons": labels(words(corners)),
    "carriage returns": labels(lambda text: text.replace("\n", "\r\n")),
    "a byte order mark": labels(lambda text: "\ufeff" + text),
    "blanks and tabs": labels(lambda text: f"\n{text}\n  \n".replace(" ", "\t ").replace("\n", "  \n")),
    "no end of the last line": labels(lambda text: text.rstrip("\n")),
    "width and height below zero": labels(words(lambda line: [*line[:3], *("-" + word for word in line[3:])])),
    "names by number": labels(names="names:\n  0: cat\n  1: no\n"),
    "names by text of numbers": labels(names='{"names": {"1": "no", "0": "cat"}, "nc": 2}'),
    "names with a gap": labels(names="names: {0: cat, 1: no, 7: 1.10}\n"),
    "names with a mark": labels(names=b"\xef\xbb\xbfnames:\r\n- cat\r\n- no\r\n"),
    "names in classes.txt": labels(names="nc: 2\nnames: [x, y]\n") | {"labels/classes.txt": "cat\r\nno\r\n"},
    "names of another list": {k: v for k, v in labels().items() if k != "data.yaml"} | {"obj.names": "cat\nno\n"},
    "notes beside": labels()
    | {"labels/notes.txt": "to do: 5 more\n", "labels/train.txt": "./images/a.jpg\n./images/b.jpg\n"}
    | {"labels/LIESMICH.txt": "Fu\xdfnote".encode("latin-1"), "labels/README.txt": b"\xff\xfe"},
    "a pose of two numbers a point": labels(
        words(lambda line: [*line, "0.9", "0.9", "0.1", "0.2"]), "names: [cat, no]\nkpt_shape: [2, 2]\n"
    ),
    "a pose of three numbers a point": labels(
        words(lambda line: [*line, "0.9", "0.9", "2"]), "names: [cat, no]\nkpt_shape: [1, 3]\n"
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_labels_mean_the_same_however_they_are_written(found: Path, tmp_path: Path, what: str) -> None:
    truth = put(tmp_path / "truth", CHANGES[what])
    if what == "names with a gap":
        got = said(found, truth, tmp_path)
        assert [(c["truths"], c["AP"]) for c in got.classes[:2]] == [(1, pytest.approx(1)), (2, pytest.approx(1))]
        assert [c["name"] for c in got.classes] == ["cat", "no", "2", "3", "4", "5", "6", "1.10"]
        return
    assert is_right(said(found, truth, tmp_path))


def test_notes_beside_labels_are_named(found: Path, tmp_path: Path) -> None:
    got = said(found, put(tmp_path / "truth", CHANGES["notes beside"]), tmp_path)
    assert "left out, text files that hold no labels: 3 (LIESMICH.txt, notes.txt, train.txt)" in got.notes


README = {"README.dataset.txt": "# Cats > 2026-11-28\nhttps://example.com\n", "README.roboflow.txt": "\n28 images.\n"}


def roboflow() -> dict[str, str | bytes]:
    """The root of an export: labels in train and valid, an image without a label in test."""
    names = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'no']\n\nroboflow:\n  version: 1\n"
    return {
        **README,
        "data.yaml": names,
        "train/labels/a.txt": LINES["a"],
        "train/images/a.jpg": b"",
        "valid/labels/b.txt": LINES["b"],
        "valid/images/b.jpg": b"",
        "test/labels/.keep": b"",
        "test/images/c.jpg": b"",
    }


def test_the_root_of_an_export_in_parts(found: Path, tmp_path: Path) -> None:
    truth = put(tmp_path / "truth", roboflow())
    assert is_right(said(found, truth, tmp_path))
    part = said(found, truth / "valid", tmp_path)
    assert part.images == {"truth": 1, "evaluated": 1, "failed": 0, "missing": 0, "unknown": 2}


def test_the_parts_of_an_export_may_have_images_of_one_name(tmp_path: Path) -> None:
    files = roboflow() | {"test/images/a.jpg": b"", "test/labels/a.txt": "", "valid/images/a.jpg": b""}
    rows = [
        {"path": path, **SIZE, "detections": boxes}
        for path, boxes in {
            "train/images/a.jpg": BOXES["a"],
            "valid/images/b.jpg": BOXES["b"],
            "valid/images/a.jpg": [],
            "test/images/a.jpg": [],
            "test/images/c.jpg": [],
        }.items()
    ]
    given = output(tmp_path / "given", "detect", CATEGORIES, rows)
    got = said(given, put(tmp_path / "truth", files), tmp_path)
    assert got.images["evaluated"] == got.images["truth"] == 5
    assert got.metrics["AP"] == pytest.approx(1.0)


def test_parts_with_other_classes_are_refused(found: Path, tmp_path: Path) -> None:
    files = roboflow() | {"train/labels/classes.txt": "cat\nno\n", "test/labels/classes.txt": "no\ncat\n"}
    with pytest.raises(WrongUse, match=r"train/labels has other classes than .*test/labels: name one of the two"):
        said(found, put(tmp_path / "truth", files), tmp_path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"labels/a.txt": "cat 0.5 0.5 0.1 0.1\n"}, "a.txt, line 1 is no YOLO label"),
        ({"labels/a.txt": "0.5 0.5 0.5 0.1 0.1\n"}, "a.txt, line 1 is no YOLO label"),
        ({"labels/a.txt": "1e999 0.5 0.5 0.1 0.1\n"}, "a.txt, line 1 is no YOLO label"),
        ({"labels/a.txt": "0 0,5 0,5 0,1 0,1\n"}, "a.txt, line 1 is no YOLO label"),
        ({"labels/a.txt": "nothing here\n", "images/a.jpg": ""}, "a.txt, line 1 is no YOLO label"),
        ({"labels/a.txt": "2 0.5 0.5 0.1 0.1\n"}, "a.txt, line 1 has the class 2, and there are names for 2"),
        ({"data.yaml": "names: cat\n"}, "data.yaml has no list 'names' of the classes"),
        ({"data.yaml": "names: {a: cat}\n"}, "data.yaml has no list 'names' of the classes"),
        ({"data.yaml": "names: [[a], b]\n"}, "data.yaml has no list 'names' of the classes"),
        ({"data.yaml": "names: {99999999999: cat}\n"}, "data.yaml has no list 'names' of the classes"),
        ({"data.yaml": "names: [a\nb: c\n"}, "data.yaml, line 2 is no YAML"),
        ({"data.yaml": b"\xff\x00"}, "data.yaml is no YAML"),
    ],
)
def test_labels_that_mean_nothing_are_one_sentence(
    tmp_path: Path, files: dict[str, str | bytes], sentence: str
) -> None:
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(put(tmp_path / "truth", labels() | files)), "detect")
    assert sentence in str(error.value)


def xml(name: str, before: str = "", **changes: str) -> str:
    """VOC's XML of one image; ``changes`` are other texts of elements."""
    objects = ""
    for one in BOXES[name]:
        fields = {side: f"{one[key]:g}" for side, key in zip(("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"),
                                                             strict=True)}  # fmt: skip
        inside = "".join(f"<{side}>{text}</{side}>" for side, text in fields.items())
        rest = "".join(f"<{tag}>{text}</{tag}>" for tag, text in changes.items())
        objects += f"<object><name>{one['label']}</name>{rest}<bndbox>{inside}</bndbox></object>\n"
    return f"{before}<annotation><folder/><filename>{name}</filename>\n{objects}</annotation>"


VOC: dict[str, Callable[[str], str | bytes]] = {
    "plain": xml,
    "nothing for a flag": lambda name: xml(name, difficult="", truncated="", occluded=""),
    "zero for a flag": lambda name: xml(name, difficult=" 0 ", pose="Unspecified"),
    "a namespace": lambda name: xml(name).replace("<annotation>", '<annotation xmlns="http://example.com/voc">'),
    "a prefix": lambda name: xml(name).replace("</", "</v:").replace("<v:", "<").replace("<", "<v:")
    .replace("<v:/v:", "</v:").replace("<v:folder/>", "").replace("<v:annotation>", '<v:annotation xmlns:v="x">'),
    "floats": lambda name: xml(name).replace("</x", ".00</x").replace("</y", ".00</y"),
    "blanks": lambda name: xml(name).replace("<name>", "<name>\n  ").replace("<xmin>", "<xmin>\n\t"),
    "carriage returns": lambda name: xml(name).replace("\n", "\r\n"),
    "a byte order mark": lambda name: "\ufeff" + xml(name, '<?xml version="1.0" encoding="utf-8"?>\n'),
    "UTF-16": lambda name: xml(name, '<?xml version="1.0" encoding="utf-16"?>\n').encode("utf-16"),
    "Latin-1": lambda name: xml(name, '<?xml version="1.0" encoding="iso-8859-1"?><!-- caf\xe9 -->').encode("latin-1"),
    "comments": lambda name: xml(name).replace("<object>", "<object><!-- <name>x</name> -->"),
    "a size without numbers": lambda name: xml(name).replace("<folder/>", "<size><width/><height>0</height></size>"),
}  # fmt: skip


@pytest.mark.parametrize("what", VOC)
def test_xml_means_the_same_however_it_is_written(found: Path, tmp_path: Path, what: str) -> None:
    truth = put(tmp_path / "truth", {f"Annotations/{name}.xml": VOC[what](name) for name in BOXES})
    put(truth, {"README.txt": "0 0.5 0.5 0.1 0.1\n"})
    assert is_right(said(found, truth, tmp_path))


@pytest.mark.parametrize("word", ["1", "true", "True", "yes"])
def test_what_is_difficult_may_be_found_or_not(found: Path, tmp_path: Path, word: str) -> None:
    truth = put(tmp_path / "truth", {f"{name}.xml": xml(name, difficult=word) for name in BOXES})
    assert [c["truths"] for c in said(found, truth, tmp_path).classes] == [0, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'<?xml version="1.0" encoding="gbk"?><annotation/>', "is no XML that can be read (multi-byte"),
        (b'<?xml version="1.0" encoding="nonesuch"?><annotation/>', "is no XML that can be read (unknown encoding"),
        (b'\n<?xml version="1.0"?><annotation/>', "a.xml, line 2 is no XML"),
        (b"<annotations><image/></annotations>", "is no VOC annotation: it begins with <annotations>"),
        (
            b"<annotation><object><name>cat</name><bndbox><xmin/></bndbox></object></annotation>",
            "has a bndbox without xmin <= xmax",
        ),
    ],
)
def test_xml_that_means_nothing_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(WrongUse) as error:
        ground_truth_open.read(str(put(tmp_path / "truth", {"a.xml": content})), "detect")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", ["", "deep/er/"])
def test_exports_are_a_truth(tmp_path: Path, before: str) -> None:
    """Boxes and masks that a model found, exported and evaluated against, are all right."""
    for task in ("detect", "instance"):
        given = made(tmp_path / task, task, before)
        file = tmp_path / f"{task}.json"
        cvjobs.export(str(given), format="coco", out=str(file))
        cvjobs.export(str(given), format="yolo", out=str(tmp_path / f"{task}.yolo"))
        assert is_right(said(given, file, tmp_path))
        assert is_right(said(given, tmp_path / f"{task}.yolo", tmp_path))
        assert is_right(said(file, file, tmp_path))  # as predictions, too
        (tmp_path / "list.json").write_text(json.dumps(json.loads(file.read_text())["annotations"]))
        got = said(tmp_path / "list.json", file, tmp_path)
        assert got.metrics["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("ending", ["txt", "xml"])
def test_files_may_be_named_by_the_whole_name_of_the_image(found: Path, tmp_path: Path, ending: str) -> None:
    contents: dict[str, str | bytes] = {name: LINES[name] if ending == "txt" else xml(name) for name in BOXES}
    truth = put(tmp_path / "truth", {f"{name}.jpg.{ending}": content for name, content in contents.items()})
    put(truth, {"data.yaml": "names: [cat, no]\n"})
    assert is_right(said(found, truth, tmp_path))
