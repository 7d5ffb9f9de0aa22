"""``--truncated use``: what can be read of a picture that is cut short is a marked result; else nothing changes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import codes, embed, errors, exact, here, rows, sentence
from PIL import Image

from cvjobs.dataset import snapshot
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow


def noisy(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 99, (160, 200, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a camera trap: two that are whole, one that is cut, one without its end mark, one that is damaged."""
    folder = tmp_path_factory.mktemp("camera")
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(noisy(ord(name)))
    (folder / "cut.jpg").write_bytes(noisy(0)[: len(noisy(0)) // 2])
    (folder / "whole.jpg").write_bytes(noisy(1)[:-2])
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDRdamaged as can be" + bytes(99))
    return folder


def test_a_cut_picture_is_a_marked_result(camera: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = embed(camera, out, "--truncated", "use", "--max-error-rate", "1")
    assert ended.code == 0, ended
    table = rows(out)
    assert table.column_names[-1] == "truncated"
    assert table.schema.field("truncated").type == pa.bool_()
    marked = dict(zip(table["path"].to_pylist(), table["truncated"].to_pylist(), strict=True))
    assert marked == {"a.jpg": False, "b.jpg": False, "cut.jpg": True, "whole.jpg": False}
    assert errors(out)["path"].to_pylist() == ["damaged.png"]
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).reshape(-1, 4, 4, 3)
    assert np.abs(vectors[2, :1] - vectors[0, :1]).max() < 0.2  # a photo above
    assert np.abs(vectors[2, 3] - 128 / 255).max() < 0.01  # and gray below
    exact(out, camera, 5)
    assert json.loads(embed(camera, out, "--truncated", "use", "--max-error-rate", "1", "--json").out)["reused"] == 4
    assert here("export", out, "--format", "jsonl", "-o", tmp_path / "out.jsonl").code == 0
    assert (tmp_path / "out.jsonl").read_text().count('"truncated": true') == 1


def test_without_the_option_nothing_is_different(camera: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert embed(camera, out, "--max-error-rate", "1").code == 0
    assert "truncated" not in rows(out).column_names
    assert codes(out) == {"truncated": 1, "corrupt": 1}
    made = snapshot.latest(LocalStore(out))
    assert "truncated" not in json.dumps([made.facts, made.resolved])
    refused = sentence(embed(camera, out, "--truncated", "use"), 2)
    assert "truncated" in refused
    assert embed(camera, out, "--truncated", "use", "--overwrite", "--max-error-rate", "1").code == 0
    assert codes(out) == {"corrupt": 1}
    assert "truncated" in rows(out).column_names


def test_a_column_of_the_same_name_is_carried_beside_it(camera: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.parquet"
    names = ["a.jpg", "cut.jpg"]
    pq.write_table(pa.table({"path": [str(camera / name) for name in names], "truncated": ["x", "y"]}), listed)
    plain, used = tmp_path / "plain", tmp_path / "used"
    embed(listed, plain, "--max-error-rate", "1")
    assert rows(plain)["truncated"].to_pylist() == ["x"]
    embed(listed, used, "--truncated", "use")
    assert rows(used)["source_truncated"].to_pylist() == ["x", "y"]
    assert rows(used)["truncated"].to_pylist() == [False, True]


def test_queries_of_an_index_are_decoded_as_its_images_were(camera: Path, tmp_path: Path) -> None:
    out, index = tmp_path / "out", tmp_path / "index"
    embed(camera, out, "--truncated", "use", "--max-error-rate", "1")
    assert here("index", out, "-o", index).code == 0
    ended = here("query", index, camera / "cut.jpg", "-k", 1, "--json")
    assert ended.code == 0, ended
    assert "cut.jpg" in ended.out
