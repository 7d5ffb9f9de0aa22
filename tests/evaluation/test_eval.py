"""`cvjobs eval` as a user runs it: labels and class maps, what is left out, the files and the page."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import made
from commands import here, sentence
from PIL import Image
from predictions import output
from vectors import Fake, clustered
from vectors import named as vectors_named

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse

pytestmark = pytest.mark.slow

LABELS = ["bird", "cat", "dog"]
CATEGORIES = [Category(at, name) for at, name in enumerate(LABELS)]
ODD = "<script>alert(1)</script>\n\\xff=cmd.jpg"


def labelled(path: str, *labels: str) -> dict[str, Any]:
    top = [{"label": label, "score": 0.5**at} for at, label in enumerate(labels)]
    return {"path": path, "width": 8, "height": 8, "label": labels[0], "score": 1.0, "top": top}


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels for images in folders of their classes; one failed, one of another folder."""
    rows = [
        labelled("cat/1.jpg", "cat", "dog", "bird"),
        labelled("cat/2.jpg", "dog", "cat", "bird"),
        labelled("dog/1.jpg", "dog", "bird", "cat"),
        labelled("dog/2.jpg", "bird", "cat", "dog"),
        {"path": "dog/3.jpg", "error": "corrupt"},
        labelled("else/1.jpg", "dog", "bird", "cat"),
    ]
    return output(tmp_path_factory.mktemp("classified"), "classify", CATEGORIES, rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("truth")
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.jpg", "Dog/4.jpg", "cow/1.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"never opened")
    return root


def test_labels_by_folder(classified: Path, folders: Path, tmp_path: Path) -> None:
    got = cvjobs.eval(str(classified), str(folders), out=str(tmp_path))
    assert got.images == {"truth": 7, "evaluated": 4, "failed": 1, "missing": 2, "unknown": 1}
    # Two of seven: what has no prediction is wrong. "Dog" is another spelling of "dog".
    assert got.metrics["top-1"] == pytest.approx(2 / 7)
    assert got.metrics["top-5"] == pytest.approx(4 / 7)
    record = json.loads((tmp_path / "eval.json").read_text())
    assert record["confusion"]["rows"] == ["cat", "cow", "dog"]
    notes = " ".join(got.notes)
    assert "labels that the model does not know: cow" in notes
    assert "one class in another spelling: Dog: dog" in notes


def test_labels_by_table_on_the_command_line(classified: Path, tmp_path: Path) -> None:
    lines = ["path,label", "cat/1.jpg,cat", "cat/2.jpg,cat", "dog/1.jpg,dog", "dog/2.jpg,dog", "else/1.jpg,bird"]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    ended = here("eval", classified, tmp_path / "truth.csv", "-o", tmp_path / "out")
    assert ended.code == 0, ended
    assert ended.left == []
    said = [line.split() for line in ended.out.splitlines()]
    assert ["top-1", "0.4000"] in said
    assert ["top-5", "1.0000"] in said  # three classes: the best three are all there are
    assert ["dog", "2", "2", "0.5000", "0.3333"] not in said
    assert "5 images, 5 with predictions" in ended.out
    assert ended.out.splitlines()[-2:] == [f"{tmp_path}/out/eval.json", f"{tmp_path}/out/eval.html"]
    ended = here("eval", classified, tmp_path / "truth.csv", "--json", "-o", tmp_path / "out")
    assert json.loads(ended.out) == json.loads((tmp_path / "out" / "eval.json").read_text())
    assert json.loads(ended.out)["metrics"]["top-1"] == 0.4


