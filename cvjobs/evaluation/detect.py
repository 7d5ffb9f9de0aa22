"""What is said and shown of boxes and masks."""

from __future__ import annotations

from cvjobs.evaluation import mistakes, objects
from cvjobs.evaluation.page import Sheet, Show
from cvjobs.evaluation.predictions import Output, ResultsFile
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.evaluation.tables import confusions, heat
from cvjobs.metrics.detection import METRICS, Scores
from cvjobs.remote import Options
from cvjobs.truths.kinds import ObjectTruth

HEADLINE = (*METRICS, "VOC_AP50")
COLUMNS = ("truths", "predictions", "AP", "AP50", "AP75", "AR_100")
NO_MASKS = "the truth has no masks: these are the numbers of the boxes"


def evaluate(
    given: Output | ResultsFile, known: ObjectTruth, sides: Sides, options: Options
) -> tuple[Evaluation, Show]:
    """Return COCO's numbers and VOC's, and what the page shows."""
    met = objects.meet(known, given)
    scores = objects.score(known, met)
    point = objects.operating_point(scores.found, int(scores.counted.sum()))
    counts = objects.confusion(known, met, point["score"])
    curves = objects.curves(scores)
    masks = met.detections.masks is not None
    found = Evaluation(
        sides=sides,
        metrics=objects.metrics(scores),
        classes=objects.classes(known, met, scores),
        images=met.images.counts,
        notes=[*met.notes, *([NO_MASKS] if given.task == "instance" and not masks else [])],
        headline=HEADLINE,
        columns=COLUMNS,
        more={
            "iou": "masks" if masks else "boxes",
            "boxes": objects.metrics(objects.score(known, objects.boxes_of(met))) if masks else None,
            "best_f1": point,
            "curves": curves,
            "confusion": {"rows": "truth, then nothing", "columns": "found, then nothing", "counts": counts.tolist()},
        },
    )
    names = [record["name"] for record in found.classes]
    rows, columns = [*names, "nothing there"], [*names, "not found"]
    show = Show(
        primary="AP",
        matrix_words=f"Objects in rows, what is found in columns: at IoU 0.5, from a score of {point['score']:.3f} on",
        heat=heat(counts, rows, columns),
        confusions=confusions(counts, rows, columns),
        curves={
            name: list(zip(curves["recall"], values, strict=True))
            for name, values in curves.items()
            if name != "recall"
        },
        sheets=_sheets(given, known, met, scores, point["score"], options) if isinstance(given, Output) else (),
    )
    return found, show


def _sheets(
    given: Output, known: ObjectTruth, met: objects.Met, scores: Scores, least: float, options: Options
) -> list[Sheet]:
    wrong = mistakes.false_alarms(known, met, scores.found)
    missed = mistakes.misses(known, met, scores.found, least)
    drawn = mistakes.drawn(given, [*wrong, *missed], options)
    return [
        Sheet(
            title="Worst false alarms",
            words="The highest scores of what is wrong at IoU 0.5; dashed is what is there",
            pictures=drawn[: len(wrong)],
        ),
        Sheet(
            title="Largest misses",
            words=f"Dashed is what nothing with a score of {least:.3f} or more finds at IoU 0.5",
            pictures=drawn[len(wrong) :],
        ),
    ]
