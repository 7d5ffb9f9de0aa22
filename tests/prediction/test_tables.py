"""Every result of the Python functions that stands for rows has them as a table: to_arrow() and to_pandas()."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import some

import cvjobs
from cvjobs.common.errors import WrongUse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight photos, one of them broken, their vectors, and an index of those."""
    root = tmp_path_factory.mktemp("made")
    some(photos, root / "photos", 8)
    (root / "photos" / "broken.jpg").write_text("no image")
    cvjobs.embed(root / "photos", root / "vectors", model="thumbnail/4")
    cvjobs.index(root / "vectors", out=root / "index")
    return root


def test_a_run(made: Path) -> None:
    summary = cvjobs.embed(made / "photos", made / "vectors", model="thumbnail/4")
    assert summary.to_arrow().equals(cvjobs.open(made / "vectors").to_arrow())
    assert summary.to_pandas(["path"]).columns.tolist() == ["path"]
    assert len(summary.to_pandas()) == 8
    assert summary.errors()["path"].to_pylist() == ["broken.jpg"]
    assert "storage" not in json.dumps(summary.as_dict()) + repr(summary), "nobody prints what may be a secret"


def test_an_index_and_its_answers(made: Path) -> None:
    report = cvjobs.index(made / "vectors", out=made / "index")
    paths = sorted(cvjobs.open(made / "vectors").to_arrow(["path"])["path"].to_pylist())
    assert sorted(report.to_arrow(["path"])["path"].to_pylist()) == paths
    assert "row" not in report.to_arrow().column_names
    assert "storage" not in json.dumps(report.as_dict())
    answer = cvjobs.query(made / "index", made / "vectors", k=2)
    assert answer.to_arrow(["rank"]).num_rows == 16
    assert set(answer.to_pandas()["rank"]) == {1, 2}
    assert cvjobs.query(made / "index", duplicates=True, min_score=1.0).to_pandas().columns.tolist()[0] == "group"


def test_lists(made: Path) -> None:
    models = cvjobs.models(task="autoencoder")
    assert models.to_arrow(["family", "model"]).to_pylist() == [{"family": "small", "model": "small/autoencoder"}]
    (made / "nights.yaml").write_text(f"state: {made}/nights\nsteps:\n  - embed: {{source: photos, out: vectors}}\n")
    assert cvjobs.run(made / "nights.yaml", dry_run=True).to_arrow(["command"])["command"].to_pylist() == ["embed"]


def test_without_pandas(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(WrongUse, match=r"^to_pandas\(\) needs pandas: pip install pandas, or take to_arrow\(\)\.$"):
        cvjobs.open(made / "vectors").to_pandas()


def test_a_column_that_is_not_there(made: Path) -> None:
    vectors, report = cvjobs.open(made / "vectors"), cvjobs.index(made / "vectors", out=made / "index")
    for found in (vectors, report, cvjobs.query(made / "index", made / "vectors")):
        with pytest.raises(WrongUse, match=r"^There is no column 'pth' \(nearest: path.*\): choose from .*path.*\.$"):
            found.to_arrow(["path", "pth"])


def test_a_notebook_shows_the_lines_of_the_command(made: Path) -> None:
    shown: list[str] = []
    printer = SimpleNamespace(text=shown.append)
    export = cvjobs.export(made / "vectors", made / "vectors.jsonl", "jsonl")
    for record in (
        export,
        cvjobs.verify(made / "vectors"),
        cvjobs.models(task="train"),
        cvjobs.index(made / "index", info=True),
    ):
        vars(type(record))["_repr_pretty_"](record, printer, False)  # IPython looks at the class itself alone
        assert shown.pop() == str(record)
