"""What COCO's API says of a truth and of results."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Record = dict[str, Any]


def reference(truth: Record, found: list[Record], kind: str = "bbox") -> npt.NDArray[np.float64]:
    """What pycocotools says, the twelve numbers in its order."""
    with contextlib.redirect_stdout(io.StringIO()):
        known, predicted = COCO(), COCO()
        known.dataset = json.loads(json.dumps(truth))
        known.createIndex()
        if found:
            predicted = known.loadRes(json.loads(json.dumps(found)))
        judge = COCOeval(known, predicted, kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.asarray(judge.stats)
