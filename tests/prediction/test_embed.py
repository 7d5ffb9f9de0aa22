"""``cvjobs embed`` from end to end: rows, counts, exit codes, and what the next run does."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from commands import Ended, codes, embed, errors, exact, here, opened, rows, run, some, verify, week
from PIL import Image

import cvjobs
from cvjobs.common.paths import image_id
from cvjobs.images.decode import decode
from cvjobs.images.undecodable import Undecodable
from cvjobs.networks import registry

pytestmark = pytest.mark.slow

COMPARED = ("image_id", "bytes", "modified", "content_hash", "width", "height", "frames", "embedding")
KEYS = {"listed", "ok", "failed", "skipped", "reused", "seconds", "images_per_second", "out", "version"}


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    return some(photos, tmp_path / "source", 24)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def counts(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.out)
    return found


def plain(folder: Path) -> dict[str, tuple[object, ...]]:
    """What the rows of the images of a folder must be, by path, from a loop without cvjobs' machinery."""
    model = registry.embedder("thumbnail/4", weights="pretrained", layer="")
    network = model.load("cpu", "fp32")
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*.*"):
        content, name, stamp = path.read_bytes(), path.relative_to(folder).as_posix(), path.stat().st_mtime_ns
        try:
            decoded = decode(content, model.transform, 80_000_000)
        except Undecodable:
            continue
        vector = network(decoded.pixels[None])[0].tolist()
        key = (image_id(name.encode()), len(content), stamp, xxhash.xxh3_128_digest(content))
        found[name] = (*key, decoded.width, decoded.height, decoded.frames, vector)
    return found


def test_rows_are_those_of_a_plain_loop(photos: Path, out: Path) -> None:
    ended = embed(photos, out)
    assert ended.code == 0, ended
    assert ended.left == []
    assert "400 listed = 400 ok + 0 failed + 0 skipped, missing 0\n" in ended.out
    assert f"{out}/data" in ended.out
    table, there = rows(out), plain(photos)
    assert table["path"].to_pylist() == sorted(there)
    assert {row["path"]: tuple(row[name] for name in COMPARED) for row in table.to_pylist()} == there
    assert table.schema.field("embedding").type == pa.list_(pa.field("item", pa.float32()), 48)
    exact(out, photos, 400)


def test_json_is_one_object_and_nothing_else(source: Path, out: Path) -> None:
    (source / "notes.txt").write_text("no image")
    (source / "broken.jpg").write_text("no image either")
    found = counts(run("embed", source, "-o", out, "--model", "thumbnail/4", "--json"))
    assert found.keys() >= KEYS
    assert (found["listed"], found["ok"], found["failed"], found["skipped"], found["reused"]) == (26, 24, 1, 1, 0)
    assert found["out"] == str(out)
    assert found["images_per_second"] == 0.0, "24 images in less than a second are no rate"
    assert "importing" in found["phases"]
    assert round(sum(found["phases"].values()), 2) == found["seconds"]
    assert json.loads((out / "summary.json").read_text()) == found


