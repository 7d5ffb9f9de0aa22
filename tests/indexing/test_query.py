"""``cvjobs query`` from end to end: rows, the query itself, folders of answers, bad images, sentences, pages."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import made
from commands import CLI, Ended, aged, here, kill, parts, run, sentence, some, started, until
from page_parser import harmless
from PIL import Image
from vectors import Fake, clustered, exact, named

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.indexing.search.answers import Neighbours

pytestmark = pytest.mark.slow

COUNT = 60


@pytest.fixture(scope="module")
def collection(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` (60 of them), their ``vectors`` and the ``index`` of those."""
    root = tmp_path_factory.mktemp("collection")
    some(photos, root / "photos", COUNT)
    cvjobs.embed(str(root / "photos"), str(root / "vectors"), model="thumbnail/4")
    cvjobs.index(str(root / "vectors"), out=str(root / "index"))
    return root


def ask(collection: Path, source: object, **options: Any) -> Neighbours:
    answer: Neighbours = cvjobs.query(str(collection / "index"), str(source), **options)
    return answer


def query(collection: Path, *words: object) -> Ended:
    return here("query", collection / "index", *words)


def by_query(table: pa.Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["query"], []).append(row["path"])
        assert row["rank"] == len(found[row["query"]])
    return found


def spelt(line: str) -> list[str]:
    return line.split("\t")


# What comes out


@pytest.mark.parametrize("itself", [pytest.param(False, marks=pytest.mark.faults(minutes=0.2)), True])
def test_more_neighbours_than_there_are_images_is_all_of_them(collection: Path, itself: bool) -> None:
    found, every = (
        by_query(ask(collection, collection / "photos", k=k, exclude_self=itself).to_arrow())
        for k in (2**63 - 1, COUNT - itself)
    )
    assert found == every
    assert {len(paths) for paths in found.values()} == {COUNT - itself}
    assert query(collection, collection / "photos", "-k", "99999999999999999999").code == 2


def test_the_neighbours_of_embeddings_are_the_nearest_by_cosine(collection: Path) -> None:
    table = ask(collection, collection / "vectors", k=5).to_arrow()
    assert [(f.name, str(f.type)) for f in table.schema] == [
        ("query", "string"),
        ("rank", "int32"),
        ("path", "string"),
        ("score", "float"),
    ]
    stored = cvjobs.open(str(collection / "vectors")).to_arrow()
    paths = stored["path"].to_pylist()
    vectors = np.stack(stored["embedding"].to_numpy(zero_copy_only=False))
    cosines, nearest = exact(vectors, vectors, 5)
    expected = {paths[i]: [paths[j] for j in row] for i, row in enumerate(nearest)}
    assert by_query(table) == expected
    scores = {paths[i]: row for i, row in enumerate(cosines)}
    for row in table.to_pylist():
        assert abs(scores[row["query"]][row["rank"] - 1] - row["score"]) < 1e-5


def test_images_have_the_same_neighbours_as_their_embeddings(collection: Path) -> None:
    images, vectors = (ask(collection, collection / name, k=3).to_arrow() for name in ("photos", "vectors"))
    assert images.sort_by([("query", "ascending"), ("rank", "ascending")]).equals(
        vectors.sort_by([("query", "ascending"), ("rank", "ascending")])
    )


def test_one_image_prints_its_neighbours_as_tab_separated_lines(collection: Path) -> None:
    image = next((collection / "photos").rglob("*.jpg"))
    ended = query(collection, image, "-k", 3)
    assert (ended.code, ended.left) == (0, []), ended
    head, *lines = map(spelt, ended.out.splitlines())
    assert head == ["query", "rank", "path", "score"]
    assert [line[:2] for line in lines] == [[image.name, "1"], [image.name, "2"], [image.name, "3"]]
    assert lines[0][2:] == [str(image.relative_to(collection / "photos")), "1.0000"]
    assert "1 query, 3 neighbours among 60 images (exact, generation 1)" in ended.err


def test_json_is_one_object_with_the_rows_unless_a_folder_has_them(collection: Path, tmp_path: Path) -> None:
    found = json.loads(query(collection, collection / "vectors", "-k", 2, "--json").out)
    assert (found["queries"], found["neighbours"], found["failed"], found["out"]) == (COUNT, 2 * COUNT, 0, "")
    assert len(found["rows"]) == 2 * COUNT
    assert found["index"] == str(collection / "index")
    kept = json.loads(query(collection, collection / "vectors", "-k", 2, "--json", "-o", tmp_path / "out").out)
    assert "rows" not in kept
    assert json.loads((tmp_path / "out/summary.json").read_text()) == kept
    assert pq.read_table(tmp_path / "out/data/neighbours.parquet").to_pylist() == found["rows"]


