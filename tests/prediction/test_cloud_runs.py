"""Whole commands with sources and outputs on an object store: the same rows as in folders, whatever happens."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from buckets import KEYS, Bucket, made
from commands import CLI, Ended, embed, here, kill, rows, run, said, some, started, until
from PIL import Image
from websites import Page, web

import cvjobs
from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import schema

NUMBERS = itertools.count()
MODEL = ("--model", "thumbnail/4")


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return made(s3, f"run{next(NUMBERS)}")


def embedded(bucket: Bucket, source: str = "", **options: Any) -> Any:
    """Run embed on the bucket from Python and return its summary."""
    option = [f"endpoint={bucket.endpoint}"]
    source = source or bucket.url("photos")
    answer = cvjobs.embed(source, bucket.url("out"), model="thumbnail/4", storage_option=option, **options)
    assert answer.exit_code == 0
    return answer


def exact(bucket: Bucket, count: int, source: str = "", out: str = "out") -> None:
    """Every image once, as plain Parquet and as verify sees it, and nothing unfinished."""
    option = [f"endpoint={bucket.endpoint}"]
    for listed in (None, source or bucket.url("photos")):
        report = cvjobs.verify(bucket.url(out), source=listed, storage_option=option)
        assert report.exit_code == 0, report
    names = [*bucket.table(f"{out}/data")["path"].to_pylist(), *bucket.table(f"{out}/errors")["path"].to_pylist()]
    assert len(names) == len(set(names)) == count
    assert [key for key in bucket.keys(out) if ".tmp-" in key or "/parts/" in key] == []


def parts(bucket: Bucket) -> int:
    return len(bucket.keys(f"out/{schema.PARTS}"))


def sentence(ended: Ended, code: int) -> str:
    assert ended.code == code, ended
    assert ended.out == "", ended
    (line,) = said(ended.err)
    return line


@pytest.mark.slow
def test_the_same_rows_as_from_a_folder(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "photos", 40)
    (source / "broken.jpg").write_bytes(b"no image")
    bucket.upload(source, "photos")
    ended = embed(bucket.url("photos"), bucket.url("out"), *bucket.options)
    assert ended.code == 0, ended
    assert ended.left == []
    assert ended.out.startswith("41 listed = 40 ok + 1 failed + 0 skipped, missing 0\n")
    assert f"\n{bucket.url('out')}/data (snapshot 1), errors in {bucket.url('out')}/errors\n" in ended.out
    assert here("verify", bucket.url("out"), "--source", bucket.url("photos"), *bucket.options).code == 0
    exact(bucket, 41)
    assert embed(source, tmp_path / "out").code == 0
    there, local = bucket.table("out/data"), rows(tmp_path / "out")
    same = ["path", "image_id", "bytes", "content_hash", "width", "height", "frames", "embedding"]
    assert there.select(same).equals(local.select(same))
    assert bucket.table("out/errors")["code"].to_pylist() == ["not_an_image"]
    opened = cvjobs.open(bucket.url("out"), storage_options=bucket.settings)
    assert opened.to_arrow().num_rows == 40
    assert opened.errors().num_rows == 1
    assert [file.startswith(bucket.url("out/data/part-")) for file in opened.files] == [True]
    # From the bucket to a folder, and from a folder to the bucket.
    assert embed(bucket.url("photos"), tmp_path / "local", *bucket.options).code == 0
    assert rows(tmp_path / "local").select(same).equals(local.select(same))
    assert embed(source, bucket.url("other"), *bucket.options).code == 0
    assert bucket.table("other/data").select(same).equals(local.select(same))
    assert bucket.table("out/data").schema.metadata[b"cvjobs.source"] == bucket.url("photos").encode()


@pytest.mark.slow
def test_a_week(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    images = sorted(some(photos, tmp_path / "photos", 30).rglob("*.jpg"))
    contents = [image.read_bytes() for image in images]

    def put(number: int, content: bytes) -> None:
        bucket.put(f"photos/{number:02}.jpg", content)

    for number in range(20):
        put(number, contents[number])
    assert embedded(bucket).computed == 20
    assert embedded(bucket).computed == 0
    put(20, contents[20])
    put(3, contents[23])
    put(4, contents[4])  # touched: uploaded again, the same content
    bucket.delete("photos/05.jpg")
    answer = embedded(bucket)
    assert (answer.computed, answer.reused, answer.ok) == (2, 18, 20)
    exact(bucket, 20)
    for number in range(8, 20):
        bucket.delete(f"photos/{number:02}.jpg")
    with pytest.raises(WrongUse, match="are gone from the source"):
        embedded(bucket)
    assert embedded(bucket, allow_deletions=True).ok == 8
    exact(bucket, 8)
    put(0, b"broken now")
    answer = embedded(bucket, max_error_rate=1.0)
    assert (answer.ok, answer.failed, answer.computed) == (7, 1, 1)
    put(0, contents[29])
    answer = embedded(bucket, changed_by="content")
    assert (answer.ok, answer.failed) == (8, 0)
    exact(bucket, 8)
    embedded(bucket, overwrite=True)
    exact(bucket, 8)
    table = bucket.table("out/data")
    assert table["bytes"].to_pylist()[0] == len(contents[29])
    assert len(bucket.keys(f"out/{schema.VERSIONS}")) == 1


@pytest.mark.faults
def test_killed_at_any_moment_the_same_command_continues(bucket: Bucket, slow_photos: Path) -> None:
    bucket.upload(slow_photos, "photos")
    words = [*CLI, "embed", bucket.url("photos"), "-o", bucket.url("out"), *MODEL, *bucket.options]
    for committed in (1, 2, 3):
        with started(words) as process:
            until(lambda: parts(bucket) >= committed or process.poll() is not None)  # noqa: B023
            kill(process, signal.SIGKILL)
            process.wait()
    answer = embedded(bucket)
    assert answer.ok == 200
    assert answer.reused > 0
    exact(bucket, 200)


@pytest.mark.faults
def test_a_second_writer_is_refused_and_an_overtaken_one_ends(bucket: Bucket, slow_photos: Path) -> None:
    bucket.upload(slow_photos, "photos")
    words = [*CLI, "embed", bucket.url("photos"), "-o", bucket.url("out"), *MODEL, *bucket.options]
    with started(words) as first:
        until(lambda: parts(bucket) or first.poll() is not None)
        kill(first, signal.SIGSTOP)
        refused = embed(bucket.url("photos"), bucket.url("out"), *bucket.options)
        assert f"{bucket.url('out')} is held by process {first.pid}" in sentence(refused, 5)
        record = json.loads(bucket.read(f"out/{schema.LEASE}/epoch-000001.json"))
        silent = schema.pack({**record, "heartbeat": record["heartbeat"] - 120})
        bucket.put(f"out/{schema.LEASE}/hb-000001.json", silent)
        assert embedded(bucket).ok == 200
        kill(first, signal.SIGCONT)
        _, err = first.communicate(timeout=120)
    assert first.returncode == 5, err
    assert "took" in err
    embedded(bucket)  # cleans up the part that it may have been about to commit when it was stopped
    exact(bucket, 200)


@pytest.mark.slow
def test_a_snapshot_that_is_damaged_there_is_made_anew(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    bucket.upload(some(photos, tmp_path / "photos", 6), "photos")
    embedded(bucket)
    before = bucket.table("out/data")
    for key in bucket.keys(f"out/{schema.VERSIONS}") + bucket.keys(f"out/{schema.COPIES}"):
        bucket.put(key, b"")
    option = [f"endpoint={bucket.endpoint}"]
    with pytest.raises(JobFailed, match="is damaged, and no copy of it is whole"):
        cvjobs.verify(bucket.url("out"), storage_option=option)
    report = cvjobs.verify(bucket.url("out"), repair=True, storage_option=option)
    assert report.repaired == ("snapshot 2 was made anew of 6 results and 0 errors",)
    assert bucket.table("out/data").equals(before)
    exact(bucket, 6)


@pytest.mark.faults(minutes=0.2)
def test_of_two_commands_at_once_one_works(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    bucket.upload(some(photos, tmp_path / "photos", 30), "photos")
    words = [*CLI, "embed", bucket.url("photos"), "-o", bucket.url("out"), *MODEL, *bucket.options]
    with started(words) as one, started(words) as two:
        codes = Counter((one.wait(120), two.wait(120)))
    assert codes in (Counter({0: 1, 5: 1}), Counter({0: 2}))
    exact(bucket, 30)


@pytest.mark.faults
def test_images_that_change_while_they_are_read(bucket: Bucket, slow_photos: Path) -> None:
    bucket.upload(slow_photos, "photos")
    last = bucket.keys("photos")[-3:]
    words = [*CLI, "embed", bucket.url("photos"), "-o", bucket.url("out"), *MODEL, *bucket.options, "--json"]
    with started(words) as process:
        until(lambda: parts(bucket) or process.poll() is not None)
        bucket.delete(last[0])
        bucket.put(last[1], b"another")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["ok"] + json.loads(out)["failed"] == 200
    answer = embedded(bucket)
    assert (answer.ok, answer.failed) == (198, 1)
    exact(bucket, 199)


@pytest.mark.slow
def test_a_list_of_everything(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    images = sorted(some(photos, tmp_path / "photos", 3).rglob("*.jpg"))
    bucket.put("a/one.jpg", images[0].read_bytes())
    bucket.put("lists/two.jpg", images[1].read_bytes())
    odd = tmp_path / "odd <b>.jpg"
    odd.write_bytes(images[2].read_bytes())
    with web({"/three.jpg?x=1": Page(images[2].read_bytes())}) as site:
        uris = [bucket.url("a/one.jpg"), "two.jpg", str(odd), f"{site}/three.jpg?x=1"]
        bucket.put("lists/all.txt", "\n".join([*uris, bucket.url("a/none.jpg")]).encode())
        source = bucket.url("lists/all.txt")
        answer = embedded(bucket, source, max_error_rate=1.0)
        assert (answer.ok, answer.failures) == (4, {"list_vanished": 1})
        assert bucket.table("out/data")["path"].to_pylist() == sorted(uris)
        exact(bucket, 5, source)
        bucket.put("a/one.jpg", images[2].read_bytes())
        assert embedded(bucket, source, max_error_rate=1.0).computed == 1
        vectors = bucket.table("out/data")["embedding"].to_pylist()
        assert vectors[sorted(uris).index(str(odd))] == vectors[sorted(uris).index(uris[0])]


@pytest.mark.slow
def test_secrets_are_not_written_down(
    bucket: Bucket, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    source = some(photos, tmp_path / "photos", 3)
    secret = KEYS["AWS_SECRET_ACCESS_KEY"]
    options = [*bucket.options, "--storage-option", f"secret_access_key={secret}"]
    ended = embed(source, bucket.url("out"), *options)
    assert ended.code == 0, ended
    monkeypatch.undo()
    for key in bucket.keys("out"):
        assert secret.encode() not in bucket.read(key)
    (config,) = [key for key in bucket.keys("out") if key.endswith("config.json")]
    assert json.loads(bucket.read(config))["options"]["storage_option"] == [
        f"endpoint={bucket.endpoint}",
        "secret_access_key=***",
    ]
    wrong = embed(source, bucket.url("out"), "--storage-option", f"secret={secret}")
    assert secret not in sentence(wrong, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "options", "code", "expected"),
    [
        ("s3://no-such-bucket/out", [], 2, "There is no bucket s3://no-such-bucket"),
        ("s3://bucket/out", ["--storage-option", "endpoint=http://127.0.0.1:9"], 1, "cannot be reached (Connection"),
        ("s3://bucket/out", ["--storage-option", "endpont=http://127.0.0.1:9"], 2, "nearest: endpoint"),
        ("ftp://bucket/out", [], 2, "ftp:// are not supported"),
    ],
)
def test_outputs_that_cannot_be(
    bucket: Bucket, tmp_path: Path, out: str, options: list[str], code: int, expected: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert expected in sentence(embed(tmp_path, out, *(options or bucket.options)), code)
    assert expected in sentence(here("verify", out, *(options or bucket.options)), code)


@pytest.mark.slow
def test_the_forecast_of_an_output_on_a_bucket(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    bucket.upload(some(photos, tmp_path / "photos", 10), "photos")
    ended = embed(bucket.url("photos"), bucket.url("out"), "--dry-run", *bucket.options)
    assert ended.code == 0, ended
    assert f"in {bucket.url('out')}\n" in ended.out
    assert bucket.keys("out") == []


@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
@pytest.mark.faults
def test_two_workers(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "photos", 80)
    bucket.upload(source, "photos")
    ended = embed(bucket.url("photos"), bucket.url("out"), "--workers", "2", *bucket.options)
    assert ended.code == 0, ended
    exact(bucket, 80)
    assert embed(source, tmp_path / "out").code == 0
    assert (
        bucket.table("out/data")
        .select(["path", "embedding"])
        .equals(rows(tmp_path / "out").select(["path", "embedding"]))
    )


@pytest.mark.ray
@pytest.mark.faults
def test_results_as_a_ray_dataset(bucket: Bucket, photos: Path, tmp_path: Path) -> None:
    bucket.upload(some(photos, tmp_path / "photos", 12), "photos")
    embedded(bucket)
    read = (
        "import cvjobs, ray, sys, warnings\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "data = cvjobs.open(sys.argv[1], storage_options={'endpoint': sys.argv[2]}).to_ray()\n"
        "print(data.count(), len(data.take(1)[0]['embedding']))\n"
    )
    ended = run("-c", read, bucket.url("out"), bucket.endpoint, program=CLI[:1])
    assert ended.out.split() == ["12", "48"], ended
