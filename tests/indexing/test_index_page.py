"""The page of an index: what the index holds, images with their neighbours, and no page at any price."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import aged, here, some
from page_parser import Page, harmless
from vectors import Fake, clustered, named

import cvjobs
from cvjobs.dataset import schema

EVIL = "<img src=x onerror=alert(1)>.jpg"


def page(out: Path) -> Page:
    return harmless((out / schema.REPORT).read_text())


@pytest.mark.slow
def test_the_page_shows_images_with_their_neighbours(photos: Path, tmp_path: Path) -> None:
    source, vectors, out = some(photos, tmp_path / "photos", 12), tmp_path / "vectors", tmp_path / "index"
    next(source.rglob("*.jpg")).rename(source / EVIL)
    aged(source)
    cvjobs.embed(str(source), str(vectors), model="thumbnail/4")
    cvjobs.index(str(vectors), out=str(out))
    shown = page(out)
    assert "12 vectors of 48 numbers, exact; recall@10 1.000" in shown.text
    assert {"12", "added", "generation 1", "Neighbours", "Generations", str(source)} <= set(shown.text)
    assert sum(tag == "img" for tag, _ in shown.elements) == 6 * 8
    assert EVIL in shown.text
    before = (out / schema.REPORT).stat().st_mtime_ns
    cvjobs.index(str(vectors), out=str(out))
    assert (out / schema.REPORT).stat().st_mtime_ns == before


def test_images_that_are_gone_cost_the_page_its_pictures_alone(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", 16), tmp_path / "index"
    fake.put(named(clustered(50, 16)))
    done = here("index", fake.out, "-o", out)
    assert (done.code, done.err) == (0, "")
    shown = page(out)
    assert "50 vectors of 16 numbers, exact; recall@10 1.000" in shown.text
    assert "Neighbours" not in shown.text


def test_a_page_that_cannot_be_written_costs_the_index_one_line(tmp_path: Path) -> None:
    fake, out = Fake(tmp_path / "vectors", 16), tmp_path / "index"
    fake.put(named(clustered(50, 16)))
    assert here("index", fake.out, "-o", out).code == 0
    (out / schema.REPORT).unlink()
    (out / schema.REPORT / "in the way").mkdir(parents=True)
    done = here("index", fake.out, "-o", out, "--rebuild")
    assert done.code == 0
    assert done.err.startswith("cvjobs: this index has no report.html (")
    assert len(done.err.splitlines()) == 1
