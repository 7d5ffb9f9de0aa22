"""What is said and shown of boxes and masks."""

from __future__ import annotations

from cvjobs.evaluation import boxes, by_number, confusion_tables, mistakes
from cvjobs.evaluation.confusion_tables import confusions, heat, numbers
from cvjobs.evaluation.eval_page import EvalSheet, Show
from cvjobs.evaluation.ground_truth.types import ObjectTruth
from cvjobs.evaluation.metrics.coco_ap import METRICS, DetectionScores
from cvjobs.evaluation.predictions import EvaluatedOutput, ResultsFile
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.storage.storage_options import Options

HEADLINE = (*METRICS, "VOC_AP50")
COLUMNS = ("truths", "predictions", "AP", "AP50", "AP75", "AR_100")
NO_MASKS = "the truth has no masks: these are the numbers of the boxes"


def evaluate(
    given: EvaluatedOutput | ResultsFile, known: ObjectTruth, sides: Sides, options: Options
) -> tuple[Evaluation, Show]:
    """Return COCO's numbers and VOC's, and what the page shows."""
    given = boxes.worded(known, given)
    known = boxes.by_name(known, given)
    met = boxes.meet(known, given)
    scores = boxes.score(known, met)
    point = boxes.operating_point(scores.found, int(scores.counted.sum()))
    counts = boxes.confusion(known, met, point["score"])
    curves = boxes.curves(scores)
    names = boxes.names(known)
    rows, columns = [*names, "nothing there"], [*names, "not found"]
    pairs = confusions(counts, rows, columns)
    counted = numbers(counts, "truth, then nothing", "found, then nothing")
    numbered = by_number.of(given.categories, known.categories, known.format) if not known.named else None
    masks = met.detections.masks is not None
    found = Evaluation(
        sides=sides,
        metrics=boxes.metrics(scores, met.sized),
        classes=boxes.classes(known, met, scores),
        images=met.images.counts,
        unpaired=met.images.unpaired,
        notes=[*met.notes, *by_number.notes(numbered), *([NO_MASKS] if given.task == "instance" and not masks else [])],
        headline=HEADLINE,
        columns=COLUMNS,
        more={
            "iou": "masks" if masks else "boxes",
            "boxes": boxes.metrics(boxes.score(known, boxes.boxes_of(met)), met.sized) if masks else None,
            "best_f1": point,
            "curves": curves,
            **by_number.record(numbered),
            **(counted or {"confusions": pairs}),
        },
        confusion=None if counted else confusion_tables.pairs(counts, names, names),
    )
    show = Show(
        primary="AP",
        matrix_words=f"Objects in rows, what is found in columns: at IoU 0.5, from a score of {point['score']:.3f} on",
        heat=heat(counts, rows, columns),
        confusions=pairs,
        curves={
            name: list(zip(curves["recall"], values, strict=True))
            for name, values in curves.items()
            if name != "recall"
        },
        sheets=_sheets(given, known, met, scores, point["score"], options)
        if isinstance(given, EvaluatedOutput)
        else (),
    )
    return found, show


def _sheets(
    given: EvaluatedOutput, known: ObjectTruth, met: boxes.Met, scores: DetectionScores, least: float, options: Options
) -> list[EvalSheet]:
    wrong = mistakes.false_alarms(known, met, scores.found)
    missed = mistakes.misses(known, met, scores.found, least)
    drawn = mistakes.drawn(given, [*wrong, *missed], options)
    return [
        EvalSheet(
            title="Worst false alarms",
            words="The highest scores of what is wrong at IoU 0.5; dashed is what is there",
            pictures=drawn[: len(wrong)],
        ),
        EvalSheet(
            title="Largest misses",
            words=f"Dashed is what nothing with a score of {least:.3f} or more finds at IoU 0.5",
            pictures=drawn[len(wrong) :],
        ),
    ]
