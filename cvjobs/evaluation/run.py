"""One evaluation: the predictions, the truth that fits them, the numbers, and the two files that are left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from cvjobs.common import json_values
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import contents
from cvjobs.evaluation import boxes, classify, detect, painting, predicted_tables, semantic
from cvjobs.evaluation.eval_page import Show, page
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.ground_truth.types import GroundTruth, LabelTruth, ObjectTruth, PixelTruth
from cvjobs.evaluation.predictions import EvaluatedOutput, LabelFile, ResultsFile, open_predictions
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.evaluation.void import Void
from cvjobs.html.original_links import links
from cvjobs.sources import reasons
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, open_store

Given = EvaluatedOutput | ResultsFile | LabelFile
NUMBERS, PAGE = contents.EVAL_NUMBERS, "eval.html"


def evaluate(
    predictions: str,
    truth: str,
    *,
    out: str | None,
    names: Sequence[str],
    void: Void,
    options: Options,
    say: Callable[[str], None],
) -> Evaluation:
    """Evaluate, leave ``eval.json`` and ``eval.html`` in ``out``, and return the numbers.

    ``names`` are those of the truth's classes, ``void`` is the value of pixels that do not count; ``say`` is told what
    is going on. Raises CvjobsError.
    """
    say("reading")
    table = Path(os.path.expanduser(predictions))
    given = predicted_tables.read(table) if predicted_tables.fits(table) else open_predictions(predictions, options)
    known = ground_truth_open.read(truth, given.task, names)
    store = open_store(out or _beside(given), options=options)
    contents.check(store, contents.EVAL)
    sides = Sides(
        task=given.task,
        predictions=given.place,
        version=given.reader.snapshot.version if isinstance(given, EvaluatedOutput) else None,
        truth=truth,
        truth_format=known.format,
        out=store.place,
    )
    say("evaluating")
    with given.reader.unless_replaced("evaluate again") if isinstance(given, EvaluatedOutput) else nullcontext():
        found, show = _judged(given, known, sides, void, options)
    if known.left_out:
        notes = [*found.notes, f"left out of the truth: {reasons.words(known.left_out)}"]
        found = replace(found, notes=notes, left_out=known.left_out)
    say("writing")
    _write(store, NUMBERS, json.dumps(json_values.finite(found.as_dict()), indent=1) + "\n")
    original = None
    if isinstance(given, EvaluatedOutput):
        original = links(f"{store.place}/{PAGE}", given.reader.snapshot.root, given.reader.base)
    _write(store, PAGE, page(found, show, original))
    return found


def _judged(given: Given, known: GroundTruth, sides: Sides, void: Void, options: Options) -> tuple[Evaluation, Show]:
    if isinstance(known, ObjectTruth) and isinstance(given, EvaluatedOutput) and given.task == "semantic":
        painted = painting.painted(boxes.by_name(known, given), given, void)
        found, show = semantic.evaluate(given, painted, sides, void, options)
        return replace(found, notes=[*painted.notes, *found.notes]), show
    if isinstance(known, ObjectTruth):
        assert not isinstance(given, LabelFile), "it has labels"
        return detect.evaluate(given, known, sides, options)
    if isinstance(known, PixelTruth):
        assert isinstance(given, EvaluatedOutput), "a file has boxes, masks of objects or labels"
        return semantic.evaluate(given, known, sides, void, options)
    assert isinstance(known, LabelTruth)
    assert not isinstance(given, ResultsFile), "it has boxes or masks"
    return classify.evaluate(given, known, sides, options)


def _beside(given: Given) -> str:
    """Return where the files go by default: into a folder of the output, or beside the file."""
    if isinstance(given, EvaluatedOutput):
        return f"{given.place}/eval"
    file = Path(given.place)
    return str(file.with_name(f"{file.stem}_eval").absolute())


def _write(store: Store, name: str, text: str) -> None:
    try:
        store.write_bytes(name, text.encode(errors="replace"))
    except OSError as error:
        raise WrongUse(f"Cannot write to {store.place} ({error.strerror}): name another folder with -o.") from error