def test_weak_neighbours_are_dropped_and_queries_without_any_counted(collection: Path) -> None:
    everything = ask(collection, collection / "vectors", k=COUNT).to_arrow()
    least = float(np.median(everything["score"].to_numpy()))
    answer = ask(collection, collection / "vectors", k=COUNT, min_score=least)
    scores = everything["score"].to_numpy()
    assert answer.to_arrow().equals(everything.filter(pa.array(scores >= np.float32(least))))
    apart = ask(collection, collection / "vectors", k=5, min_score=1.0, exclude_self=True)
    assert (apart.queries, apart.answered, apart.neighbours) == (COUNT, 0, 0)
    assert "no neighbour of at least 1 for 60 queries" in str(apart)


def test_many_neighbours_of_many_queries_come_out_in_blocks(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "vectors", 8)
    fake.put(named(clustered(3000, 8)))
    cvjobs.index(str(fake.out), out=str(tmp_path / "index"))
    answer = cvjobs.query(str(tmp_path / "index"), str(fake.out), k=2000)
    assert answer.neighbours == 3000 * 2000
    found = np.concatenate([batch["rank"].to_numpy() for batch in answer.batches()])
    assert np.array_equal(found, np.tile(np.arange(1, 2001), 3000))


# The query itself


def test_a_file_of_the_collection_is_left_out_however_it_is_named(collection: Path, tmp_path: Path) -> None:
    photos = collection / "photos"
    image = sorted(photos.rglob("*.jpg"))[0]
    own = str(image.relative_to(photos))
    plain = by_query(ask(collection, photos, k=4).to_arrow())[own]
    assert plain[0] == own
    listed = tmp_path / "list.txt"
    listed.write_text(f"{image}\n")
    for source in (photos, image.parent, image, listed, collection / "vectors"):
        found = by_query(ask(collection, source, k=3, exclude_self=True).to_arrow())
        (name,) = [name for name in found if name.endswith(image.name)]
        assert found[name] == plain[1:], source


def test_all_copies_are_left_out_of_an_image_from_elsewhere(photos: Path, tmp_path: Path) -> None:
    folder = some(photos, tmp_path / "photos", 20)
    image = sorted(folder.rglob("*.jpg"))[0]
    for number in range(30):
        shutil.copy2(image, folder / f"copy{number}.jpg")
    cvjobs.embed(str(folder), str(tmp_path / "vectors"), model="thumbnail/4")
    cvjobs.index(str(tmp_path / "vectors"), out=str(tmp_path / "index"))
    shutil.copy2(image, tmp_path / "elsewhere.jpg")
    found = by_query(ask(tmp_path, tmp_path / "elsewhere.jpg", k=5, exclude_self=True).to_arrow())["elsewhere.jpg"]
    assert len(found) == 5
    assert not [name for name in found if name.startswith("copy") or name.endswith(image.name)]
    # Of a file of the collection only the file itself is.
    own = by_query(ask(tmp_path, image, k=31, exclude_self=True).to_arrow())[image.name]
    assert sorted(own[:30]) == sorted(f"copy{number}.jpg" for number in range(30))


def test_fewer_are_left_than_asked_for(collection: Path) -> None:
    answer = ask(collection, collection / "vectors", k=1000, exclude_self=True)
    assert answer.neighbours == COUNT * (COUNT - 1)


# The folder of answers


