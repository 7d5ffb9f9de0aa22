"""COCO's annotations as the truth of class maps: painted, with what no annotation covers, and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import odd_truths
import pytest
from commands import here, sentence
from fuzzing import Seeds
from PIL import Image
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import png, rle

Pixels = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 30, 40
VOC = [Category(0, "__background__"), Category(1, "cat"), Category(2, "dog")]
CITY = [Category(0, "cat"), Category(1, "dog")]
COCO = [{"id": 17, "name": "Cat"}, {"id": 1 << 40, "name": "dog"}]


def box(x: int, y: int, w: int, h: int) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def lengths(x: int, y: int, w: int, h: int, compressed: bool) -> dict[str, Any]:
    text = rle.encode(np.ones((h, w), bool), (y, x), (HEIGHT, WIDTH))
    if compressed:
        return {"size": [HEIGHT, WIDTH], "counts": text}
    flat = rle.decode(text, HEIGHT, WIDTH).T.ravel()
    turns = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *turns, HEIGHT * WIDTH]).tolist()}


def outlined() -> list[dict[str, Any]]:
    """A dog over a cat in a; in b a crowd of cats, later under nothing; c has none."""
    found = [
        (1, 17, box(5, 5, 20, 10), 0),
        (2, 17, lengths(0, 0, 10, 30, False), 1),
        (1, 1 << 40, lengths(15, 8, 20, 20, True), 0),
    ]
    return [
        {"id": at, "image_id": image, "category_id": of, "segmentation": outline, "iscrowd": crowd}
        for at, (image, of, outline, crowd) in enumerate(found, 1)
    ]


def put(file: Path, **changes: Any) -> Path:
    images = [
        {"id": at, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}
        for at, name in zip((1, 2, 3), "abc", strict=True)
    ]
    file.write_text(json.dumps({"images": images, "categories": COCO, "annotations": outlined(), **changes}))
    return file


def drawn() -> dict[str, Pixels]:
    """The maps of these annotations with 0 for the rest, 1 for cats and 2 for dogs."""
    maps = {name: np.zeros((HEIGHT, WIDTH), np.uint8) for name in "abc"}
    maps["a"][5:15, 5:25] = 1
    maps["a"][8:28, 15:35] = 2
    maps["b"][:, :10] = 1
    return maps


def named(at: int, pixels: int) -> dict[str, Any]:
    return {"category_id": at, "label": VOC[at].name, "pixels": pixels, "share": pixels / HEIGHT / WIDTH}


def made(folder: Path, maps: dict[str, Pixels], categories: list[Category]) -> Path:
    rows = [
        {"path": f"photos/{name}.jpg", "width": WIDTH, "height": HEIGHT, "class_map": png.encode(pixels), "classes": []}
        for name, pixels in maps.items()
    ]
    return output(folder, "semantic", categories, rows)


def test_annotations_are_painted_later_ones_over_earlier(tmp_path: Path) -> None:
    given, truth = made(tmp_path / "given", drawn(), VOC), put(tmp_path / "instances.json")
    ended = here("eval", given, truth)
    assert ended.code == 0, ended
    assert "areas without an annotation are '__background__'" in ended.out.splitlines()
    record = json.loads((given / "eval" / "eval.json").read_text())
    assert record["truth_format"] == "coco"
    assert record["metrics"] == {"mIoU": 1.0, "pixel accuracy": 1.0, "mean class accuracy": 1.0}
    counts = {name: sum(int((pixels == at).sum()) for pixels in drawn().values()) for at, name in enumerate("0CD")}
    assert [(c["id"], c["name"], c["pixels"]) for c in record["classes"]] == [
        (17, "Cat", counts["C"]),
        (1 << 40, "dog", counts["D"]),
        (0, "__background__", counts["0"]),
    ]
    assert record["ignored"]["pixels"] == 0
    page = (given / "eval" / "eval.html").read_text()
    assert "Areas without an annotation are &#39;__background__&#39;" in page


def test_without_a_background_the_rest_does_not_count(tmp_path: Path) -> None:
    maps = {name: np.maximum(pixels, 1) - 1 for name, pixels in drawn().items()}
    maps["a"][:, 30:] = 0  # five columns of the dog are wrong
    got = cvjobs.eval(str(made(tmp_path / "given", maps, CITY)), str(put(tmp_path / "instances.json")))
    assert "areas without an annotation do not count, as the model has no background" in got.notes
    cats, dogs = (sum(int((pixels == at).sum()) for pixels in drawn().values()) for at in (1, 2))
    assert got.metrics["pixel accuracy"] == pytest.approx((cats + dogs - 100) / (cats + dogs))
    assert {c["name"]: c["IoU"] for c in got.classes} == {
        "Cat": pytest.approx(cats / (cats + 100)),
        "dog": pytest.approx((dogs - 100) / dogs),
    }
    assert got.more["ignored"] == {
        "value": None,
        "pixels": 3 * HEIGHT * WIDTH - cats - dogs,
        "share": pytest.approx(1 - (cats + dogs) / (3 * HEIGHT * WIDTH)),
    }


def test_a_background_of_the_truth_is_that_of_the_model(tmp_path: Path) -> None:
    truth = put(tmp_path / "instances.json", categories=[*COCO, {"id": 0, "name": "background"}])
    got = cvjobs.eval(str(made(tmp_path / "given", drawn(), VOC)), str(truth))
    assert got.metrics["mIoU"] == 1.0
    assert [c["name"] for c in got.classes] == ["background", "Cat", "dog"]


def test_without_names_the_ids_are_those_of_the_model(tmp_path: Path) -> None:
    numbered = [{**one, "category_id": 1 if one["category_id"] == 17 else 2} for one in outlined()]
    truth = put(tmp_path / "instances.json", categories=None, annotations=numbered)
    got = cvjobs.eval(str(made(tmp_path / "given", drawn(), VOC)), str(truth))
    assert got.metrics["mIoU"] == 1.0


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    twice = [{**one, "category_id": 18 if one["id"] == 2 else one["category_id"]} for one in outlined()]
    truth = put(tmp_path / "instances.json", categories=[*COCO, {"id": 18, "name": "cat"}], annotations=twice)
    got = cvjobs.eval(str(made(tmp_path / "given", drawn(), VOC)), str(truth))
    assert got.metrics["mIoU"] == 1.0
    assert any("several categories of one name" in note for note in got.notes)


def test_an_export_of_class_maps_is_their_truth(tmp_path: Path) -> None:
    rows = [
        {"path": f"{name}.jpg", "width": WIDTH, "height": HEIGHT, "class_map": png.encode(pixels), "classes": counted}
        for name, pixels in drawn().items()
        if (counted := [named(at, int((pixels == at).sum())) for at in np.unique(pixels).tolist()])
    ]
    given = output(tmp_path / "given", "semantic", VOC, rows)
    cvjobs.export(str(given), format="coco", out=str(tmp_path / "export.json"))
    got = cvjobs.eval(str(given), str(tmp_path / "export.json"))
    assert got.metrics["mIoU"] == 1.0
    assert got.images["evaluated"] == 3


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"annotations": [{**outlined()[0], "segmentation": None, "bbox": [0, 0, 5, 5]}]}, [], "has no masks"),
        ({"images": [{"id": at, "file_name": f"{at}.jpg"} for at in (1, 2, 3)]}, [], "no usable width and height"),
        ({}, ["--void", "0"], "leave them out, annotations say what counts"),
        ({}, ["--ignore", "0"], "leave them out, annotations say what counts"),
        ({"annotations": [{**outlined()[0], "segmentation": [[1, 2]]}]}, [], "a segmentation that makes no sense"),
    ],
)
def test_what_cannot_be_painted_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], options: list[str], said: str
) -> None:
    given = made(tmp_path / "given", drawn(), VOC)
    assert said in sentence(here("eval", given, put(tmp_path / "instances.json", **changes), *options), 2)


def test_a_truth_without_annotations_is_background_alone(tmp_path: Path) -> None:
    got = cvjobs.eval(str(made(tmp_path / "given", drawn(), VOC)), str(put(tmp_path / "none.json", annotations=[])))
    assert got.metrics["pixel accuracy"] == np.mean([pixels == 0 for pixels in drawn().values()])


def segmented(folder: Path) -> list[dict[str, Any]]:
    """Write the PNGs of a panoptic truth; return its annotations. A PNG's colours are ids of segments, 0 is none."""
    folder.mkdir()
    found = []
    for at, (name, pixels) in enumerate(drawn().items(), 1):
        ids = np.where(pixels == 1, 7, np.where(pixels == 2, 70_000 + 300 * at, 0))
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
        Image.fromarray(colours).save(folder / f"{name}.png")
        info = [{"id": i, "category_id": of} for i, of in ((7, 17), (70_000 + 300 * at, 1 << 40)) if i in ids]
        found.append({"image_id": at, "file_name": f"{name}.png", "segments_info": info})
    return found


