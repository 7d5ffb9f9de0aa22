"""``segment --masks-dir``: a folder of masks that says what the rows say, whatever their names, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import here, kill, sentence, started, until
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from predictions import output

from cvjobs.common import paths
from cvjobs.common.categories import Category
from cvjobs.common.errors import JobFailed, OutputHeld, WrongUse
from cvjobs.dataset import snapshot
from cvjobs.images.masks import png, rle
from cvjobs.prediction.side_folder import beside, manifest, mask_files, sync
from cvjobs.prediction.side_folder.naming import file_name
from cvjobs.prediction.summary import Summary
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

CLASSES = [Category(0, "__background__"), Category(1, "cat"), Category(300, "dog")]
STRANGE = [
    "a.jpg",
    "a.png",
    "sub/a.jpg",
    "sub/a.jpg.png/a.jpg",
    "<script>alert(1)</script>.png",
    "new\nline.jpg",
    "bad\\xff\\x5cbytes.jpg",
    "../../../up.jpg",
    "%2E./up.jpg",
    "50%.jpg",
    "/absolute/./twice//one.jpg",
    "absolute/twice/one.jpg",
    "s3://bucket/key.jpg",
    ".cvjobs-masks/manifest.parquet",
    "é" * 127 + ".jpg",
    "ü" * 200 + "/" + "ü" * 200 + ".jpg",
    "deep/" * 700 + "er.jpg",
]


def semantic(names: Iterable[str], seed: int = 0) -> list[dict[str, Any]]:
    """Rows with a class map each, of 8 and 16 bits in turn."""
    rows = []
    for number, path in enumerate(names):
        random = np.random.default_rng((seed, number))
        pixels: NDArray[Any] = random.integers(0, 2, (9, 12)).astype(np.uint8 if number % 2 else np.uint16)
        pixels[3] *= 300 if number % 2 == 0 else 1
        content = f"{seed}/{number}".encode()
        rows.append({"path": path, "width": 12, "height": 9, "class_map": png.encode(pixels), "content": content})
    return rows


def maps(place: Path, rows: Sequence[dict[str, Any]]) -> Path:
    return output(place, "semantic", CLASSES, rows)


def complete(out: Path, place: Path) -> int:
    """How many masks were written after a run on an output."""
    base = snapshot.latest(LocalStore(out))
    counts: dict[str, Any] = {"listed": base.wanted, "ok": base.ok, "failed": base.failed}
    done = Summary(
        **counts, skipped=0, remaining=0, reused=0, computed=0, seconds=0, images_per_second=0, out=str(out),
        version=base.version, exit_code=0,
    )  # fmt: skip
    return beside.complete(done, (place, None), (), 80_000_000).masks or 0


def files(place: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with what tells whether it was written."""
    found = (Path(root, name) for root, _, names in os.walk(place) for name in names)
    return {str(file.relative_to(place)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def pngs(place: Path) -> set[str]:
    return {name for name in files(place) if not name.startswith(manifest.MASKS.own)}


def values(file: Path) -> NDArray[Any]:
    with Image.open(file) as image:
        return np.asarray(image)


def same(place: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The folder has a mask for every row, and no other file but the manifest."""
    for row in rows:
        assert (place / file_name(row["path"], ".png")).read_bytes() == row["class_map"]
    assert pngs(place) == {file_name(row["path"], ".png") for row in rows}
    assert set(files(place)) - pngs(place) == {f"{manifest.MASKS.own}/{manifest.NAME}"}
    table = pq.read_table(place / manifest.MASKS.own / manifest.NAME)
    assert dict(zip(table["path"].to_pylist(), table["file"].to_pylist(), strict=True)) == {
        row["path"]: file_name(row["path"], ".png") for row in rows
    }
    assert table["bytes"].to_pylist() == [(place / file).stat().st_size for file in table["file"].to_pylist()]


SPECIAL = st.text("/.%~p\\\n2Fng", min_size=1, max_size=12).map(str.encode)


@given(st.lists(st.binary(min_size=1, max_size=40) | SPECIAL, unique=True, max_size=8))
@example([b"a", b"a.png", b"a.png/a", b"a/", b"a//", b"/a", b"./a", b"%2Fa", b"%2fa", b"..", b"."])
def test_a_name_stays_inside_and_can_be_undone(raw: list[bytes]) -> None:
    names = [file_name(paths.path_text(one), ".png") for one in raw]
    assert [unquote_to_bytes(name.removesuffix(".png")) for name in names] == raw
    for name in names:
        pieces = name.split("/")
        assert not any(piece in ("", ".", "..") or piece[0] == "." for piece in pieces)
        assert name.endswith(".png")
        assert not any(piece.endswith(".png") for piece in pieces[:-1])
        assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in name)


def test_class_maps_of_any_name_are_where_their_names_say(tmp_path: Path) -> None:
    rows = semantic(STRANGE)
    place = tmp_path / "deep" / "masks"
    assert complete(maps(tmp_path / "out", rows), place) == len(rows)
    same(place, rows)
    assert values(place / "a.jpg.png").max() == 300
    assert {entry.name for entry in tmp_path.iterdir()} == {"deep", "out"}
    assert max(len(piece.encode()) for name in pngs(place) for piece in name.split("/")) <= 255


@pytest.mark.parametrize("count", [0, 1, 255, 300])
def test_objects_are_numbered_from_1_the_best_on_top(count: int) -> None:
    random = np.random.default_rng(count)
    masks = np.zeros((count, 30, 40), bool)
    for mask in masks:
        (top, bottom), (left, right) = np.sort(random.integers(0, 30, 2)), np.sort(random.integers(0, 40, 2))
        mask[top : bottom + 1, left : right + 1] = random.random((bottom - top + 1, right - left + 1)) > 0.5
    found = mask_files.instance_map([rle.encode(mask, (0, 0), (30, 40)) for mask in masks], 30, 40)
    assert found.dtype == (np.uint8 if count <= 255 else np.uint16)
    expected = np.where(masks.any(0), masks.argmax(0) + 1, 0) if count else np.zeros((30, 40))
    assert np.array_equal(found, expected)


def test_a_folder_of_objects(tmp_path: Path) -> None:
    box = {"x0": 0, "y0": 0, "x1": 9, "y1": 9, "score": 0.5, "category_id": 1, "label": "cat"}
    one = [{**box, "rle": rle.encode(np.ones((3, 4), bool), (2, left), (20, 30))} for left in (5, 7)]
    about: dict[str, Any] = {"width": 30, "height": 20}
    rows: list[dict[str, Any]] = [
        {"path": "two.jpg", **about, "detections": one},
        {"path": "none.jpg", **about, "detections": []},
        {"path": "many.jpg", **about, "detections": one * 150},
        {"path": "bad.jpg", "error": "corrupt"},
    ]
    complete(output(tmp_path / "out", "instance", CLASSES, rows), tmp_path / "masks")
    assert pngs(tmp_path / "masks") == {"two.jpg.png", "none.jpg.png", "many.jpg.png"}
    two, many = values(tmp_path / "masks" / "two.jpg.png"), values(tmp_path / "masks" / "many.jpg.png")
    assert two[2:5, 4:12].tolist() == [[0, 1, 1, 1, 1, 2, 2, 0]] * 3
    assert two.dtype == np.uint8
    assert two.shape == (20, 30)
    assert not two[5:].any()
    assert np.array_equal(many, two)
    assert many.dtype != np.uint8
    assert not values(tmp_path / "masks" / "none.jpg.png").any()


def test_only_what_is_new_or_changed_is_written(tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "masks"
    rows = semantic([f"{n % 3}/{n}.jpg" for n in range(12)] + ["alone/x.jpg", "fails.jpg"])
    (place / "0").mkdir(parents=True)
    (place / "0" / "notes.png").write_text("mine")
    mine = files(place).keys()
    assert complete(maps(out, rows), place) == 14
    before = files(place)
    assert complete(out, place) == 0
    assert files(place) == before

    changed = semantic([rows[3]["path"], "new/new.jpg"], seed=1)
    rows = [*rows[:3], *rows[4:12], *changed]
    assert complete(maps(out, [*rows, {"path": "fails.jpg", "error": "corrupt"}]), place) == 2
    after = files(place)
    assert after.keys() - before.keys() == {"new/new.jpg.png"}
    assert before.keys() - after.keys() == {"alone/x.jpg.png", "fails.jpg.png"}
    assert not (place / "alone").exists()
    written = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert written == {file_name(changed[0]["path"], ".png"), f"{manifest.MASKS.own}/{manifest.NAME}"}
    assert mine < after.keys()
    (place / "0" / "notes.png").unlink()
    same(place, rows)

    (place / file_name(rows[0]["path"], ".png")).unlink()
    (place / file_name(rows[1]["path"], ".png")).write_bytes(b"\x89PNG")
    shutil.rmtree(place / "2")
    assert complete(out, place) == 2 + sum(row["path"].startswith("2/") for row in rows[2:])
    same(place, rows)
    output(out, "semantic", CLASSES, rows, facts={"imgsz": 640})
    assert complete(out, place) == len(rows)
    same(place, rows)


def test_no_images_are_no_masks(tmp_path: Path) -> None:
    rows = semantic(["a/a.jpg", "b.jpg"])
    complete(maps(tmp_path / "out", rows), tmp_path / "masks")
    maps(tmp_path / "out", [{"path": "b.jpg", "error": "corrupt"}])
    assert complete(tmp_path / "out", tmp_path / "masks") == 0
    same(tmp_path / "masks", [])
    assert os.listdir(tmp_path / "masks") == [manifest.MASKS.own]


@pytest.mark.faults(minutes=0.2)
def test_a_kill_is_repaired_and_forgets_no_file(tmp_path: Path) -> None:
    rows = semantic([f"{n // 100}/{n}.jpg" for n in range(4000)])
    out, place = maps(tmp_path / "out", rows), tmp_path / "masks"
    program = (
        f"import sys; sys.path.append({str(Path(__file__).parent)!r})\n"
        "import pathlib, test_masks_dir\n"
        "test_masks_dir.complete(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    with started([sys.executable, "-c", program, str(out), str(place)]) as process:
        until(lambda: (place / "3").exists() or process.poll() is not None)
        kill(process, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    left = pngs(place)
    assert 200 < len(left) < 4000
    (place / manifest.MASKS.own / "0123.tmp").touch()
    # The images of some files that the killed run wrote are gone by now.
    rows = [row for row in rows if row["path"].startswith(("0/1", "1/", "39/"))]
    assert complete(maps(out, rows), place) == len(rows)
    same(place, rows)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maps(tmp_path_factory.mktemp("maps") / "out", semantic(["a/b.jpg", "c.jpg"]))


def test_what_is_in_the_way_stays(out: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(WrongUse, match=f"^{tmp_path}/a is in the way of a mask: move it, or choose another "):
        complete(out, tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "a" / "b.jpg.png" / "deep").mkdir(parents=True)
    with pytest.raises(WrongUse, match=f"^{tmp_path}/a/b.jpg.png is in the way"):
        complete(out, tmp_path)
    shutil.rmtree(tmp_path / "a")
    assert complete(out, tmp_path) >= 1
    same(tmp_path, semantic(["a/b.jpg", "c.jpg"]))


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = semantic([f"{n}.jpg" for n in range(9)])
    for row in rows:
        row["class_map"] = png.encode(random.integers(0, 256, (300, 300), np.uint8))
    out, place = maps(tmp_path / "out", rows), small_disk / "masks"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - 400_000))
    with pytest.raises(JobFailed, match=f"^No space left in {place}: make room, then run the same command again"):
        complete(out, place)
    assert pngs(place)
    assert all(values(place / name).shape == (300, 300) for name in pngs(place))
    ballast.unlink()
    complete(out, place)
    same(place, rows)


def test_one_folder_is_of_one_output_and_one_run(out: Path, tmp_path: Path) -> None:
    complete(out, tmp_path / "masks")
    before = files(tmp_path / "masks")
    other = maps(tmp_path / "other", semantic(["d.jpg"]))
    with pytest.raises(WrongUse, match=f"holds the masks of {out}: choose another --masks-dir, or delete its"):
        complete(other, tmp_path / "masks")
    descriptor = os.open(tmp_path / "masks" / manifest.MASKS.own, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(OutputHeld, match="Another run writes masks to "):
        complete(out, tmp_path / "masks")
    os.close(descriptor)
    assert complete(out, tmp_path / "masks") == 0
    assert files(tmp_path / "masks") == before


@pytest.mark.parametrize("content", [b"", b"PAR1 is nothing", "cut", "other"])
def test_a_damaged_manifest_says_so(content: Any, out: Path, tmp_path: Path) -> None:
    complete(out, tmp_path)
    file = tmp_path / manifest.MASKS.own / manifest.NAME
    if content == "other":
        pq.write_table(pq.read_table(file).select(["path"]).replace_schema_metadata(), file)
    else:
        file.write_bytes(file.read_bytes()[:-9] if content == "cut" else content)
    with pytest.raises(JobFailed, match="is damaged: delete it, and the same command writes all masks again"):
        complete(out, tmp_path)
    file.unlink()
    assert complete(out, tmp_path) == 2


@pytest.mark.parametrize("name", ["../victim.png", "a/../../victim.png", "/victim.png"])
def test_a_manifest_that_names_a_file_outside_deletes_nothing(name: str, out: Path, tmp_path: Path) -> None:
    masks, victim = tmp_path / "masks", tmp_path / "victim.png"
    complete(out, masks)
    victim.write_text("mine")
    file = masks / manifest.MASKS.own / manifest.NAME
    table = pq.read_table(file)
    row = {"path": "x.jpg", "file": name if name[0] != "/" else str(victim), "made_from": bytes(16), "bytes": 4}
    metadata = table.schema.metadata
    rows = pa.Table.from_pylist([*table.to_pylist(), row], table.schema)
    pq.write_table(rows.replace_schema_metadata(metadata), file)
    with pytest.raises(JobFailed, match="is damaged: delete it"):
        complete(out, masks)
    assert victim.read_text() == "mine"


def test_a_folder_that_cannot_be_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    (tmp_path / "file").touch()
    for place, why in (
        ("", "is empty"),
        ("s3://bucket/masks", "is no folder of this machine"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "is a file"),
        (source, "would be images of"),
        (source / "masks" / "deep", "would be images of"),
        (out, "is for the output's own files"),
        (out / "data" / "masks", "is for the output's own files"),
    ):
        with pytest.raises(WrongUse, match=why) as caught:
            sync.check(manifest.MASKS, str(place), str(source), str(out))
        assert caught.value.exit_code == 2
    for fine in (source / "_masks", source / ".masks" / "deep", out / "masks", tmp_path / "new" / "deep"):
        assert sync.check(manifest.MASKS, str(fine), str(source), str(out)) == fine
    assert {entry.name for entry in tmp_path.iterdir()} == {"photos", "file"}


@pytest.mark.parametrize("aim", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_is_no_folder_of_masks(tmp_path: Path, aim: str) -> None:
    (tmp_path / "link").symlink_to(aim)
    for place in (f"{tmp_path}/link", f"{tmp_path}/link/below"):
        with pytest.raises(WrongUse, match=r"leads nowhere: make what it leads to, or choose another --masks-dir\.$"):
            sync.check(manifest.MASKS, place, str(tmp_path / "source"), str(tmp_path / "out"))


def test_the_command(tmp_path: Path) -> None:
    source, out, place = tmp_path / "photos", tmp_path / "out", tmp_path / "masks"
    (source / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "sub/b.jpg", "sub/c.jpg"):
        Image.fromarray(random.integers(0, 256, (33, 40, 3), np.uint8)).save(source / name)
    words = ["segment", source, "-o", out, "--model", "lraspp_mobilenet_v3_large", "--weights", "random"]
    words += ["--imgsz", 32, "--masks-dir", place]
    assert "is no folder" in sentence(here(*words[:-1], "s3://bucket/masks"), 2)
    assert not out.exists()
    ended = here(*words, "--limit", 2)
    assert ended.code == 0, ended
    assert f"{place}: 2 masks written" in ended.out
    (source / "sub" / "b.jpg").unlink()
    ended = here(*words, "--json", "--allow-deletions")
    assert ended.code == 0, ended
    summary = json.loads(ended.out)
    assert (summary["masks"], summary["masks_dir"], summary["computed"]) == (1, str(place), 1)
    assert pngs(place) == {"a.png.png", "sub/c.jpg.png"}
    shutil.rmtree(place)
    assert here(*words, "--dry-run").code == 0
    assert not place.exists()
    assert json.loads(here(*words, "--json").out)["masks"] == 2
    assert values(place / "a.png.png").shape == (33, 40)
