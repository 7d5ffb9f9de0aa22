"""`--format pt2`: a program of torch.export, with what is said of the model in its extra file ``metadata.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cvjobs.common.errors import JobFailed
from cvjobs.training.portable.portable_model import ELSE, PortableModel
from cvjobs.training.portable.traced_program import faults, traced

METADATA = "metadata.json"


def write(model: PortableModel, path: Path) -> None:
    """Write the file; raises JobFailed where torch cannot export the model."""
    program = traced(model, "pt2")
    with faults(model, "pt2"):
        torch.export.save(program, path, extra_files={METADATA: json.dumps(model.facts())})


def check(model: PortableModel, path: Path) -> float:
    """Return by how much the file's outputs differ from torch's, of one image and of several.

    Raises:
        JobFailed: by too much, or the file cannot be read again.
    """
    said: dict[str, Any] = {METADATA: ""}
    with faults(model, "pt2"):
        module = torch.export.load(path, extra_files=said).module()
        images = model.samples()
        found = [tuple(module(some)) for some in images]
    if json.loads(said[METADATA]) != json.loads(json.dumps(model.facts())):
        raise JobFailed(f"What the file says of {model.run} is not read again as it is: {ELSE}")
    return max(model.compare(some, outputs) for some, outputs in zip(images, found, strict=True))
