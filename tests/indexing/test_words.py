"""Words instead of images in a query."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvjobs.indexing.search.embed_queries import is_words


@pytest.mark.parametrize(
    ("source", "words"),
    [("a photo of a cat", True), ("cat", True), ("cat.png", False), ("cats/black", False), ("cats*", False)],
)
def test_words_are_told_from_names(source: str, words: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_words(source) == words
    (tmp_path / "cat").mkdir()
    assert not is_words("cat")
