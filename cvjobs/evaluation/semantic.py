"""What is said and shown of class maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cvjobs.common.formatting import percent
from cvjobs.dataset.schema import CLASS_MAP
from cvjobs.evaluation import by_number, confusion_tables, eval_pictures, pixels
from cvjobs.evaluation.confusion_tables import confusions, heat, numbers
from cvjobs.evaluation.eval_page import EvalSheet, Show
from cvjobs.evaluation.ground_truth import masks
from cvjobs.evaluation.ground_truth.types import PixelTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.evaluation.predicted_masks import MaskFolder
from cvjobs.evaluation.predictions import EvaluatedOutput
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.evaluation.void import Void
from cvjobs.html import overlays, palette
from cvjobs.storage.storage_options import Options

MOST = 8
SIZE = 480


def evaluate(
    given: EvaluatedOutput | MaskFolder, known: PixelTruth, sides: Sides, void: Void, options: Options
) -> tuple[Evaluation, Show]:
    """Return mIoU and so on, and what the page shows."""
    met = pixels.evaluate(known, given, void)
    there = np.flatnonzero(met.matrix.iou >= 0)
    names = [met.categories[at].name for at in there.tolist()]
    counts = met.matrix.part(there, np.append(there, len(met.categories)))
    columns = [*names, "none of these"]
    pairs = confusions(counts, names, columns)
    counted = numbers(counts, names, columns)
    found = Evaluation(
        sides=sides,
        metrics=pixels.metrics(met),
        classes=pixels.classes(met),
        images=met.images.counts,
        unpaired=met.images.unpaired,
        notes=met.notes,
        headline=pixels.HEADLINE,
        columns=pixels.COLUMNS,
        more={"ignored": met.share, **by_number.record(met.numbered), **(counted or {"confusions": pairs})},
        confusion=None if counted else confusion_tables.pairs(counts, names, names),
    )
    return found, Show(
        primary="IoU",
        matrix_words="Classes of pixels in rows, what they are taken for in columns",
        heat=heat(counts, names, columns),
        confusions=pairs,
        sheets=[_worst(given, known, met, options)] if isinstance(given, EvaluatedOutput) else (),
    )


def _worst(given: EvaluatedOutput, known: PixelTruth, met: pixels.Mapped, options: Options) -> EvalSheet:
    judged = np.flatnonzero((met.row >= 0) & (met.right >= 0))
    judged = judged[np.argsort(met.right[judged], kind="stable")][:MOST]
    rows = met.row[judged].tolist()
    shown = eval_pictures.read(given, rows, SIZE, options)
    ids, names = pixels.shown(met, given.categories)
    maps = given.cells(CLASS_MAP, rows)
    sheet: list[dict[str, Any]] = []
    for at, row in zip(judged.tolist(), rows, strict=True):
        image = shown[row]
        size = image.picture.height, image.picture.width
        share = f"{met.right[at]:.1%} right"
        there = masks.pixels(maps[row]).astype(np.int64)
        for found, words in ((pixels.truth_map(known, met, ids, at), "the truth"), (there, share)):
            over = overlays.coloured(found, list(names), size) if image.picture.uri else None
            legend = _legend(found, names) if over else []
            sheet.append({"path": image.path, "image": image.picture, "over": over, "note": words, "legend": legend})
    return EvalSheet(
        title="Worst images",
        words="The smallest shares of right pixels: the truth, then what was predicted; clear is what does not count",
        pictures=sheet,
    )


def _legend(found: Ints, names: Mapping[int, str]) -> list[tuple[int, str, str]]:
    """Return the colour, the name and the share of the picture of each class in a map, the largest first."""
    there, counts = np.unique(found, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    each = zip(there[order].tolist(), (counts[order] / found.size).tolist(), strict=True)
    return [(palette.place(id_), names[id_], percent(share)) for id_, share in each if id_ in names]