def test_nothing_to_do_changes_nothing(source: Path, out: Path) -> None:
    first = counts(embed(source, out, "--json"))
    before = {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    second = counts(embed(source, out, "--json"))
    assert (second["reused"], second["computed"], second["version"]) == (24, 0, first["version"])
    assert {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()} == before


def test_limit_computes_so_many_deletes_nothing_and_the_next_run_does_the_rest(source: Path, out: Path) -> None:
    first = counts(embed(source, out, "--json", "--limit", 10))
    assert (first["listed"], first["ok"], first["remaining"], first["reused"]) == (24, 10, 14, 0)
    assert verify(out, source).code == 4
    changed = rows(out)["path"].to_pylist()[:3]
    for name in changed:
        os.utime(source / name, ns=(1, 1))
    second = counts(embed(source, out, "--json", "--limit", 1))
    assert (second["ok"] + second["remaining"], second["computed"]) == (24, 1)
    assert set(rows(out)["path"].to_pylist()) >= set(changed)
    third = counts(embed(source, out, "--json"))
    assert (third["ok"], third["remaining"], third["reused"], third["computed"]) == (24, 0, 8, 16)
    exact(out, source, 24)


def test_dry_run_predicts_and_writes_nothing(source: Path, out: Path) -> None:
    ended = embed(source, out, "--dry-run", "--json")
    assert ended.code == 0, ended
    found = counts(ended)
    assert (found["listed"], found["todo"], found["reused"]) == (24, 24, 0)
    assert found["seconds"] > 0
    assert found["images_per_second"] == 0.0, "24 images in less than a second are no rate"
    assert "img/s" not in embed(source, out, "--dry-run").out
    assert found["bytes"] > 0
    assert not out.exists()
    assert ended.left == []


def test_bad_images_are_rows_and_too_many_of_them_exit_3(source: Path, out: Path) -> None:
    (source / "text.jpg").write_text("no image")
    (source / "empty.png").touch()
    image = next(source.rglob("photo*.jpg"))
    (source / "half.jpg").write_bytes(image.read_bytes()[:-50])
    (source / "gone.jpg").symlink_to("nowhere")
    ended = embed(source, out)
    assert ended.code == 3, ended
    assert codes(out) == {"not_an_image": 1, "empty_file": 1, "truncated": 1, "list_vanished": 1}
    assert all(row["detail"] and row["attempts"] >= 1 for row in errors(out).to_pylist())
    assert "failed 1  truncated: the file ends too early: copy it again" in ended.out
    assert ended.out.endswith("\nexit code 3: 4 of 28 images failed, and --max-error-rate allows fewer\n")
    exact(out, source, 28)
    ended = embed(source, out, "--max-error-rate", 0.5)
    assert (ended.code, "exit code" in ended.out) == (0, False)


def test_failed_images_are_tried_again_only_when_asked_or_when_it_may_help(source: Path, out: Path) -> None:
    (source / "text.jpg").write_text("no image")
    os.utime(source / "text.jpg", ns=(1, 1))
    embed(source, out)
    assert counts(embed(source, out, "--json"))["computed"] == 0
    assert counts(embed(source, out, "--json", "--retry-failed"))["computed"] == 1
    exact(out, source, 25)


def test_the_project_file_supplies_source_and_output(
    source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cvjobs.yaml").write_text(f"embed:\n  source: {source}\n  out: {out}\n  model: thumbnail/4\n")
    ended = here("embed")
    assert ended.code == 0, ended
    exact(out, source, 24)


def test_the_function_does_what_the_command_does(source: Path, out: Path, tmp_path: Path) -> None:
    (source / "text.jpg").write_text("no image")
    summary = cvjobs.embed(str(source), str(tmp_path / "other"), model="thumbnail/4")
    command = counts(embed(source, out, "--json"))
    own = summary.as_dict()
    for name in ("listed", "ok", "failed", "skipped", "reused", "computed", "version", "failures", "exit_code"):
        assert own[name] == command[name], name
    assert rows(out).equals(rows(tmp_path / "other"))
    dataset = opened(out)
    assert len(dataset) == 24
    assert dataset.to_arrow(["path"]).sort_by("path").combine_chunks().equals(rows(out).select(["path"]))
    assert sorted(dataset.to_pandas(["path"])["path"]) == rows(out)["path"].to_pylist()
    assert dataset.errors()["code"].to_pylist() == ["not_an_image"]


def test_overwrite_computes_all_again_with_another_model(source: Path, out: Path) -> None:
    embed(source, out)
    found = counts(embed(source, out, "--overwrite", "--json", model="thumbnail/2"))
    assert (found["ok"], found["reused"], found["computed"]) == (24, 0, 24)
    assert rows(out).schema.field("embedding").type.list_size == 12
    exact(out, source, 24)


def test_a_week(photos: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for computed, reused, failed in week(photos, source):
        found = cvjobs.embed(str(source), str(out), model="thumbnail/4").as_dict()
        assert (found["computed"], found["reused"], found["failed"]) == (computed, reused, failed)
        table = rows(out)
        there = plain(source)
        assert table["path"].to_pylist() == sorted(there)
        assert [tuple(row[name] for name in COMPARED) for row in table.to_pylist()] == [there[p] for p in sorted(there)]
    cvjobs.embed(str(source), str(tmp_path / "fresh"), model="thumbnail/4")
    assert rows(out).equals(rows(tmp_path / "fresh"))
    assert verify(out, source).code == 0


def test_touched_images_are_not_computed_again_where_content_counts(source: Path, out: Path) -> None:
    embed(source, out)
    for image in source.rglob("*.jpg"):
        os.utime(image, ns=(10**18, 10**18))
    found = counts(embed(source, out, "--changed-by", "content", "--json"))
    assert (found["computed"], found["reused"]) == (0, 24)
    assert counts(embed(source, out, "--json"))["computed"] == 0
    exact(out, source, 24)


def test_a_list_carries_its_columns(source: Path, out: Path, tmp_path: Path) -> None:
    images = sorted(source.rglob("*.jpg"))
    table = tmp_path / "list.csv"
    table.write_text("path,sku\n" + "".join(f"{image},s{number}\n" for number, image in enumerate(images)))
    assert embed(table, out).code == 0
    found = dict(zip(rows(out)["path"].to_pylist(), rows(out)["sku"].to_pylist(), strict=True))
    assert found == {str(image): f"s{number}" for number, image in enumerate(images)}
    exact(out, table, 24)


def test_an_image_larger_than_allowed_is_a_row(source: Path, out: Path) -> None:
    Image.new("1", (400, 300)).save(source / "large.png")
    embed(source, out, "--max-pixels", 64 * 48)
    assert codes(out) == {"too_many_pixels": 1}


def test_an_animation_that_claims_two_billion_frames(source: Path, out: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "still.png")
    still = (tmp_path / "still.png").read_bytes()
    for count in (2**31 - 1, 2**31, 2**32 - 1):
        claim = b"acTL" + count.to_bytes(4, "big") + bytes(4)
        chunk = (8).to_bytes(4, "big") + claim + zlib.crc32(claim).to_bytes(4, "big")
        (source / f"{count}.png").write_bytes(still[:33] + chunk + still[33:])  # after the header
    assert embed(source, out).code == 0
    exact(out, source, 27)
    frames = dict(zip(rows(out)["path"].to_pylist(), rows(out)["frames"].to_pylist(), strict=True))
    assert max(frames.values()) == 2**31 - 1
    assert all(frames[f"{count}.png"] > 1 for count in (2**31 - 1, 2**31))


def test_a_date_that_64_bits_cannot_hold(source: Path, out: Path) -> None:
    image = next(source.rglob("*.jpg"))
    os.utime(image, (13_569_489_360, 13_569_489_360))  # the year 2400
    if image.stat().st_mtime_ns < 2**63:
        pytest.skip("this file system holds no date after 2262")
    assert embed(source, out).code == 0
    assert codes(out) == {}
    assert max(rows(out)["modified"].cast(pa.int64()).to_pylist()) == 2**63 - 1
    again = counts(embed(source, out, "--json"))
    assert (again["ok"], again["computed"]) == (24, 0)
    exact(out, source, 24)
