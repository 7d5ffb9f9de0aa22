"""A table of commands and empty results: each ends with its exit code, a sentence, and a page that says what is so."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands import EMBED, aged, here
from page_parser import Page
from predictions import output
from torchvision import models

import cvjobs
from cvjobs.common.categories import Category

pytestmark = pytest.mark.slow

CLASSIFIER, DETECTOR, SEGMENTER = "mobilenet_v3_small", "ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large"
BATCH = ("--max-error-rate", "1", "--workers", "1")


@dataclass(frozen=True)
class Case:
    """A command line; the exit code, what it prints, and what its page says (none: there is no page)."""

    words: str
    code: int
    said: str
    page: str = ""
    shows: str = ""


ALL_FAILED = "4 listed = 0 ok + 4 failed + 0 skipped, missing 0"
NO_IMAGE = "There is no image in"
ON_PAGE = "4 images: 0 ok, 4 failed"
CASES = {
    "embed, no image": Case("embed none -o x --model thumbnail/4", 2, NO_IMAGE),
    "embed, all failed": Case("embed bad -o x --model thumbnail/4", 3, "exit code 3: 4 of 4", "x/report.html", ON_PAGE),
    "embed, nothing new": Case(
        "embed one -o vectors1 --model thumbnail/4", 0, "0 computed, 1 reused", "vectors1/report.html", "nothing to do"
    ),
    "embed, all gone": Case(
        "embed went -o emptied --model thumbnail/4 --allow-deletions",
        0,
        "0 computed, 0 reused, 2 gone",
        "emptied/report.html",
        "0 images: 0 ok, 0 failed, 0 missing; 2 gone",
    ),
    "classify, no image": Case("classify none -o x {classifier}", 2, NO_IMAGE),
    "classify, all failed": Case(
        "classify bad -o x {classifier}", 0, ALL_FAILED, "x/report.html", "No image has a result."
    ),
    "detect, no image": Case("detect none -o x {detector}", 2, NO_IMAGE),
    "detect, all failed": Case("detect bad -o x {detector}", 0, ALL_FAILED, "x/report.html", "No image has a result."),
    "detect, nothing found": Case(
        "detect one -o x {detector} --conf 1", 0, "1 ok", "x/report.html", "0 detections 1 without a detection"
    ),
    "segment, no image": Case("segment none -o x {segmenter}", 2, NO_IMAGE),
    "segment, all failed": Case(
        "segment bad -o x {segmenter}", 0, ALL_FAILED, "x/report.html", "No image has a result."
    ),
    "index of 0": Case("index vectors0 -o x", 2, "holds no vector: embed images into it first."),
    "index of 1": Case("index vectors1 -o x", 0, "1 vector of", "x/report.html", "1 image that can be found"),
    "query, no image": Case("query index1 none --html q.html", 2, NO_IMAGE),
    "query, all failed": Case(
        "query index1 bad --html q.html", 3, "0 queries", "q.html", "No image of the source could be searched for."
    ),
    "query, no answer": Case(
        "query index1 two --html q.html --min-score 1",
        0,
        "no neighbour of at least 1 for 2 queries",
        "q.html",
        "No neighbour scores at least 1",
    ),
    "duplicates, none": Case(
        "query index1 --duplicates -o x --html q.html", 0, "0 groups of 0 images", "q.html", "No near-duplicates"
    ),
    "eval, no image in common": Case("eval labels other -o x", 2, "No image of the predictions is in the truth"),
    "eval, all failed": Case(
        "eval failed truth -o x",
        0,
        "2 images, 0 with predictions, 2 failed",
        "x/eval.html",
        "0 with predictions, 2 failed",
    ),
    "eval, no object": Case(
        "eval boxes nothing.json -o x", 0, "the truth has no object", "x/eval.html", "The truth has no object"
    ),
    "export of 0 vectors": Case("export vectors0 -o x.jsonl --format jsonl", 0, "0 images, 0 lines"),
    "export of 0 labels": Case("export failed -o x.csv --format csv", 0, "0 images, 0 lines"),
    "export of 0 boxes, coco": Case("export boxes -o x.json --format coco", 0, "0 annotations"),
    "export of 0 boxes, yolo": Case("export boxes -o x --format yolo", 0, "0 boxes"),
    "train, no image": Case("train none -o x --weights random", 2, NO_IMAGE),
    "train, no classes": Case("train one -o x --weights random", 2, "has no classes"),
    "train, all failed": Case(
        "train classes -o x --weights random --model torchvision/mobilenet_v3_small",
        1,
        "images to train with could be decoded: ",
    ),
    "verify of 0": Case("verify vectors0", 0, "4 listed = 0 ok + 4 failed"),
    "run, no step": Case("run empty.yaml", 2, "has no steps"),
    "run, nothing changed": Case("run p.yaml", 0, "1 of 1 steps done", "state/report.html", "no image was new"),
}


@pytest.fixture(scope="module")
def world(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of no, one, two and four bad images, what commands made of them, and weights of small models."""
    root = tmp_path_factory.mktemp("empty")
    images = sorted(photos.rglob("*.jpg"))
    for name, count in (("none", 0), ("one", 1), ("two", 2), ("went", 2)):
        (root / name).mkdir()
        for image in images[:count] if name != "two" else images[5:7]:
            shutil.copy(image, root / name)
    for folder in ("bad", "classes/a", "classes/b"):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            (root / folder / f"{number}.jpg").write_bytes(b"no image")
    for folder in ("other/a", "other/b", "truth/a", "truth/b"):
        (root / folder).mkdir(parents=True)
        shutil.copy(images[0], root / folder / f"{folder[:2]}{folder[-1]}.jpg")
    aged(root)
    classes = [Category(0, "a"), Category(1, "b")]
    label = {"width": 64, "height": 48, "label": "a", "score": 0.5, "top": []}
    output(root / "labels", "classify", classes, [{"path": "seen.jpg", **label}])
    output(root / "failed", "classify", classes, [{"path": f"tr{c}.jpg", "error": "truncated"} for c in "ab"])
    output(root / "boxes", "detect", classes, [{"path": "a.jpg", "width": 64, "height": 48, "detections": []}])
    truth = {"images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}], "annotations": []}
    (root / "nothing.json").write_text(json.dumps({**truth, "categories": [{"id": 1, "name": "a"}]}))
    for source, out in (("bad", "vectors0"), ("one", "vectors1"), ("went", "emptied")):
        here("embed", root / source, "-o", root / out, *EMBED[1:], *BATCH)
    for image in (root / "went").iterdir():
        image.unlink()
    here("index", root / "vectors1", "-o", root / "index1")
    step = {"embed": {"source": "one", "out": "nightly", "model": "thumbnail/4", "workers": 1}}
    (root / "p.yaml").write_text(json.dumps({"state": "state", "steps": [step]}))
    (root / "empty.yaml").write_text("state: state\nsteps: []\n")
    cvjobs.run(str(root / "p.yaml"))
    torch.manual_seed(0)
    torch.save(models.get_model(CLASSIFIER).state_dict(), root / "classifier.pth")
    for name, file in ((DETECTOR, "detector"), (SEGMENTER, "segmenter")):
        torch.save(models.get_model(name, weights=None, weights_backbone=None).state_dict(), root / f"{file}.pth")
    return root


@pytest.mark.parametrize("name", CASES)
def test_an_empty_result_has_an_exit_code_a_sentence_and_a_page(
    name: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.chdir(world)
    kinds = {"classifier": CLASSIFIER, "detector": DETECTOR, "segmenter": SEGMENTER}
    options = {k: f"--model torchvision/{v} --weights {k}.pth {' '.join(BATCH)}" for k, v in kinds.items()}
    try:
        ended = here(*case.words.format(**options).split())
        assert ended.code == case.code, ended
        assert case.said in ended.out + ended.err
        if case.code == 2:
            assert ended.out == ""
            assert not Path("x").exists()
        if case.page:
            page = " ".join(" ".join(Page(Path(case.page).read_text()).text).split())
            assert case.shows in page
    finally:
        for made in (Path("x"), Path("q.html"), *Path().glob("x.*")):
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
