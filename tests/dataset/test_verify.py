"""What verify finds in an output, what it counts, and that the next run mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from toy import Toy

from cvjobs.common.errors import WrongUse
from cvjobs.dataset import run_files, schema, versions


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


def problem(made: Toy, code: int) -> str:
    report = made.verify()
    assert report.exit_code == code
    assert len(report.problems) >= 1
    return "\n".join(report.problems)


def test_verify_finds_a_flipped_byte(six: Toy) -> None:
    path = six.out / six.run().results[0].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    report = six.verify()
    assert report.exit_code in (1, 4)  # 4 where the flipped bit makes keys unreadable
    assert f"data/{path.name} is damaged" in report.problems[0]


def test_verify_finds_a_missing_file(six: Toy) -> None:
    path = six.out / six.run().errors[0].name
    path.unlink()
    assert f"errors/{path.name} is gone" in problem(six, 4)
    six.run()
    six.check()


def test_verify_finds_a_stray_file_and_the_next_run_removes_it(six: Toy) -> None:
    six.run()
    stray = six.out / "data" / "part-r000001-aaaaaaaa-bb.parquet"
    stray.write_bytes(b"")
    assert f"data/{stray.name} is part of no snapshot: run the same command again" in problem(six, 1)
    (six.out / "data" / "mine.txt").write_text("")
    assert "data/mine.txt is part of no snapshot: delete it" in problem(six, 1)
    (six.out / "data" / "mine.txt").unlink()
    six.run()
    six.check()


def test_verify_finds_a_duplicate_row_and_the_next_run_removes_it(six: Toy) -> None:
    path = six.out / six.run().results[0].name
    table = pq.read_table(path)
    rewrite(six, pq_bytes(table.take([0, 0, 1, 2, 3, 4])), rows=6)
    assert "1 image has more than one row" in problem(six, 1)
    report = six.verify(against_source=False)
    assert (report.exit_code, report.duplicates, report.missing, report.remaining) == (1, 1, 0, 0)
    six.run()
    six.check()


@pytest.mark.parametrize("damage", ["gone", "cut short", "another one"])
def test_verify_finds_a_lost_listing_and_the_next_run_writes_it_anew(six: Toy, damage: str) -> None:
    before = six.run()
    path = six.out / schema.RUNS / before.run / schema.LISTING
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:100])
    if damage == "another one":
        pq.write_table(pq.read_table(path).slice(1), path)
    if damage == "gone":
        path.unlink()
    report = six.verify(against_source=False)
    assert (report.exit_code, report.listed, report.missing, report.remaining) == (1, 6, 0, 0)
    assert path.name in report.problems[0]
    assert six.verify().exit_code == 0
    path.unlink(missing_ok=True)
    after = six.run()
    assert (after.results, after.errors) == (before.results, before.errors)
    assert six.verify(against_source=False).exit_code == 0
    six.check()


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_verify_says_of_each_record_whether_it_is_damaged_or_gone(six: Toy, how: str) -> None:
    made = six.run()
    for name in (versions.name_of(made.version), schema.FORMAT, run_files.config_name(made.run)):
        whole = (six.out / name).read_bytes()
        (six.out / name).write_bytes(b"") if how == "damaged" else (six.out / name).unlink()
        assert f"{name} is {how}: the same command" in problem(six, 1)
        (six.out / name).write_bytes(whole)
    (six.out / versions.copy_of(made.version)).write_bytes(b"")
    assert f"{versions.copy_of(made.version)} is damaged: the same command" in problem(six, 1)


def test_verify_finds_a_missing_and_a_strange_row(six: Toy) -> None:
    path = six.out / six.run().results[0].name
    table = pq.read_table(path)
    rewrite(six, pq_bytes(table.take([0, 1, 2, 3])), rows=4)
    assert six.verify(against_source=False).remaining == 1
    assert "1 image has no row" in problem(six, 4)
    (six.source / table["path"][0].as_py()).unlink()
    assert "1 row belongs to no image of the source" in problem(six, 4)
    assert " listed, " in str(six.verify()), "a sum that is none has no ="


def pq_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rewrite(made: Toy, content: bytes, rows: int) -> None:
    """Put other rows in place of the only result file, with a snapshot that believes in them."""

    def change(record: dict[str, Any]) -> None:
        file = record["results"][0]
        (made.out / file["name"]).write_bytes(content)
        file.update(rows=rows, bytes=len(content), sha256=toy.sha256(content))

    toy.forge(made.out, change)


def test_verify_wants_an_output_and_the_right_source(six: Toy, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"There is no .*: name the -o folder of a run"):
        six.verify()
    six.run()
    elsewhere = Toy(tmp_path / "elsewhere", six.out)
    elsewhere.put("0.jpg", "x")
    with pytest.raises(WrongUse, match="holds the results of"):
        elsewhere.verify()
