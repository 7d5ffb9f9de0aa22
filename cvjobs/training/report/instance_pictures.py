"""What the page of a trained segmenter of objects shows: as ``object_pictures``, judged by masks and with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cvjobs.evaluation.ground_truth import coco_records
from cvjobs.training.data.whole_pictures import WholePictures
from cvjobs.training.loop.instance_task import InstanceTask
from cvjobs.training.report import object_pictures
from cvjobs.training.report.training_page import EndedRun


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what the page needs; see ``training_page.Section``."""
    if ended.plan.decoding is not None:  # whose pictures are on other machines
        return {"classes": [], "alarms": [], "misses": []}
    pictures = WholePictures(ended.part.decoded)
    heights, widths = (sides.numpy() for sides in pictures.sizes(ended.part.decoded.rows))
    truths = InstanceTask(ended.plan).truths(ended.part, heights, widths)
    rows = ended.found.select(["height", "width", "masks"]).to_pylist()
    masks = [{"size": [row["height"], row["width"]], "counts": text.encode()} for row in rows for text in row["masks"]]
    found = replace(object_pictures.found(ended), masks=masks, area=coco_records.sizes(masks))
    return object_pictures.shown(ended, truths, found, pictures)
