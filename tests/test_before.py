"""What an earlier version of cvjobs made, or was killed in, goes on: nothing is computed again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from buckets import Bucket, made
from commands import STAMP, here
from made_before import BUCKET, HALF_RUN, MODEL, PHOTOS, RUN, SCANS, photo, unpacked
from trees import touch


@dataclass(frozen=True)
class Before:
    """The images and outputs of the earlier version, in a folder, or in the bucket."""

    folder: Path
    bucket: Bucket | None = None

    def url(self, name: str) -> str:
        return self.bucket.url(name) if self.bucket else str(self.folder / name)

    def run(self, command: str, *words: object) -> Any:
        """Run a command to a good end, and return what it answers."""
        ended = here(command, *words, *(self.bucket.options if self.bucket else ()), "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    def read(self, pattern: str) -> dict[str, bytes]:
        """The files below a folder whose names match the rest of a pattern."""
        top, _, rest = pattern.rpartition("/")
        if self.bucket is None:
            return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.glob(pattern)}
        names = [name for name in self.bucket.keys(top) if Path(name).match(rest)]
        return {name: self.bucket.read(name) for name in names}

    def newest(self, out: str) -> dict[str, Any]:
        """The newest snapshot of an output, or generation of an index."""
        found: dict[str, Any] = json.loads(max(self.read(f"{out}/_cvjobs/versions/v*.json").items())[1])
        return found

    def add(self, name: str, image: bytes) -> None:
        """Add an image to the source."""
        if self.bucket:
            self.bucket.put(name, image)
        else:
            touch(self.folder / name, image, STAMP + 10**9)


@pytest.fixture(scope="module", params=["folder", "bucket"])
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    folder = unpacked(tmp_path_factory.mktemp("before"))
    if request.param == "folder":
        yield Before(folder)
        return
    bucket = made(request.getfixturevalue("s3"), BUCKET)
    for name in ("photos", "scans"):
        bucket.upload(folder / name, name)
    for name in ("vectors", "index", "half"):
        bucket.upload(folder / "bucket" / name, name)
    yield Before(folder, bucket)


def table(contents: Any) -> pa.Table:
    """The rows of Parquet files by path."""
    return pa.concat_tables([pq.read_table(io.BytesIO(content)) for content in contents]).sort_by("path")


def test_a_finished_output_and_its_index_are_up_to_date(before: Before) -> None:
    then, files, generation = before.newest("vectors"), before.read("vectors/data/*.parquet"), before.newest("index")
    embed = ("embed", before.url("photos"), "-o", before.url("vectors"), *MODEL)
    index = ("index", before.url("vectors"), "-o", before.url("index"))
    summary = before.run(*embed)
    assert (summary["computed"], summary["reused"], summary["version"]) == (0, PHOTOS, 1)
    assert before.newest("vectors") == then
    assert before.read("vectors/data/*.parquet") == files
    report = before.run(*index)
    assert (report["added"], report["kept"], report["generation"]) == (0, PHOTOS, 1)
    assert before.newest("index") == generation
    content = io.BytesIO()
    photo(PHOTOS).save(content, "png")
    before.add("photos/new.png", content.getvalue())
    summary = before.run(*embed)
    assert (summary["computed"], summary["reused"], summary["version"]) == (1, PHOTOS, 2)
    assert before.newest("vectors")["fingerprint"] == then["fingerprint"]
    report = before.run(*index)
    assert (report["added"], report["kept"], report["rebuilt"]) == (1, PHOTOS, False)


def test_a_run_that_was_killed_computes_what_is_left(before: Before) -> None:
    parts = [json.loads(content) for content in before.read("half/_cvjobs/parts/*.json").values()]
    held = sum(part["results"]["rows"] for part in parts)
    assert 0 < held < SCANS
    old = table(before.read("half/data/*.parquet").values())
    assert old.num_rows == held
    summary = before.run("embed", before.url("scans"), "-o", before.url("half"), *MODEL)
    assert (summary["reused"], summary["computed"], summary["ok"]) == (held, SCANS - held, SCANS)
    assert {part["fingerprint"] for part in parts} == {before.newest("half")["fingerprint"]}
    new = table(before.read("half/data/*.parquet").values())
    assert new.filter(pc.is_in(new["path"], value_set=old["path"].combine_chunks())).equals(old)
    assert before.run("verify", before.url("half"), "--source", before.url("scans"))["exit_code"] == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("trained"))


def test_a_finished_training_has_nothing_to_train(trained: Path) -> None:
    names = ("config.json", "summary.json", "history.parquet", "model.safetensors")
    files = [(trained / "run" / name).read_bytes() for name in names]
    summary = Before(trained).run("train", trained / "photos.csv", "-o", trained / "run", *RUN)
    assert (summary["up_to_date"], summary["epochs"]) == (True, 2)
    assert [(trained / "run" / name).read_bytes() for name in names] == files


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(trained: Path) -> None:
    run = trained / "half-run"
    (meta,) = run.glob("checkpoints/[0-9]*/meta.json")
    epochs = json.loads(meta.read_text())["meta"]["history"]
    identity = json.loads((run / "config.json").read_text())["identity"]
    summary = Before(trained).run("train", trained / "photos.csv", "-o", run, *HALF_RUN)
    assert (summary["up_to_date"], summary["epochs"]) == (False, 40)
    history = pq.read_table(run / "history.parquet").to_pylist()
    assert 3 <= len(epochs) < 40
    assert history[: len(epochs)] == epochs  # with the seconds that the earlier version took
    assert [row["epoch"] for row in history] == list(range(1, 41))
    assert json.loads((run / "config.json").read_text())["identity"] == identity
