"""What was begun with ``--decode gpu`` goes on where there is no GPU, by the same decoder; asked for, it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import aged, embed, exact, here, rows, sentence, some, verify

from cvjobs.config.options import BatchOptions
from cvjobs.dataset import snapshot
from cvjobs.prediction import model_choice, run
from cvjobs.prediction.model_choice import TaskSpec
from cvjobs.prediction.placement import Placement
from cvjobs.prediction.tasks.embed import EmbedRequest
from cvjobs.storage.store import open_store


class Elsewhere:
    """The job as a machine with a GPU resolves it."""

    command = "embed"

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> TaskSpec:
        del placement
        request = EmbedRequest(model="thumbnail/4", weights="pretrained", layer="")
        record = model_choice.resolve(request, "auto", earlier).record
        return TaskSpec(replace(record, transform=replace(record.transform, decoder="gpu")))


@pytest.mark.slow
def test_an_output_of_a_gpu_goes_on_without_one(photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "photos", 20), tmp_path / "out"
    run.run(BatchOptions(source=str(source), out=str(out)), Elsewhere())
    before = rows(out)
    nothing = embed(source, out)
    assert nothing.code == 0
    assert "nothing to compute" in nothing.err
    told = sentence(embed(source, out, "--decode", "gpu"), 2)
    assert told == "--decode gpu needs a model on a CUDA GPU, and there is none: use --decode cpu."
    assert "decoder" in sentence(embed(source, out, "--decode", "cpu"), 2)

    some(photos, source, 40)
    assert embed(aged(source), out).code == 0
    exact(out, source, 40)
    assert rows(out).slice(0, 0).schema == before.schema
    assert snapshot.latest(open_store(str(out))).resolved["transform"]["decoder"] == "gpu"
    assert verify(out, source).code == 0
    told = sentence(embed(source, out, "--decode", "gpu"), 2)  # also of what went on here
    assert "there is none" in told

    assert here("index", out, "-o", tmp_path / "index").code == 0
    found = here("query", tmp_path / "index", source, "-k", 1, "--json")
    assert found.code == 0, found
    assert found.left == []

    plain = tmp_path / "plain"
    assert embed(source, plain).code == 0
    near = [np.array(rows(one).sort_by("path")["embedding"].to_pylist()) for one in (out, plain)]
    assert np.abs(near[0] - near[1]).max() < 0.1
