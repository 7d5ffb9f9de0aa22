"""Images of several labels, and of two classes of which one is rare: trained, classified and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cvjobs
from cvjobs.evaluation.metrics import ranking
from cvjobs.training.training_summary import TrainingSummary

SIDE = 8
OPTIONS: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "img_size": str(SIDE), "batch_size": 32}


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 240 images, in which red, green and blue are each bright or not; a fourth label is only in train."""
    root = tmp_path_factory.mktemp("tagged")
    random = np.random.default_rng(0)
    lines = ["path,labels,split"]
    for number in range(240):
        shown = random.random(3) < 0.5
        pixels = random.integers(0, 110, (SIDE, SIDE, 3)) + 110 * shown
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:03}.png")
        names = [name for name, there in zip(("red", "green", "blue"), shown, strict=True) if there]
        names += ["<odd>"] if number == 0 else []
        lines.append(f"{number:03}.png,{'|'.join(names)},{'train' if number < 160 else 'val'}")
    (root / "list.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def multilabel(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A finished run on it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    summary: TrainingSummary = cvjobs.train(tagged / "list.csv", run, **OPTIONS, epochs=12, hflip=0.0)
    return summary


@pytest.mark.slow
def test_several_labels_are_learnt_and_each_is_scored(multilabel: TrainingSummary) -> None:
    assert multilabel.metric_name == "mAP"
    assert multilabel.metric > 0.9
    assert multilabel.balanced_accuracy is None
    assert multilabel.unlabelled > 0
    said = pd.read_parquet(Path(multilabel.out) / "predictions.parquet")
    scores = np.stack(said["scores"].tolist())
    assert scores.shape == (multilabel.images["val"], 4)
    assert scores.max(1) == pytest.approx(said["score"].to_numpy())
    classes = np.array(["<odd>", "blue", "green", "red"])
    assert [classes[row > 0.5].tolist() for row in scores] == [list(names) for names in said["predicted"]]


@pytest.mark.slow
def test_a_run_of_several_labels_classifies_with_a_probability_for_each(
    tagged: Path, multilabel: TrainingSummary, tmp_path: Path
) -> None:
    cvjobs.classify(tagged / "list.csv", tmp_path / "labels", model=multilabel.out, top=4)
    found = cvjobs.open(tmp_path / "labels").to_pandas().set_index("path")
    said = pd.read_parquet(Path(multilabel.out) / "predictions.parquet")
    classes = ("<odd>", "blue", "green", "red")
    for path, scores in zip(said["path"], said["scores"], strict=True):
        top = {guess["label"]: guess["score"] for guess in found.loc[path, "top"]}
        assert [top[name] for name in classes] == pytest.approx(scores.tolist(), abs=1e-4)
    assert found["top"].map(lambda top: sum(guess["score"] for guess in top)).max() > 1.5, "no softmax"


@pytest.mark.slow
def test_the_page_of_several_labels(multilabel: TrainingSummary) -> None:
    page = (Path(multilabel.out) / "report.html").read_text()
    for text in ("lowest average precision first", "best F1 at", "Every class of every image", "exactly their labels"):
        assert text in page
    assert "Without an image to val" in page
    assert "&lt;odd&gt;" in page
    assert "<odd>" not in page
    assert ("Said with the most confidence" in page) or ("Missed by the most" in page)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that overlap, 190 images against 10 to train on."""
    root = tmp_path_factory.mktemp("uneven")
    random = np.random.default_rng(0)
    for split, counts in (("train", (190, 10)), ("val", (95, 30))):
        for name, count, lift in zip(("common", "rare"), counts, (0, 30), strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 150, (SIDE, SIDE, 3))
                pixels[..., 2] += max(0, lift + int(random.integers(-25, 25)))
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number:03}.png")
    return root


def rare_recall(uneven: Path, run: Path, **options: Any) -> tuple[float, TrainingSummary]:
    """Train, and return the recall of the rare class."""
    summary = cvjobs.train(uneven, run, **OPTIONS, epochs=6, hflip=0.0, cache=uneven.parent / "decoded", **options)
    said = pd.read_parquet(run / "predictions.parquet")
    rare = said[said["label"] == "rare"]
    common = said[said["label"] == "common"]
    recall = float((rare["predicted"] == "rare").mean())
    assert summary.balanced_accuracy == pytest.approx((recall + (common["predicted"] == "common").mean()) / 2)
    return recall, summary


@pytest.fixture(scope="module")
def plain(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The recall of the rare class without anything done for it."""
    return rare_recall(uneven, tmp_path_factory.mktemp("runs") / "plain")[0]


@pytest.mark.parametrize(
    "option",
    [
        {"sampling": "balanced"},
        pytest.param({"class_weights": "inverse"}, marks=pytest.mark.faults),
        pytest.param({"logit_adjustment": 1.0}, marks=pytest.mark.faults),
    ],
)
@pytest.mark.slow
def test_a_rare_class_is_found_more_often_where_that_is_asked_for(
    uneven: Path, plain: float, tmp_path: Path, option: dict[str, Any]
) -> None:
    recall, summary = rare_recall(uneven, tmp_path / "run", **option)
    assert recall > plain + 0.2
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"is {summary.balanced_accuracy:.4f} (balanced accuracy)" in page
    assert "For rare, the rarer one, the area under the ROC curve is" in page
    assert "has 19 times the training images of the rarest" in page


def test_thresholds_and_areas_of_one_class() -> None:
    random = np.random.default_rng(3)
    truth = (random.random(200) < 0.2).astype(int)
    scores = (0.4 * truth + random.random(200)).round(1)  # with ties
    pairs = scores[truth == 1][:, None] - scores[truth == 0]
    assert ranking.roc_auc(scores, truth) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    best = ranking.best_cut(scores, truth)
    assert best == ranking.cut(scores, truth, best.score)
    every = [ranking.cut(scores, truth, score).f1 for score in np.unique(scores)]
    assert best.f1 == pytest.approx(max(every))
    assert ranking.cut(scores, truth, 9.0) == ranking.Cut(9.0, 0.0, 0.0)
    assert ranking.cut(scores, truth, 9.0).f1 == 0.0
