"""Embed, index and query together: real photos find themselves, a week stays right, recall is what was reported."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import assets
import numpy as np
import pyarrow as pa
import pytest
from commands import CLI, kill, run, some, started, until
from PIL import Image, ImageOps
from vectors import Fake, clustered, named

import cvjobs
from cvjobs.common.errors import JobFailed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> assets.Assets:
    here = assets.Assets(assets.FOLDER / "photos", assets.FOLDER / "torch")
    if not here.weights.is_file():
        if "CI" in os.environ:
            pytest.fail("run `make test`, which fetches the photos and weights")
        pytest.skip("no photos and weights here: run `make test`, which fetches them")
    return assets.fetch()


def nearest(index: Path, source: Path, k: int, **options: Any) -> dict[str, list[str]]:
    table: pa.Table = cvjobs.query(str(index), str(source), k=k, **options).to_arrow()
    found: dict[str, list[str]] = {}
    for query, path in zip(table["query"].to_pylist(), table["path"].to_pylist(), strict=True):
        found.setdefault(query, []).append(path)
    return found


def test_a_photos_crop_and_its_mirror_image_find_it(found: assets.Assets, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    asked.mkdir()
    for photo in sorted(found.photos.iterdir()):
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((640, 640))  # more than the model sees
        width, height = upright.size
        upright.crop((width // 10, height // 10, width - width // 10, height - height // 10)).save(
            asked / f"crop {photo.name}.png"
        )
        ImageOps.mirror(upright).save(asked / f"mirror {photo.name}.png")
    vectors, index = tmp_path / "vectors", tmp_path / "index"
    cvjobs.embed(str(found.photos), str(vectors), model="torchvision/mobilenet_v2", weights=str(found.weights))
    cvjobs.index(str(vectors), out=str(index))
    hits = nearest(index, asked, 2)
    assert len(hits) == 2 * (len(assets.FILES) - 1)
    missed = [name for name, paths in hits.items() if name.partition(" ")[2].removesuffix(".png") not in paths]
    assert len(missed) <= 0.05 * len(hits), missed


@pytest.mark.faults
def test_a_week(photos: Path, tmp_path: Path) -> None:
    source, vectors, index = some(photos, tmp_path / "source", 100), tmp_path / "vectors", tmp_path / "index"
    images = sorted(source.rglob("*.jpg"))
    spare = sorted(photos.rglob("*.jpg"))[100:]
    gone: set[str] = set()
    day = 0

    def night(added: int, changed: int, removed: int, kept: int, *, rebuilt: bool = False) -> None:
        nonlocal day
        day += 1
        cvjobs.embed(str(source), str(vectors), model="thumbnail/4", allow_deletions=True)
        report = cvjobs.index(str(vectors), out=str(index))
        assert (report.added, report.changed, report.removed, report.kept) == (added, changed, removed, kept)
        assert report.rebuilt == rebuilt
        cvjobs.index(str(vectors), out=str(tmp_path / f"fresh{day}"))
        everything = nearest(index, vectors, 5)
        assert everything == nearest(tmp_path / f"fresh{day}", vectors, 5)
        assert everything.keys() == {str(image.relative_to(source)) for image in source.rglob("*.jpg")}
        assert not gone & {path for paths in everything.values() for path in paths}

    def stamp(image: Path) -> None:
        os.utime(image, ns=(10**18 + day, 10**18 + day))

    night(100, 0, 0, 0, rebuilt=True)
    for image in spare[:5]:
        shutil.copy2(image, source / image.name)
    for image, other in zip(images[:4], spare[5:], strict=False):
        image.write_bytes(other.read_bytes())
        stamp(image)
    night(5, 4, 0, 96)
    for image in images[4:7]:
        image.unlink()
        gone.add(str(image.relative_to(source)))
    images[7].rename(source / "renamed.jpg")
    gone.add(str(images[7].relative_to(source)))
    for image in images[8:10]:
        stamp(image)  # touched: the content is the same
    night(1, 0, 4, 101)
    night(0, 0, 0, 102)
    shutil.copy2(photos / images[4].relative_to(source), images[4])
    gone.remove(str(images[4].relative_to(source)))
    night(1, 0, 0, 102)
    for image in spare[20:40]:
        shutil.copy2(image, source / image.name)
    night(123, 0, 0, 0, rebuilt=True)


def crops(photos: Path, folder: Path, count: int) -> None:
    """Write ``count`` small crops of every photo, none of them all black."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for photo in sorted(photos.iterdir()):
        with Image.open(photo) as image:
            small = image.convert("RGB").resize((160, 120))
        number = 0
        while number < count:
            side = int(random.integers(24, 120))
            left, top = int(random.integers(0, 160 - side)), int(random.integers(0, 120 - side + 1))
            crop = small.crop((left, top, left + side, top + side))
            if crop.getbbox() is not None:
                number += 1
                crop.resize((24, 24)).save(folder / f"{photo.stem}{number:03}.bmp")


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("exact", 60, marks=pytest.mark.faults(minutes=0.2)),
        ("ivf", 60),
        pytest.param("pq", 510, marks=pytest.mark.faults),
    ],
)
def test_recall_on_real_vectors_is_what_the_build_reports(
    found: assets.Assets, tmp_path: Path, kind: Any, count: int
) -> None:
    vectors, index = tmp_path / "vectors", tmp_path / "index"
    crops(found.photos, tmp_path / "crops", count)
    cvjobs.embed(str(tmp_path / "crops"), str(vectors), model="thumbnail/8")
    report = cvjobs.index(str(vectors), out=str(index), kind=kind, target_recall=0.85)
    assert report.kind == kind
    table = cvjobs.open(str(vectors)).to_arrow()
    paths = table["path"].to_pylist()
    stored = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    number = {path: i for i, path in enumerate(paths)}
    hits = 0
    for query, answer in nearest(index, vectors, 10, exclude_self=True).items():
        cosines = unit @ unit[number[query]]
        tenth = np.partition(cosines, -11)[-11]  # the query itself is the first of the eleven
        hits += sum(float(cosines[number[path]]) >= tenth - 1e-6 for path in answer)
    recall = hits / (10 * len(paths))
    # Measured on a part of the crops, which are of 22 photos alone: those of one photo are found or missed together.
    assert abs(recall - report.recall) <= (0.001 if kind == "exact" else 0.1)
    assert recall >= 0.82


