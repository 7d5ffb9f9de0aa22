"""What is said and shown of labels."""

from __future__ import annotations

import numpy as np

from cvjobs.evaluation import by_number, confusion_tables, eval_pictures, top_k
from cvjobs.evaluation.confusion_tables import confusions, heat, numbers
from cvjobs.evaluation.eval_page import EvalSheet, Show
from cvjobs.evaluation.ground_truth.types import LabelTruth
from cvjobs.evaluation.predictions import EvaluatedOutput, LabelFile
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.storage.storage_options import Options

MOST = 24
SIZE = 360
MATRIX = 200  # classes whose matrix is in eval.json


def evaluate(
    given: EvaluatedOutput | LabelFile, known: LabelTruth, sides: Sides, options: Options
) -> tuple[Evaluation, Show]:
    """Return top-1, top-5 and so on, and what the page shows."""
    met = top_k.meet(known, given)
    matrix = top_k.confusion(met, len(met.names))
    rows, columns = met.names, [*met.names, "nothing"]
    pairs = confusions(matrix, rows, columns)
    # Of the truth's labels alone, which are few where those of the predictions are many.
    labels = met.names[: met.known]
    own = labels, [*labels, "another, or nothing"]
    brief = top_k.confusion(met, met.known)
    counted = numbers(brief, *own, MATRIX)
    found = Evaluation(
        sides=sides,
        metrics=top_k.metrics(met, matrix),
        classes=top_k.classes(met, matrix),
        images=met.images.counts,
        unpaired=met.images.unpaired,
        notes=[*known.notes, *met.notes],
        headline=top_k.HEADLINE,
        columns=top_k.COLUMNS,
        more={"confusions": pairs, **by_number.record(met.numbered), **counted},
        confusion=confusion_tables.pairs(matrix, rows, rows) if met.others or not counted else None,
    )
    return found, Show(
        primary="accuracy",
        matrix_words="Labels in rows, what the images are taken for in columns",
        heat=heat(matrix, rows, columns) or heat(brief, *own),
        confusions=pairs,
        sheets=[_worst(given, met, options)] if isinstance(given, EvaluatedOutput) else (),
    )


def _worst(given: EvaluatedOutput, met: top_k.Labelled, options: Options) -> EvalSheet:
    wrong = np.flatnonzero((met.row >= 0) & (met.top[:, 0] != met.truth))
    wrong = wrong[np.argsort(-met.score[wrong], kind="stable")][:MOST]
    shown = eval_pictures.read(given, met.row[wrong].tolist(), SIZE, options)
    said = top_k.said(given, met.row[wrong].tolist())
    return EvalSheet(
        title="Surest mistakes",
        words="The highest scores of a wrong label",
        pictures=[
            {
                "path": shown[row].path,
                "image": shown[row].picture,
                "over": None,
                "note": f"{said[row]} {met.score[at]:.2f}: it is {met.names[met.truth[at]]}",
            }
            for at, row in zip(wrong.tolist(), met.row[wrong].tolist(), strict=True)
        ],
    )