def test_labels_that_are_numbers_are_those_of_the_classes(classified: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("path,label\ncat/1.jpg,1\ndog/1.jpg,2\ndog/2.jpg,2\n")
    assert cvjobs.eval(str(classified), str(tmp_path / "truth.csv")).metrics["top-1"] == pytest.approx(2 / 3)


def test_labels_of_another_model_are_refused(classified: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("path,label\ncat/1.jpg,n01440764\n")
    with pytest.raises(WrongUse, match="No class of the predictions is in the truth: it has 'n01440764'"):
        cvjobs.eval(str(classified), str(tmp_path / "truth.csv"))


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def mapped(path: str, pixels: Any) -> dict[str, Any]:
    height, width = np.shape(pixels)
    return {"path": path, "width": width, "height": height, "class_map": png(pixels), "classes": []}


@pytest.fixture(scope="module")
def maps() -> dict[str, Any]:
    """Truths and predictions of images of several sizes, by name."""
    random = np.random.default_rng(0)
    found = {}
    for number, (height, width) in enumerate([(20, 30), (31, 17), (8, 8)]):
        truth = random.integers(0, 3, (height, width))
        predicted = np.where(random.random((height, width)) < 0.6, truth, random.integers(0, 3, (height, width)))
        truth[random.random((height, width)) < 0.1] = 9
        found[f"photo{number}"] = (truth, predicted)
    return found


def expected(maps: dict[str, Any], names: list[str]) -> tuple[float, float]:
    """The mean IoU and the share of pixels that is right, counted pixel by pixel."""
    pairs = [(t, p) for n in names for t, p in zip(*(a.ravel().tolist() for a in maps[n]), strict=True) if t != 9]
    ious = []
    for class_ in range(3):
        both = sum(t == p == class_ for t, p in pairs)
        ious.append(both / sum(class_ in pair for pair in pairs))
    return float(np.mean(ious)), sum(t == p for t, p in pairs) / len(pairs)


@pytest.mark.parametrize("palette", [False, True])
def test_class_maps(maps: dict[str, Any], tmp_path: Path, palette: bool) -> None:
    rows = [mapped(f"images/{name}.jpg", predicted) for name, (_, predicted) in maps.items()]
    given = output(tmp_path / "given", "semantic", CATEGORIES, [*rows, mapped("images/tall.jpg", np.zeros((5, 4)))])
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, (truth, _) in maps.items():
        image = Image.fromarray(truth.astype(np.uint8))
        if palette:
            image.putpalette([7 * i % 256 for i in range(768)])
            assert image.mode == "P"
        image.save(masks / f"{name}.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(masks / "tall.png")
    got = cvjobs.eval(str(given), str(masks), ignore=9)
    iou, accuracy = expected(maps, list(maps))
    assert got.metrics["mIoU"] == pytest.approx(iou, abs=1e-12)
    assert got.metrics["pixel accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert got.notes[0].startswith("classes fit by number, as the truth has no names")
    assert got.notes[1:] == ["left out, images whose mask has another size: 1 (tall)"]
    assert [c["name"] for c in got.classes] == LABELS


def test_class_maps_by_name_and_without_a_prediction(maps: dict[str, Any], tmp_path: Path) -> None:
    swapped = {0: 2, 1: 0, 2: 1}
    rows = [mapped("photo0.jpg", maps["photo0"][1]), {"path": "photo1.jpg", "error": "corrupt"}]
    given = output(tmp_path / "given", "semantic", CATEGORIES, rows)
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("photo0", "photo1"):
        truth = np.vectorize(lambda id_: swapped.get(id_, id_))(maps[name][0])
        Image.fromarray(truth.astype(np.uint8)).save(masks / f"{name}.png")
    (masks / "classes.txt").write_text("Cat\nDog\nBird\n")
    got = cvjobs.eval(str(given), str(masks), ignore=9)
    right = ((maps["photo0"][0] == maps["photo0"][1]) & (maps["photo0"][0] != 9)).sum()
    whole = sum((maps[name][0] != 9).sum() for name in ("photo0", "photo1"))
    assert got.metrics["pixel accuracy"] == pytest.approx(right / whole)
    assert got.images["failed"] == 1


def test_embeddings_and_missing_outputs_are_refused(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 4)
    fake.put(vectors_named(clustered(3, 4)))
    (tmp_path / "truth.csv").write_text("path,label\na,b\n")
    said = sentence(here("eval", tmp_path / "vectors", tmp_path / "truth.csv"), 2)
    assert "holds vectors, no predictions" in said


class Page(HTMLParser):
    """What a page has of scripts, pictures and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_worst_mistakes_and_is_harmless(tmp_path: Path) -> None:
    names = ["good.png", ODD.replace("\n", "_").replace("/", "_").replace("\\xff", "y"), "gone.png"]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in names:
        Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(photos / name, "PNG")
    box = {"x0": 20, "y0": 20, "x1": 80, "y1": 90, "score": 0.9, "category_id": 1, "label": "cat"}
    far = {**box, "x0": 200, "x1": 260, "score": 0.8}
    rows = [{"path": name, "width": 300, "height": 200, "detections": [box, far]} for name in names]
    evil = "<img src=x onerror=alert(2)>"
    given = output(tmp_path / "given", "detect", [Category(1, "cat"), Category(2, evil)], rows, source=photos)
    (photos / "gone.png").unlink()
    truth = {
        "images": [{"id": at, "file_name": name} for at, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": evil}],
        "annotations": [
            {"id": 2 * at + more + 1, "image_id": at, "category_id": 1 + more, "bbox": bbox, "iscrowd": 0}
            for at in range(3)
            for more, bbox in enumerate(([20, 20, 60, 70], [100, 100, 50, 50]))
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    got = cvjobs.eval(str(given), str(tmp_path / "truth.json"))
    assert [(c["AP50"], c["truths"]) for c in got.classes] == [(pytest.approx(1.0), 3), (0.0, 3)]
    page = Page((given / "eval" / "eval.html").read_text())
    assert "script" not in page.tags
    assert page.tags.count("img") == 4  # a false alarm and a miss in each image that is still there
    assert all(picture.startswith("data:image/") for picture in page.pictures)
    for text in ("cat 0.80: nothing is there", f"{evil[:12]}", "not found", "read vanished", "Worst false alarms"):
        assert text in page.text
    assert page.tags.count("rect") > 0
    assert (given / "eval" / "eval.html").read_text().count('<ul class="legend">') == 1 + 4  # curves, and each picture


def test_an_output_in_a_bucket(classified: Path, folders: Path, s3: str) -> None:
    bucket = made(s3, "evaluated")
    bucket.upload(classified, "out")
    got = cvjobs.eval(bucket.url("out"), str(folders), storage_option=[f"endpoint={s3}"])
    assert got.metrics["top-1"] == pytest.approx(2 / 7)
    assert json.loads(bucket.read("out/eval/eval.json"))["metrics"] == got.metrics
    assert b"top-1" in bucket.read("out/eval/eval.html")


def test_an_output_without_any_detection(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "width": 10, "height": 10, "detections": []}]
    given = output(tmp_path / "given", "detect", [Category(1, "cat")], rows)
    truth = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert cvjobs.eval(str(given), str(tmp_path / "truth.json")).metrics["AP"] == -1.0
    truth["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert cvjobs.eval(str(given), str(tmp_path / "truth.json")).metrics["AP"] == 0.0
