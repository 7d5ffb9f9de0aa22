"""What version 0.1.0 finished is up to date, and what it was killed in goes on: nothing is computed twice.

``data/before/make.py`` made the outputs.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from buckets import Bucket, made
from commands import STAMP, TESTS, here
from PIL import Image
from trees import touch

pytestmark = pytest.mark.slow

ARCHIVE = TESTS / "data" / "before" / "made.tar.xz"


@dataclass(frozen=True)
class Before:
    """The images and outputs of the earlier version, in a folder, or in the bucket."""

    folder: Path
    made: dict[str, Any]
    bucket: Bucket | None = None

    def url(self, name: str) -> str:
        return self.bucket.url(name) if self.bucket else str(self.folder / name)

    def run(self, command: str, *words: object) -> Any:
        """Run a command to a good end, and return what it answers."""
        ended = here(command, *words, *(self.bucket.options if self.bucket else ()), "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    def read(self, pattern: str) -> dict[str, bytes]:
        """The files of a folder whose names match the last part of a pattern."""
        if self.bucket is None:
            return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.glob(pattern)}
        top, _, name = pattern.rpartition("/")
        return {key: self.bucket.read(key) for key in self.bucket.keys(top) if Path(key).match(name)}

    def newest(self, out: str) -> dict[str, Any]:
        """The newest snapshot of an output, or generation of an index."""
        found: dict[str, Any] = json.loads(max(self.read(f"{out}/_cvjobs/versions/v*.json").items())[1])
        return found

    def add(self, name: str, content: bytes) -> None:
        """Add an image to a source."""
        if self.bucket:
            self.bucket.put(name, content)
        else:
            touch(self.folder / name, content, STAMP + 10**9)


def unpacked(folder: Path) -> Before:
    """Unpack the archive, and let its outputs belong to the images beside them.

    The time stamps of the images are as they were. An output belongs to one source, which its JSON records name by its
    absolute path: that path alone is replaced. Parquet files hold it, if at all, in metadata that no command reads. The
    bucket has the same name in each test.
    """
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    notes = json.loads((folder / "made.json").read_text())
    for record in folder.rglob("*.json"):
        record.write_text(record.read_text().replace(notes["root"], str(folder)))
    return Before(folder, notes)


@pytest.fixture(scope="module", params=["folder", pytest.param("bucket", marks=pytest.mark.faults(minutes=0.2))])
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    found = unpacked(tmp_path_factory.mktemp("before"))
    if request.param == "folder":
        yield found
        return
    bucket = made(request.getfixturevalue("s3"), found.made["bucket"])
    for name in ("photos", "scans"):
        bucket.upload(found.folder / name, name)
    for name in ("vectors", "index", "half"):
        bucket.upload(found.folder / "bucket" / name, name)
    yield Before(found.folder, found.made, bucket)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Before:
    return unpacked(tmp_path_factory.mktemp("trained"))


def table(files: dict[str, bytes]) -> pa.Table:
    """The rows of Parquet files by path."""
    return pa.concat_tables([pq.read_table(io.BytesIO(file)) for file in files.values()]).sort_by("path")


def test_a_finished_output_and_its_index_are_up_to_date(before: Before) -> None:
    then, files, generation = before.newest("vectors"), before.read("vectors/data/*.parquet"), before.newest("index")
    embed = ("embed", before.url("photos"), "-o", before.url("vectors"), *before.made["model"])
    index = ("index", before.url("vectors"), "-o", before.url("index"))
    count = before.made["photos"]
    assert before.run("verify", before.url("index"))["problems"] == []
    summary = before.run(*embed)
    assert (summary["computed"], summary["reused"], summary["version"]) == (0, count, 1)
    assert before.newest("vectors") == then
    assert before.read("vectors/data/*.parquet") == files
    report = before.run(*index)
    assert (report["added"], report["kept"], report["generation"]) == (0, count, 1)
    assert before.newest("index") == generation
    content = io.BytesIO()
    Image.new("RGB", (16, 12), (1, 2, 3)).save(content, "png")
    before.add("photos/new.png", content.getvalue())
    summary = before.run(*embed)
    assert (summary["computed"], summary["reused"], summary["version"]) == (1, count, 2)
    assert before.newest("vectors")["fingerprint"] == then["fingerprint"]
    report = before.run(*index)
    assert (report["added"], report["kept"], report["rebuilt"]) == (1, count, False)
    assert before.run("verify", before.url("index"))["problems"] == []


def test_a_run_that_was_killed_computes_what_is_left(before: Before) -> None:
    scans, count = before.url("scans"), before.made["scans"]
    parts = [json.loads(content) for content in before.read("half/_cvjobs/parts/*.json").values()]
    held = sum(part["results"]["rows"] for part in parts)
    assert 0 < held < count
    assert not before.read("half/_cvjobs/versions/*")
    old = table(before.read("half/data/*.parquet"))
    assert old.num_rows == held
    summary = before.run("embed", scans, "-o", before.url("half"), *before.made["model"])
    assert (summary["reused"], summary["computed"], summary["ok"]) == (held, count - held, count)
    assert {part["fingerprint"] for part in parts} == {before.newest("half")["fingerprint"]}
    new = table(before.read("half/data/*.parquet"))
    assert new.num_rows == count
    assert new.filter(pc.is_in(new["path"], value_set=old["path"].combine_chunks())).equals(old)
    assert before.run("verify", before.url("half"), "--source", scans)["exit_code"] == 0


def test_a_finished_training_has_nothing_to_train(trained: Before) -> None:
    run = trained.folder / "run"
    names = ("config.json", "summary.json", "history.parquet", "model.safetensors")
    files = [(run / name).read_bytes() for name in names]
    assert trained.run("verify", run)["problems"] == []
    summary = trained.run("train", trained.folder / "photos.csv", "-o", run, *trained.made["run"])
    assert (summary["up_to_date"], summary["epochs"]) == (True, 2)
    assert [(run / name).read_bytes() for name in names] == files


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(trained: Before) -> None:
    run = trained.folder / "half-run"
    (meta,) = run.glob("checkpoints/[0-9]*/meta.json")
    epochs = json.loads(meta.read_text())["meta"]["history"]
    identity = json.loads((run / "config.json").read_text())["identity"]
    summary = trained.run("train", trained.folder / "photos.csv", "-o", run, *trained.made["half_run"])
    assert (summary["up_to_date"], summary["epochs"]) == (False, 40)
    history = pq.read_table(run / "history.parquet").to_pylist()
    assert 3 <= len(epochs) < 40
    # With the seconds that the earlier version took, and nothing of what it did not measure.
    kept = history[: len(epochs)]
    assert [{name: row[name] for name in epochs[0]} for row in kept] == epochs
    assert {row[name] for row in kept for name in row.keys() - epochs[0].keys()} == {None}
    assert [row["epoch"] for row in history] == list(range(1, 41))
    assert json.loads((run / "config.json").read_text())["identity"] == identity
    assert trained.run("verify", run)["problems"] == []
