"""One evaluation: the predictions, the truth that fits them, the numbers, and the two files that are left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from cvjobs.common import json_values
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import contents
from cvjobs.evaluation import boxes, classify, detect, painting, predicted_files, semantic
from cvjobs.evaluation.confusion_tables import FILE
from cvjobs.evaluation.eval_page import Show, page
from cvjobs.evaluation.ground_truth import open as ground_truth_open
from cvjobs.evaluation.ground_truth.types import GroundTruth, LabelTruth, ObjectTruth, PixelTruth
from cvjobs.evaluation.predicted_files import Given
from cvjobs.evaluation.predicted_masks import MaskFolder
from cvjobs.evaluation.predictions import EvaluatedOutput, LabelFile, ResultsFile
from cvjobs.evaluation.result import Evaluation, Sides
from cvjobs.evaluation.void import Void
from cvjobs.html.original_links import links
from cvjobs.sources import reasons
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, open_store

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
    given = predicted_files.read(predictions, truth, names, options)
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
    if given.notes:
        found = replace(found, notes=[*given.notes, *found.notes])
    if known.left_out:
        notes = [*found.notes, f"left out of the truth: {reasons.words(known.left_out)}"]
        found = replace(found, notes=notes, left_out=known.left_out)
    say("writing")
    _write_confusion(store, found)
    _write(store, NUMBERS, json.dumps(json_values.finite(found.as_dict()), indent=1) + "\n")
    original = None
    if isinstance(given, EvaluatedOutput):
        original = links(f"{store.place}/{PAGE}", given.reader.snapshot.root, given.reader.base)
    _write(store, PAGE, page(found, show, original))
    return found


def _judged(given: Given, known: GroundTruth, sides: Sides, void: Void, options: Options) -> tuple[Evaluation, Show]:
    if isinstance(given, MaskFolder) or given.task == "semantic":
        assert isinstance(given, EvaluatedOutput | MaskFolder), "it has class maps"
        if isinstance(known, PixelTruth):
            return semantic.evaluate(given, known, sides, void, options)
        assert isinstance(known, ObjectTruth), "class maps are compared with masks"
        painted = painting.painted(boxes.by_name(known, given), given, void)
        found, show = semantic.evaluate(given, painted, sides, void, options)
        return replace(found, notes=[*painted.notes, *found.notes]), show
    if isinstance(known, ObjectTruth):
        assert not isinstance(given, LabelFile), "it has labels"
        return detect.evaluate(given, known, sides, options)
    assert isinstance(known, LabelTruth)
    assert not isinstance(given, ResultsFile), "it has boxes or masks"
    return classify.evaluate(given, known, sides, options)


def _beside(given: Given) -> str:
    """Return where the files go by default: into a folder of the output, or beside the file."""
    if isinstance(given, EvaluatedOutput):
        return f"{given.place}/eval"
    file = Path(given.place).absolute()
    return str(file.with_name(f"{file.name if file.is_dir() else file.stem}_eval"))


def _write_confusion(store: Store, found: Evaluation) -> None:
    """Write what ``eval.json`` does not hold of the matrix; that of an earlier evaluation goes."""
    table = found.confusion
    if table is None:
        if store.size(FILE) is not None:
            store.delete(FILE)
        return
    with _said(store):
        store.write(FILE, lambda file: pq.write_table(table, file, compression="zstd"))


def _write(store: Store, name: str, text: str) -> None:
    with _said(store):
        store.write_bytes(name, text.encode(errors="replace"))


@contextmanager
def _said(store: Store) -> Iterator[None]:
    """Raise WrongUse where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise WrongUse(f"Cannot write to {store.place} ({error.strerror}): name another folder with -o.") from error
