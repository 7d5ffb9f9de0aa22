"""Odd names and labels in an evaluation: one sentence, or numbers in which each image is once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzzing import Seeds
from odd_labels import folders, respelt, table, text
from predictions import output

import cvjobs
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.evaluation.align import pair_images
from cvjobs.sources.listing import list_source


def test_odd_names_of_images(seeds: Seeds) -> None:
    for seed in seeds(200):
        random = np.random.default_rng(seed)
        count = int(random.integers(1, 30))
        truth = [
            f"{random.choice(['a', 'b', 'a/ü', ''])}/{random.integers(6)}.{random.choice(['jpg', 'png'])}"
            for _ in range(count)
        ]
        truth = [name.lstrip("/") for name in truth]
        given = [respelt(random, name) for name in random.permutation(truth).tolist()[: int(random.integers(1, 30))]]
        given += [f"new/{random.integers(9)}.jpg"] * int(random.integers(0, 2))
        cut = int(random.integers(0, len(given) + 1))
        endings = bool(random.random() < 0.7)
        try:
            found = pair_images(truth, endings, given[:cut], given[cut:])
        except WrongUse:
            continue
        counts = found.counts
        assert counts["evaluated"] + counts["failed"] + counts["missing"] == len(truth)
        assert min(counts.values()) >= 0
        met = found.place[found.place >= 0].tolist()
        assert len(set(met)) == len(met) <= min(len(truth), cut)
        sides = {side: {why: own["count"] for why, own in reasons.items()} for side, reasons in found.unpaired.items()}
        assert sum(sides.get("predictions", {}).values()) == counts["unknown"]
        assert sum(sides.get("truth", {}).values()) == counts["failed"] + counts["missing"]


def test_odd_tables_and_folders_of_a_truth(seeds: Seeds, tmp_path: Path) -> None:
    for seed in seeds(5):
        random = np.random.default_rng(seed)
        place = tmp_path / str(seed)
        if random.random() < 0.5:
            made = table(random, place / "list", ("label", "label", "labels"))
            truth, paths = made.file, made.paths
        else:
            truth = folders(random, place / "all")
            paths = list_source(str(truth), links=True).images["path"].to_pylist()
        known = sorted({text(random, printable=True) for _ in range(8)} | {"cat", "dog"})
        rows = [
            {"path": name, "width": 8, "height": 8, "label": known[0], "score": 0.5, "top": _top(random, known)}
            for name in dict.fromkeys(paths)
        ]
        categories = [Category(at, name) for at, name in enumerate(known)]
        predictions = str(output(place / "labels", "classify", categories, rows or [{"path": "x", "error": "corrupt"}]))
        files = [predictions]
        for format_ in ("csv", "jsonl"):
            files.append(str(place / f"labels.{format_}"))
            cvjobs.export(predictions, format=format_, out=files[-1])
        for file in files:
            try:
                found = cvjobs.eval(file, str(truth), out=str(place / "out"))
            except WrongUse:
                continue
            images = found.images
            assert images["evaluated"] + images["failed"] + images["missing"] == images["truth"]
            assert 0 <= found.metrics["top-1"] <= 1
            assert str(found)


def _top(random: np.random.Generator, known: list[str]) -> list[dict[str, object]]:
    return [{"label": str(name), "score": 0.5} for name in random.choice(known, 3, replace=False)]


@pytest.mark.faults(minutes=2)
def test_a_label_for_each_image_is_evaluated(tmp_path: Path) -> None:
    """Their whole matrix would take 20 GB."""
    (tmp_path / "truth.csv").write_text("path,label\n" + "".join(f"{i}.png,label {i}\n" for i in range(50_001)))
    (tmp_path / "given.csv").write_text("path,label\n" + "".join(f"{i}.png,label {i | 1}\n" for i in range(50_001)))
    got = cvjobs.eval(str(tmp_path / "given.csv"), str(tmp_path / "truth.csv"))
    assert got.metrics["top-1"] == got.metrics["mean class accuracy"] == pytest.approx(25_000 / 50_001)
    assert len(got.classes) == 50_001
    assert "confusion" not in got.more
    assert got.more["confusions"][0] == {"truth": "label 0", "taken": "label 1", "count": 1, "share": 1.0}