def test_a_flipped_byte_of_the_index_answers_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 8)
    fake.put(named(clustered(700, 8)))
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"))
    (file,) = (tmp_path / "index").glob("g*/index.faiss")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(JobFailed, match="damaged"):
        cvjobs.query(str(tmp_path / "index"), str(fake.out))


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["g{:06}-*", "g{:06}-*/*.faiss", "g{:06}-*/*.parquet"])
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_killed_while_it_builds_and_updates(tmp_path: Path, kind: str, moment: str) -> None:
    fake, index = Fake(tmp_path / "vectors", 64), tmp_path / "index"
    collection = clustered(30_000, 64)
    fake.put(named(collection))
    words = ["index", str(fake.out), "-o", str(index), "--kind", kind]

    def killed(generation: int) -> None:
        with started([*CLI, *words]) as process:
            until(lambda: any(index.glob(moment.format(generation))) or process.poll() is not None)
            kill(process, signal.SIGKILL)

    killed(1)
    assert run(*words).code == 0
    asked = Fake(tmp_path / "asked", 64)
    asked.put(named(clustered(50, 64, seed=1), 10**5))
    before = nearest(index, asked.out, 3)
    fake.put(named(clustered(900, 64, seed=2), 50_000), gone=tuple(list(fake.vectors)[:300]))
    killed(2)
    survivor = cvjobs.index(str(index), info=True)
    after = nearest(index, asked.out, 3)
    assert survivor.generation == 2 or after == before
    ended = run(*words)
    assert ended.code == 0, ended
    final = cvjobs.index(str(index), info=True)
    assert (final.count, final.generation) == (30_600, 2)
    gone = {f"image{number:06}.jpg" for number in range(300)}
    assert not any(gone.intersection(paths) for paths in nearest(index, asked.out, 50).values())
    assert not list(index.rglob(".tmp-*"))
