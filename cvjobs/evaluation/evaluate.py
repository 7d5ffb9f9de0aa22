"""One evaluation from its two sides to its numbers, its files and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from cvjobs.errors import WrongUse
from cvjobs.evaluation import objects
from cvjobs.evaluation.predictions import Output, ResultsFile, open_predictions
from cvjobs.evaluation.result import Evaluation
from cvjobs.metrics.detection import METRICS
from cvjobs.remote import Options
from cvjobs.storage import open_store
from cvjobs.truths import reading
from cvjobs.truths.kinds import ObjectTruth


def evaluate(
    predictions: str,
    truth: str,
    out: str | None,
    names: Sequence[str],
    options: Options,
    say: Callable[[str], None],
) -> Evaluation:
    """Evaluate, leave ``eval.json`` and ``eval.html`` in ``out``, and return the numbers."""
    say("reading")
    given = open_predictions(predictions, options)
    known = reading.read(truth, given.task, names)
    say("evaluating")
    assert isinstance(known, ObjectTruth)
    found = _objects(given, known, truth, out or _beside(given))
    say("writing")
    store = open_store(found.out, options=options)
    content = json.dumps(found.as_dict(), indent=1).encode() + b"\n"

    def fill(file: BinaryIO) -> None:
        file.write(content)

    store.write("eval.json", fill)
    return found


def _beside(given: Output | ResultsFile) -> str:
    if isinstance(given, Output):
        return f"{given.place}/eval"
    file = Path(given.place)
    return str(file.with_name(f"{file.stem}_eval").absolute())


def _objects(given: Output | ResultsFile, known: ObjectTruth, truth: str, out: str) -> Evaluation:
    if given.task not in ("detect", "instance"):
        raise WrongUse(f"{given.place} holds no boxes.")
    met = objects.meet(known, given)
    scores = objects.score(known, met)
    masks = met.detections.masks is not None
    more = {
        "iou": "masks" if masks else "boxes",
        "curves": objects.curves(scores),
        "best_f1": objects.operating_point(scores.found, int(scores.counted.sum())),
    }
    if masks:
        more["boxes"] = objects.metrics(objects.score(known, objects.boxes_of(met)))
    return Evaluation(
        task=given.task,
        predictions=given.place,
        version=given.snapshot.version if isinstance(given, Output) else None,
        truth=truth,
        truth_format=known.format,
        metrics=objects.metrics(scores),
        classes=objects.classes(known, met, scores),
        images=met.images.counts,
        notes=met.notes,
        headline=(*METRICS, "VOC_AP50"),
        columns=objects.COLUMNS,
        more=more,
        out=out,
    )
