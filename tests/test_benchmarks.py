"""Benchmarks that write outputs by themselves: a run takes what they write for its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import cvjobs


def test_the_rows_of_known_images_leave_a_run_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import listing
    import million

    source, out = tmp_path / "images", tmp_path / "out"
    listing.make_tree(source, 30)
    million.make_known(source, out)
    done = cvjobs.embed(source, out, model=million.MODEL)
    assert (done.ok, done.computed) == (30, 0)