def test_the_same_command_again_replaces_the_rows(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(collection, collection / "photos", k=3, out=str(out))
    schema = pq.read_schema(out / "data/neighbours.parquet")
    assert schema.metadata[b"cvjobs.index"] == str(collection / "index").encode()
    assert (schema.metadata[b"cvjobs.generation"], schema.metadata[b"cvjobs.k"]) == (b"1", b"3")
    assert schema.metadata[b"cvjobs.embeddings"] == f"{collection / 'vectors'} snapshot 1".encode()
    (embedded,) = (out / "_cvjobs/queries").iterdir()
    part = next((embedded / "data").iterdir())
    stamp = part.stat().st_mtime_ns
    (out / "data/.tmp-r000001-dead").touch()
    ask(collection, collection / "photos", k=1, out=str(out))
    assert part.stat().st_mtime_ns == stamp, "nothing is embedded twice"
    assert pq.read_table(out / "data").num_rows == COUNT
    image = next((collection / "photos").rglob("*.jpg"))
    ask(collection, image, k=2, out=str(out))
    assert pq.read_table(out / "data").num_rows == 2
    assert not embedded.exists()
    assert sorted(path.name for path in out.iterdir()) == ["_cvjobs", "data", "summary.json"]
    assert [path.name for path in (out / "data").iterdir()] == ["neighbours.parquet"]


@pytest.mark.faults(minutes=0.2)
def test_a_killed_command_continues(collection: Path, slow_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["query", str(collection / "index"), str(slow_photos), "-o", str(out), "-k", "1", "--json"]
    with started([*CLI, *words]) as process:
        until(lambda: any(map(parts, out.glob("_cvjobs/queries/*"))) or process.poll() is not None)
        kill(process, signal.SIGKILL)
    assert not (out / "data/neighbours.parquet").exists()
    (embedded,) = out.glob("_cvjobs/queries/*")
    kept = len(list((embedded / "data").iterdir()))
    assert kept
    ended = run(*words)
    assert ended.code == 0, ended
    assert json.loads(ended.out)["queries"] == 200
    summary = json.loads((embedded / "summary.json").read_text())
    assert summary["reused"] > 0
    assert summary["reused"] + summary["computed"] == 200


def test_nothing_is_left_behind_without_a_folder(collection: Path, tmp_path: Path) -> None:
    ended = run("query", collection / "index", collection / "photos", "--json", TMPDIR=str(tmp_path))
    assert ended.code == 0, ended
    assert list(tmp_path.iterdir()) == []


# Bad images


def test_bad_images_are_counted_and_named(collection: Path, photos: Path, tmp_path: Path) -> None:
    folder = some(photos, tmp_path / "queries", 8)
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()
    ended = here("query", collection / "index", folder, "-o", tmp_path / "out")
    assert ended.code == 3, ended
    assert "8 queries" in ended.out
    assert "failed 1  not_an_image: the content is no image: remove or replace the file (text.jpg)" in ended.out
    found = json.loads((tmp_path / "out/summary.json").read_text())
    assert (found["queries"], found["failed"]) == (8, 2)
    assert [(image["path"], image["code"]) for image in found["failed_images"]] == [
        ("empty.png", "empty_file"),
        ("text.jpg", "not_an_image"),
    ]
    assert here("query", collection / "index", folder, "--max-error-rate", 0.3).code == 0


def test_one_bad_image_is_a_sentence(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    told = sentence(query(collection, tmp_path / "text.jpg"), 1)
    assert "text.jpg" in told
    assert "not_an_image" in told


def test_names_cannot_touch_the_terminal_or_the_columns(collection: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"a\tb\n\x1b[31m.jpg", b"\xff.jpg"):
        Image.new("RGB", (8, 8), "red").save(os.fsencode(folder) + b"/" + name)
    ended = here("query", collection / "index", folder, "-k", 1)
    assert ended.code == 0, ended
    assert [spelt(line)[0] for line in ended.out.splitlines()[1:]] == [r"\xff.jpg", r"a\x09b\x0a\x1b[31m.jpg"]


# Pages


def test_the_page_shows_queries_and_neighbours_and_loads_nothing(photos: Path, tmp_path: Path) -> None:
    folder = some(photos, tmp_path / "photos", 12)
    odd = folder / "<script>alert(1)<b>\n.jpg"
    Image.new("RGB", (90, 30), "teal").save(odd)
    cvjobs.embed(str(folder), str(tmp_path / "vectors"), model="thumbnail/4")
    cvjobs.index(str(tmp_path / "vectors"), out=str(tmp_path / "index"))
    gone = sorted(folder.rglob("*.jpg"))[-1]
    gone.unlink()
    asked = tmp_path / "asked"
    asked.mkdir()
    shutil.copy2(odd, asked / odd.name)
    (asked / "broken.jpg").write_text("no image")
    page = tmp_path / "page.html"
    ask(tmp_path, asked, k=13, html=str(page))
    content = page.read_text()
    parsed = harmless(content)
    images = [dict(attributes) for tag, attributes in parsed.elements if tag == "img"]
    assert len(images) == 12, "the query and eleven of the first twelve neighbours"
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in images)
    text = " ".join(parsed.text)
    assert r"<script>alert(1)<b>\x0a.jpg" in text
    assert "<script>" not in content
    assert "read vanished" in text
    assert "not an image" in text
    assert "first 12 of 13 neighbours" in text


# Wrong use: one sentence


def test_a_folder_without_images(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "it is empty" in sentence(query(collection, tmp_path / "empty", "-o", tmp_path / "out"), 2)
    assert not (tmp_path / "out/data").exists()


def test_embeddings_of_another_model(collection: Path, tmp_path: Path) -> None:
    cvjobs.embed(str(collection / "photos"), str(tmp_path / "other"), model="thumbnail/2")
    with pytest.raises(WrongUse, match="model thumbnail/4 there, thumbnail/2 here"):
        ask(collection, tmp_path / "other")


def test_what_is_no_index(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    photo = next((collection / "photos").rglob("*.jpg"))
    with pytest.raises(WrongUse, match="holds no index"):
        cvjobs.query(str(tmp_path / "empty"), str(photo))
    with pytest.raises(WrongUse, match=r"There is no \S+/nothing: name the -o folder of `cvjobs index`"):
        cvjobs.query(str(tmp_path / "nothing"), str(photo))
    with pytest.raises(WrongUse, match="holds embeddings, no index"):
        cvjobs.query(str(collection / "vectors"), str(photo))
    with pytest.raises(WrongUse, match="holds an index, no images' results"):
        ask(collection, collection / "index")
    with pytest.raises(WrongUse, match=r"There is no .*/nowhere"):
        ask(collection, tmp_path / "nowhere")


def test_the_output_of_another_command(collection: Path) -> None:
    for name in ("vectors", "index"):
        with pytest.raises(WrongUse, match=r"holds (images' results|an index): choose another -o"):
            ask(collection, collection / "photos", out=str(collection / name))
    assert ask(collection, collection / "vectors").generation == 1


def test_an_answer_is_no_place_for_embeddings(collection: Path, tmp_path: Path) -> None:
    ask(collection, collection / "vectors", out=str(tmp_path / "out"))
    with pytest.raises(WrongUse, match="holds the answers of a query: choose another -o"):
        cvjobs.embed(str(collection / "photos"), str(tmp_path / "out"), model="thumbnail/4")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "SOURCE is missing"),
        ({"source": "photos", "duplicates": True}, "leave out SOURCE"),
        ({"duplicates": True, "k": 3}, "leave out -k"),
        ({"duplicates": True, "exclude_self": True}, "leave out --exclude-self"),
        ({"source": "photos", "k": 0}, "k must be a whole number at least 1"),
        ({"source": "photos", "min_score": 1.5}, "min_score must be"),
    ],
)
def test_options_that_make_no_sense(collection: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(WrongUse, match=told):
        cvjobs.query(str(collection / "index"), **options)


@pytest.mark.faults
def test_weights_that_are_gone_can_be_named(photos: Path, tmp_path: Path) -> None:
    import torch
    from torchvision.models import mobilenet_v3_small

    weights = tmp_path / "weights.pth"
    torch.save(mobilenet_v3_small().state_dict(), weights)
    folder = aged(some(photos, tmp_path / "photos", 4))
    model: dict[str, Any] = {"model": "torchvision/mobilenet_v3_small", "weights": str(weights)}
    cvjobs.embed(str(folder), str(tmp_path / "vectors"), **model)
    cvjobs.index(str(tmp_path / "vectors"), out=str(tmp_path / "index"))
    moved = weights.rename(tmp_path / "moved.pth")
    assert "There is no weights file" in sentence(run("query", tmp_path / "index", folder), 2)  # nothing is loaded yet
    assert ask(tmp_path, folder, k=1, weights=str(moved)).neighbours == 4
    torch.save(mobilenet_v3_small().state_dict(), weights)
    with pytest.raises(WrongUse, match="weights_sha256"):
        ask(tmp_path, folder, weights=str(weights))


# In a bucket


@pytest.mark.faults(minutes=0.2)
def test_everything_may_be_in_a_bucket(photos: Path, tmp_path: Path, s3: str) -> None:
    bucket = made(s3, "query")
    bucket.upload(some(photos, tmp_path / "photos", 12), "photos")
    option = [f"endpoint={bucket.endpoint}"]
    cvjobs.embed(bucket.url("photos"), bucket.url("vectors"), model="thumbnail/4", storage_option=option)
    cvjobs.index(bucket.url("vectors"), out=bucket.url("index"), storage_option=option)
    options: dict[str, Any] = {"k": 2, "exclude_self": True, "storage_option": option}
    asked = (bucket.url("photos"), bucket.url("out"), bucket.url("page.html"))
    answer = cvjobs.query(bucket.url("index"), asked[0], out=asked[1], html=asked[2], **options)
    found = by_query(answer.to_arrow())
    assert len(found) == 12
    assert not [query for query, paths in found.items() if query in paths]
    assert found == by_query(cvjobs.query(bucket.url("index"), bucket.url("vectors"), **options).to_arrow())
    page = harmless(bucket.read("page.html").decode())
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 36
    again = cvjobs.query(bucket.url("index"), duplicates=True, out=asked[1], storage_option=option)
    assert again.groups == 0
    assert bucket.keys("out/data") == ["out/data/duplicates.parquet"]


def test_one_query_has_no_rate_and_its_time_is_that_of_its_phases(collection: Path, tmp_path: Path) -> None:
    image = next((collection / "photos").rglob("*.jpg"))
    answer = ask(collection, image, out=str(tmp_path / "out"), html=str(tmp_path / "page.html"))
    assert (answer.queries, answer.queries_per_second) == (1, 0.0)
    assert "queries/s" not in str(answer)
    assert round(sum(answer.phases.values()), 2) == answer.seconds
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == json.loads(json.dumps(answer.as_dict()))
    copies = cvjobs.query(str(collection / "index"), duplicates=True, min_score=0.9)
    assert round(sum(copies.phases.values()), 2) == copies.seconds
