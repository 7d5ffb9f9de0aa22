"""The name of an output or a file as a user gives it: which store it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import as_nobody, opened

from cvjobs.common.errors import OutputHeld, WrongUse
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.store import file_at, open_store


def test_a_file_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("labels.csv", f"{tmp_path}/labels.csv", f"file://{tmp_path}/labels.csv"):
        store, name = file_at(given)
        assert (store.place, name) == (str(tmp_path), "labels.csv")
        assert isinstance(store, LocalStore)
    store, name = file_at("s3://bucket/exports/labels.csv")
    assert (store.place, name) == ("s3://bucket/exports", "labels.csv")
    assert isinstance(store, BucketStore)
    assert file_at("s3://bucket/labels.csv")[0].place == "s3://bucket"


@pytest.mark.parametrize("given", ["s3://bucket", "s3://bucket/", "s3://bucket/folder/", ".", "", "/", "file:///tmp"])
def test_a_folder_or_a_bucket_is_no_file(given: str) -> None:
    with pytest.raises(WrongUse, match="is a folder: name a file with -o"):
        file_at(given)


@pytest.mark.parametrize("given", ["ftp://host", "https://host/labels.csv", "s4://bucket"])
def test_a_scheme_that_is_no_stores_is_refused(given: str) -> None:
    with pytest.raises(WrongUse, match=r"Outputs on .* are not supported"):
        file_at(given)


def test_a_folder_that_cannot_be_entered_is_a_sentence(tmp_path: Path) -> None:
    closed = opened(tmp_path) / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        for call in (
            lambda: open_store(str(closed / "out")).names("."),
            lambda: open_store(str(closed / "out")).write_bytes("file", b""),
            lambda: file_at(str(closed / "labels.csv"))[0].write_bytes("labels.csv", b""),
        ):
            assert isinstance(as_nobody(call), WrongUse)
    finally:
        closed.chmod(0o755)


def test_a_guard_may_refuse_a_file_its_name(tmp_path: Path) -> None:
    def overtaken() -> None:
        raise OutputHeld("taken over")

    LocalStore(tmp_path).write_bytes("a", b"of the later run")
    with pytest.raises(OutputHeld):
        LocalStore(tmp_path, guard=overtaken).write_bytes("a", b"of the earlier one")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"of the later run")]