def test_a_panoptic_truth_is_its_segments(tmp_path: Path) -> None:
    folder = tmp_path / "panoptic"
    segments = segmented(folder)
    truth, given = put(tmp_path / "panoptic.json", annotations=segments), made(tmp_path / "given", drawn(), VOC)
    got = cvjobs.eval(str(given), str(truth))
    assert got.sides.truth_format == "panoptic"
    assert got.metrics["mIoU"] == 1.0
    assert "areas without an annotation are '__background__'" in got.notes
    segments[0]["segments_info"].append({"id": 9, "category_id": 17})
    put(truth, annotations=segments)
    assert "a.png has no pixel of the segment 9" in sentence(here("eval", given, truth), 2)
    segments[0]["segments_info"] = [{"id": 7, "category_id": 5}]
    put(truth, annotations=segments)
    assert "category 5, which it does not describe" in sentence(here("eval", given, truth), 2)
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(folder / "a.png")
    put(truth, annotations=[{**segments[0], "segments_info": []}])
    assert "a.png has 40 x 31 pixels, and its image 40 x 30" in sentence(here("eval", given, truth), 2)
    (folder / "a.png").write_bytes(b"")
    put(truth, annotations=[{**segments[0], "segments_info": []}])
    assert "a.png cannot be read (no whole PNG)" in sentence(here("eval", given, truth), 2)


