"""What a check of a folder says that holds no images' results."""

from __future__ import annotations

from cvjobs.dataset.folder_report import FolderReport


def test_one_is_singular_and_none_is_not_named() -> None:
    checked = {"records": 2, "models": 1, "checkpoints": 0, "chunks of images": 1, "folders of queries": 0}
    report = FolderReport(place="run", holds="a training run", checked=checked)
    assert str(report) == "a training run: 2 records, 1 model, 1 chunk of images checked\nrun is exact"
    many = FolderReport(place="i", holds="an index", checked={"generations": 1, "files": 1_200, "queries": 1})
    assert str(many).startswith("an index: 1 generation, 1,200 files")
    assert str(FolderReport(place="n", holds="nights", checked={"nights": 0})).startswith("nights: nothing checked")
