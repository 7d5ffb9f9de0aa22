"""The catalogue: `python docs/model_catalogue.py` makes timm.csv and torchvision.csv from the installed libraries.

Of timm it builds each model without weights, for some are others under each tag: a quarter of an hour on one core.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import cache
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.models import get_pretrained_cfg
from torchvision import models

from cvjobs.common.fingerprint import installed
from cvjobs.networks.catalogue import catalogue
from cvjobs.networks.families import timm as timm_family
from cvjobs.networks.families import torchvision as torchvision_family
from cvjobs.networks.known_models import TASKS

Row = dict[str, Any]


def timm_row(name: str) -> Row:
    """Return the row of one of timm's models; takes as long as building it once."""
    registered = get_pretrained_cfg(name)
    assert registered is not None
    config: dict[str, Any] = registered.to_dict()  # type: ignore[no-untyped-call]
    data: dict[str, Any] = resolve_data_config(pretrained_cfg=config)  # type: ignore[no-untyped-call]
    _, height, width = data["input_size"]
    with torch.device("meta"):
        count = sum(one.numel() for one in timm.create_model(name).parameters())
    return {"parameters": count, "size": f"{height}x{width}"}


def torchvision_row(name: str) -> Row:
    """Return the row of one of torchvision's models: the size is that of a classifier's input."""
    entry = models.get_model_weights(name).DEFAULT
    side = getattr(entry.transforms(), "crop_size", None)
    return {"parameters": entry.meta["num_params"], "size": f"{side[0]}x{side[0]}" if side else ""}


@cache
def tasks(family: str) -> dict[str, list[str]]:
    """Return the tasks of each model of a family, in an order that is that of the names for every task."""
    module: Any = {"timm": timm_family, "torchvision": torchvision_family}[family]
    offered = {task: module.names(task) for task in TASKS}
    segmenters = [name for name in offered["segment"] if name not in offered["detect"]]
    ordered = dict.fromkeys([*offered["embed"], *segmenters, *offered["detect"]])
    return {name: [task for task in TASKS if name in offered[task]] for name in ordered}


def written(family: str, rows: Iterable[Row]) -> str:
    """Return the text of a family's file."""
    text = io.StringIO()
    text.write(f"# {family} {installed(family).partition('+')[0]}\n")
    writer = csv.DictWriter(text, catalogue.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def row(family: str, name: str) -> Row:
    """Return the whole row of a model."""
    module: Any = {"timm": timm_family, "torchvision": torchvision_family}[family]
    own, licence = (timm_row if family == "timm" else torchvision_row)(name), module.licence(name)
    return {
        "model": name,
        "tasks": " ".join(tasks(family)[name]),
        **own,
        "code": licence.code,
        "weights": licence.weights,
    }


if __name__ == "__main__":
    for one in ("torchvision", "timm"):
        (catalogue.FOLDER / f"{one}.csv").write_text(written(one, [row(one, name) for name in tasks(one)]))