def test_an_image_of_another_size_is_left_out_and_named(tmp_path: Path) -> None:
    maps = drawn() | {"c": np.zeros((HEIGHT, WIDTH + 1), np.uint8)}
    got = cvjobs.eval(str(made(tmp_path / "given", maps, VOC)), str(put(tmp_path / "instances.json")))
    assert "left out, images whose mask has another size: 1 (c.jpg)" in got.notes
    assert got.metrics["mIoU"] == 1.0


def test_spoilt_annotations_are_sentences(seeds: Seeds, tmp_path: Path) -> None:
    given = str(made(tmp_path / "given", drawn(), VOC))
    files = [put(tmp_path / "t.json"), put(tmp_path / "p.json", annotations=segmented(tmp_path / "p"))]
    whole = [file.read_bytes() for file in files]
    for seed in seeds(40):
        random, said = np.random.default_rng(seed), "One."
        files[seed % 2].write_bytes(odd_truths.spoil_json(whole[seed % 2], random))
        try:
            got = cvjobs.eval(given, str(files[seed % 2]), out=str(tmp_path / "out"))
            assert all(-1 <= value <= 1 for value in got.metrics.values() if value is not None)
        except WrongUse as error:
            said = str(error)
        assert said.endswith(".")
        assert "\n" not in said


def test_a_file_of_any_name_is_named_in_one_line(tmp_path: Path) -> None:
    given = str(made(tmp_path / "given", drawn(), VOC))
    annotations = segmented(tmp_path / "p")
    annotations[0]["file_name"] = "a\nb.png"
    with pytest.raises(WrongUse) as caught:
        cvjobs.eval(given, str(put(tmp_path / "p.json", annotations=annotations)))
    assert r"a\x0ab.png" in str(caught.value)
    assert "\n" not in str(caught.value)
