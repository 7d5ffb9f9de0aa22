"""Files of class names: read as written, refused with the line at fault; and the names that fit a head."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvjobs.common.errors import WrongUse
from cvjobs.networks import class_names


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ["cat", "dog"]),
        (b"\xef\xbb\xbfcat\r\ndog\r\n\r\n", ["cat", "dog"]),
        ("  crème brûlée \n<b>,\"'\n=1+1".encode(), ["crème brûlée", "<b>,\"'", "=1+1"]),
        ("a\u2028b\nc\x0bd".encode(), ["a\u2028b", "c\x0bd"]),
    ],
)
def test_a_name_is_a_line(tmp_path: Path, content: bytes, names: list[str]) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert class_names.read(str(tmp_path / "labels.txt")) == names


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"/dev/zero is larger than 64 MiB: write one class name a line\."):
        class_names.read("/dev/zero")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Line 1 .* is empty"),
        (b"\n\n", "Line 1 .* is empty"),
        (b"cat\n \ndog\n", "Line 2 .* is empty"),
        (b"cat\ndog\ncat \n", "'cat' in the lines 1 and 3"),
        (b"\xff\xfe\x00c", "is no UTF-8 text"),
    ],
)
def test_a_file_that_names_no_classes_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(WrongUse, match=sentence):
        class_names.read(str(tmp_path / "labels.txt"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(WrongUse, match="Cannot read the labels file"):
            class_names.read(str(path))


def test_names_fit_the_head_or_are_refused() -> None:
    assert class_names.for_head(2, [], ["cat", "dog"], "toy") == ["cat", "dog"]
    assert class_names.for_head(2, ["a", "b"], ["cat", "dog"], "toy") == ["a", "b"]
    assert class_names.for_head(1, ["a"], ["cat", "dog"], "toy") == ["a"]
    with pytest.raises(WrongUse, match=r"have 3 classes .* --labels FILE"):
        class_names.for_head(3, [], ["cat", "dog"], "toy")
    with pytest.raises(WrongUse, match="--labels has 1 name and the weights of toy have 2 classes"):
        class_names.for_head(2, ["a"], ["cat", "dog"], "toy")
