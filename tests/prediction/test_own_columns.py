"""A list's own columns whose names are those of results: renamed in the output, for every command that writes one."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Ended, exact, here, opened, rows

from cvjobs.dataset import schema, snapshot
from cvjobs.storage.local_store import LocalStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]

COMMANDS = {
    "classify": ("label", "timm/test_resnet", ("label", "score", "top")),
    "detect": ("detections", "ssdlite320_mobilenet_v3_large", ("detections",)),
    "segment": ("class_map", "lraspp_mobilenet_v3_large", ("class_map", "classes")),
}
FIRST = [name if name == "classify" else pytest.param(name, marks=pytest.mark.faults(minutes=0.2)) for name in COMMANDS]


def listed(folder: Path, photos: Path, **columns: list[str]) -> Path:
    """A list of four photos with these columns beside the path."""
    for number, image in enumerate(sorted(photos.rglob("*.jpg"))[:4]):
        if not (folder / f"{number}.jpg").exists():
            shutil.copy2(image, folder / f"{number}.jpg")
    with (folder / "list.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", *columns])
        lines.writerows(zip([f"{n}.jpg" for n in range(4)], *columns.values(), strict=True))
    return folder / "list.csv"


def command(name: str, source: Path, out: Path, *words: object) -> Ended:
    model = "thumbnail/4" if name == "embed" else COMMANDS[name][1]
    weights = () if name == "embed" else ("--weights", "random")
    return here(name, source, "-o", out, "--model", model, *weights, "--json", *words)


def computed(ended: Ended) -> tuple[int, int]:
    """How many images a command computed and reused."""
    assert ended.code == 0, ended
    assert "no report.html" not in ended.err, ended
    summary = json.loads(ended.out)
    return summary["computed"], summary["reused"]


@pytest.mark.parametrize("name", FIRST)
def test_a_column_named_like_a_result_is_renamed(tmp_path: Path, photos: Path, name: str) -> None:
    column, _, results = COMMANDS[name]
    values = ["cat", "dog", "cat", "bird"]
    source, out = listed(tmp_path, photos, **{column: values, "site": list("abcd")}), tmp_path / "out"
    assert computed(command(name, source, out)) == (4, 0)
    table = rows(out)
    own = [*(field.name for field in (*schema.KEYS, *schema.MEASURED)), f"source_{column}", "site", *results]
    assert table.schema.names == own
    assert table[f"source_{column}"].to_pylist() == values
    assert table[column].type != pa.string() or table[column].to_pylist() != values
    assert opened(out).to_pandas(["path", f"source_{column}"]).shape == (4, 2)
    assert computed(command(name, source, out)) == (0, 4)
    values[1] = "horse"
    listed(tmp_path, photos, **{column: values, "site": list("abcd")})
    assert computed(command(name, source, out)) == (1, 3)
    assert rows(out)[f"source_{column}"].to_pylist() == values
    exact(out, source, 4)


def test_the_columns_of_a_training_list_do_not_disturb_vectors(tmp_path: Path, photos: Path) -> None:
    source, out = listed(tmp_path, photos, label=list("abca")), tmp_path / "out"
    assert computed(command("embed", source, out)) == (4, 0)
    assert rows(out)["label"].to_pylist() == list("abca")
    assert computed(command("embed", source, out)) == (0, 4)


@pytest.mark.parametrize("name", ["embed", *FIRST])
def test_columns_that_every_result_has_are_left_out_and_named(tmp_path: Path, photos: Path, name: str) -> None:
    """They were refused, and outputs and exports of our own have them: their values are those of another run."""
    source, out = listed(tmp_path, photos, site=list("abcd")), tmp_path / "out"
    assert computed(command(name, source, out)) == (4, 0)
    before = rows(out)
    source = listed(tmp_path, photos, width=list("wxyz"), site=list("abcd"), embedding=list("1234"))
    again = command(name, source, out)
    assert computed(again) == (0, 4)
    assert (
        f"{name}: the columns width, embedding of {source} are left out: their names are those of results\n"
        in again.err
    )
    assert rows(out).equals(before)
    exact(out, source, 4)


def test_a_name_that_is_taken_too_gets_the_next_one(tmp_path: Path, photos: Path) -> None:
    own = {"source_label": list("abcd"), "label": list("efgh"), "score": list("ijkl")}
    source, out = listed(tmp_path, photos, **own), tmp_path / "out"
    assert computed(command("classify", source, out)) == (4, 0)
    found = rows(out)
    assert found["source_label"].to_pylist() == list("abcd")
    assert found["source_source_label"].to_pylist() == list("efgh")
    assert found["source_score"].to_pylist() == list("ijkl")
    # The order in which the list has them does not count.
    listed(tmp_path, photos, **{name: own[name] for name in reversed(own)})
    assert computed(command("classify", source, out)) == (0, 4)


def test_columns_named_like_those_of_errors_stay_as_they_are(tmp_path: Path, photos: Path) -> None:
    """What failed has no columns of the list, so its own are never mixed up with them."""
    source, out = listed(tmp_path, photos, code=list("abcd"), detail=list("efgh")), tmp_path / "out"
    (tmp_path / "3.jpg").write_text("no image")
    os.utime(tmp_path / "3.jpg", ns=(10**18, 10**18))
    ended = command("embed", source, out, "--max-error-rate", 1)
    assert computed(ended) == (4, 0)
    assert rows(out)["code"].to_pylist() == list("abc")
    failed = opened(out).errors().to_pylist()
    assert [(row["path"], row["code"]) for row in failed] == [("3.jpg", "not_an_image")]


def test_an_output_that_has_a_name_twice_is_computed_again(tmp_path: Path, photos: Path) -> None:
    """Earlier versions wrote such files, which nothing could read."""
    source, out = listed(tmp_path, photos, label=list("abcd")), tmp_path / "out"
    assert computed(command("classify", source, out)) == (4, 0)
    base = snapshot.latest(LocalStore(out, "test"))
    broken = out / base.results[0].name
    table = pq.read_table(broken)
    pq.write_table(table.rename_columns([n.removeprefix("source_") for n in table.schema.names]), broken)
    assert computed(command("classify", source, out)) == (4, 0)
    assert rows(out)["source_label"].to_pylist() == list("abcd")
    assert opened(out).to_arrow(["source_label"]).num_rows == 4
    exact(out, source, 4)


def test_a_csv_export_has_each_name_once(tmp_path: Path, photos: Path) -> None:
    source, out = listed(tmp_path, photos, label=list("abcd"), score=list("efgh")), tmp_path / "out"
    assert computed(command("detect", source, out)) == (4, 0)
    assert rows(out)["label"].to_pylist() == list("abcd")
    assert here("export", out, "--format", "csv", "-o", tmp_path / "found.csv").code == 0
    with (tmp_path / "found.csv").open(newline="") as file:
        first, *lines = list(csv.reader(file))
    assert first[:5] == ["path", "width", "height", "source_label", "source_score"]
    assert first[5:] == ["category_id", "label", "score", "x0", "y0", "x1", "y1"]
    assert {line[0]: line[3] for line in lines} == {f"{n}.jpg": "abcd"[n] for n in range(4)}
