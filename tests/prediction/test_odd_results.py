"""Results of no, one or two images: every export, metric, page and line of them, without a number that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import odd_sizes
import pytest
from commands import Ended, here
from fuzzing import Seeds
from PIL import Image
from predictions import output

import cvjobs
from cvjobs.common import json_values
from cvjobs.common.categories import Category
from cvjobs.dataset import schema

pytestmark = pytest.mark.slow

CATS = [Category(0, "background"), Category(1, "cat"), Category(2, "dog")]
FORMATS = {
    "classify": ("csv", "jsonl"),
    "detect": ("csv", "jsonl", "coco", "yolo"),
    "instance": ("csv", "jsonl", "coco", "yolo"),
    "semantic": ("csv", "jsonl", "coco"),
}


def looked_at(*words: object, code: int = 0) -> Ended:
    """A command whose lines are as they should be."""
    ended = here(*words)
    assert ended.code == code, ended
    odd_sizes.plain(ended.out)
    odd_sizes.plain(ended.err)
    if "--json" in words:
        odd_sizes.strict(ended.out)
    return ended


def truth_of(random: np.random.Generator, folder: Path, task: str, categories: list[Category], count: int) -> Path:
    if task == "classify":
        lines = [f"{number}.png,{random.choice(['cat', 'dog', 'cow'])}" for number in range(count)]
        (folder / "truth.csv").write_text("\n".join(["path,label", *lines]) + "\n")
        return folder / "truth.csv"
    if task == "semantic":
        (folder / "truth").mkdir()
        for number in range(count):
            value = int(random.choice([0, 1, 2]))
            Image.fromarray(np.full((8, 10), value, np.uint8)).save(folder / "truth" / f"{number}.png")
        return folder / "truth"
    (folder / "truth.json").write_text(json.dumps(odd_sizes.coco(random, categories, count)))
    return folder / "truth.json"


def through(folder: Path, random: np.random.Generator, task: str, count: int) -> None:
    """Make an output of so many images and take it through all that reads one."""
    folder.mkdir()
    categories = CATS if task == "semantic" else CATS[1 : int(random.choice([2, 3]))]
    rows = odd_sizes.rows(random, task, categories, count)
    made = output(folder / "out", task, categories, rows)
    looked_at("verify", made)
    for name in FORMATS[task]:
        to = folder / f"export.{name}"
        looked_at("export", made, "--format", name, "-o", to)
        if name == "jsonl":
            lines = [odd_sizes.strict(line) for line in to.read_text().splitlines()]
            assert sorted(line["path"] for line in lines) == sorted(r["path"] for r in rows if "error" not in r)
        elif name == "coco":
            odd_sizes.left(to if to.is_dir() else folder)
    truth = truth_of(random, folder, task, categories, count)
    ended = here("eval", made, truth, "-o", folder / "eval")
    if ended.code == 2:
        nothing = ("knows no image", "is no truth for these predictions")
        assert any(words in ended.err for words in (*(nothing if not count else ()), "No class of the predictions")), (
            ended
        )
        return
    assert ended.code == 0, ended
    assert count
    odd_sizes.plain(ended.out)
    odd_sizes.left(folder / "eval")
    for metric in cvjobs.eval(made, truth, out=folder / "eval").metrics.values():
        assert metric is None or -1 <= metric <= 1


@pytest.mark.parametrize("task", list(FORMATS))
@pytest.mark.parametrize("count", [0, 1])
def test_results_of_hardly_any_image(tmp_path: Path, task: str, count: int) -> None:
    through(tmp_path / "one", np.random.default_rng(count), task, count)


def test_odd_results(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(3):
        random = np.random.default_rng(seed)
        through(tmp_path / str(seed), random, str(random.choice(list(FORMATS))), int(random.integers(0, 3)))


def test_json_has_no_number_that_is_none() -> None:
    values: dict[str, Any] = {"a": float("nan"), "b": [float("inf"), 1.5, {"c": (-float("inf"), "x", 2)}], "d": None}
    assert json_values.finite(values) == {"a": None, "b": [None, 1.5, {"c": [None, "x", 2]}], "d": None}
    assert odd_sizes.strict(schema.pack(values).decode()) == json_values.finite(values)


def test_one_image_through_every_command(tmp_path: Path) -> None:
    one, bad = tmp_path / "one", tmp_path / "bad"
    one.mkdir()
    bad.mkdir()
    Image.new("RGB", (9, 9)).save(one / "a.png")
    (bad / "a.png").write_bytes(b"none")
    model = ("--model", "thumbnail/4")
    looked_at("embed", one, "-o", tmp_path / "v", *model, "--dry-run")
    looked_at("embed", one, "-o", tmp_path / "v", *model)
    looked_at("embed", bad, "-o", tmp_path / "none", *model, code=3)
    for out in ("v", "none"):
        looked_at("verify", tmp_path / out)
        looked_at("export", tmp_path / out, "--format", "jsonl", "-o", tmp_path / f"{out}.jsonl")
    assert "holds no vector" in here("index", tmp_path / "none", "-o", tmp_path / "no").err
    assert "1 vector of 48 numbers" in looked_at("index", tmp_path / "v", "-o", tmp_path / "i").out
    looked_at("index", tmp_path / "v", "-o", tmp_path / "i", "--json")
    page = ("--html", tmp_path / "i" / ".." / "page.html")
    for words in ((one, "-k", 9), (one, "--exclude-self"), (one, "--min-score", 1), ("--duplicates",)):
        looked_at("query", tmp_path / "i", *words, *page)
        looked_at("query", tmp_path / "i", *words, "-o", tmp_path / "q")
        odd_sizes.left(tmp_path)
    looked_at("query", tmp_path / "i", bad, *page, code=3)
    odd_sizes.left(tmp_path)
    looked_at("models")


def test_one_image_a_class_for_one_epoch(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9), (90 * number, 0, 0)).save(tmp_path / "data" / split / name / "a.png")
    words = ("--model", "small/cnn", "--img-size", 8, "--epochs", 1, "--recipe", "quick")
    looked_at("train", tmp_path / "data", "-o", tmp_path / "run", *words)
    looked_at("train", tmp_path / "data", "-o", tmp_path / "run", *words, "--json")
    looked_at("classify", tmp_path / "data/val/cat", "-o", tmp_path / "out", "--model", tmp_path / "run")
    (tmp_path / "truth.csv").write_text("path,label\na.png,cat\n")
    looked_at("eval", tmp_path / "out", tmp_path / "truth.csv")
    odd_sizes.left(tmp_path)
