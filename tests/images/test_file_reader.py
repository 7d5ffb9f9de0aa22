"""Files that a decode child reads: in their order, each with its bytes or its failure, several at once where slow."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cvjobs.common.failures import Failure
from cvjobs.images import file_reader
from cvjobs.images.file_reader import File, FileReader
from cvjobs.sources.file_reading import read_file

MISSING = 7


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads that read."""
    found = set()

    def noted(name: bytes, size: int, modified: int) -> bytes:
        found.add(threading.current_thread().name)
        return read_file(name, size, modified)

    monkeypatch.setattr(file_reader, "read_file", noted)
    return found


def written(root: Path) -> list[File]:
    """Twenty files, of which one is gone."""
    files = []
    for number in range(20):
        file = root / f"{number}.jpg"
        file.write_bytes(b"image %d" % number)
        files.append((file.name, file.stat().st_size, file.stat().st_mtime_ns))
    (root / f"{MISSING}.jpg").unlink()
    return files


def check(reader: FileReader, files: list[File]) -> None:
    contents = reader.read(files)
    for number in range(len(files)):  # and no further, as a child does
        content = next(contents)
        if number == MISSING:
            assert isinstance(content, Failure)
            assert content.code == "read_vanished"
        else:
            assert content == b"image %d" % number


def test_files_that_come_at_once_are_read_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: set[str]
) -> None:
    monkeypatch.setattr(file_reader, "_SLOW", 60.0)
    files, reader = written(tmp_path), FileReader(str(tmp_path))
    check(reader, files)
    check(reader, files)
    assert readers == {threading.current_thread().name}


def test_files_that_are_slow_to_come_are_read_several_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: set[str]
) -> None:
    monkeypatch.setattr(file_reader, "_SLOW", 0.0)
    files, reader = written(tmp_path), FileReader(str(tmp_path))
    check(reader, files)
    assert len(readers) > 1  # also of the first chunk: a share that is dead takes seconds for each file
    readers.clear()
    check(reader, files)
    assert threading.current_thread().name not in readers


def test_files_that_were_slow_once_are_not_so_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: set[str]
) -> None:
    monkeypatch.setattr(file_reader, "_SLOW", 0.0)
    files, reader = written(tmp_path), FileReader(str(tmp_path))
    check(reader, files)
    monkeypatch.setattr(file_reader, "_SLOW", 60.0)
    kinds = []
    for _ in range(file_reader.AGAIN):
        readers.clear()
        check(reader, files)
        kinds.append(threading.current_thread().name in readers)
    assert kinds[:2] == [False, False]
    assert kinds[-2:] == [True, True]


def test_where_no_thread_can_be_started_files_are_read_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: set[str]
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(file_reader, "_SLOW", 0.0)
    monkeypatch.setattr(threading.Thread, "start", refused)
    files, reader = written(tmp_path), FileReader(str(tmp_path))
    check(reader, files)
    check(reader, files)
    assert readers == {threading.current_thread().name}
