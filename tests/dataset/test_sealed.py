"""Records that tell whether they are what was written, and the copy of each snapshot that counts where one is not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import toy
from toy import Toy

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed, snapshot, versions
from cvjobs.storage.local_store import LocalStore

RECORD = {"b": [1, 2.5, None, "ü\n"], "a": {"x": True}, "z": 2**63}


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


def test_a_sealed_record_is_what_was_written_or_nothing() -> None:
    content = sealed.pack(RECORD)
    assert sealed.unpack(content) == RECORD
    assert sealed.is_sealed(content)
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            found = sealed.unpack(bytes(flipped))
            # A flip in the name of the seal leaves the record as it was, and a name that no record has.
            assert found is None or {k: v for k, v in found.items() if k in RECORD} == RECORD
            assert found is None or set(found) != set(RECORD)
    assert [sealed.unpack(content[:end]) for end in range(len(content) - 1)] == [None] * (len(content) - 1)


def test_a_record_without_a_seal_is_read_as_it_is() -> None:
    assert sealed.unpack(json.dumps(RECORD).encode()) == RECORD
    assert [sealed.unpack(content) for content in (b"", b"[1]", b"\xff", b"[" * 100_000)] == [None] * 4


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
    "another number": lambda content: content.replace(b'"wanted": 6', b'"wanted": 7'),
    "gone": lambda _: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [versions.name_of(1), versions.copy_of(1)])
def test_of_two_copies_one_may_be_damaged(six: Toy, name: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = six.run()
    content = DAMAGES[damage]((six.out / name).read_bytes())
    (six.out / name).unlink() if content is None else (six.out / name).write_bytes(content)
    assert snapshot.latest(six.store) == whole
    said = capsys.readouterr().err
    assert (f"{name} is {'gone' if damage == 'gone' else 'damaged'}: its copy counts" in said) == ("versions" in name)
    six.put("0.jpg", "changed")
    assert six.run().version == 2
    six.check()


def test_the_next_run_writes_a_damaged_snapshot_anew(six: Toy) -> None:
    whole = six.run()
    for name in (versions.name_of(1), versions.copy_of(1)):
        content = (six.out / name).read_bytes()
        (six.out / name).write_bytes(b"")
        assert six.run() == whole
        assert (six.out / name).read_bytes() == content
    six.check()


def test_an_output_without_copies_gets_one(six: Toy) -> None:
    """Earlier versions wrote no copy and no seal: their record stays, and what is copied counts from then on."""
    whole = six.run()
    record = versions.newest(six.store)
    assert record is not None
    (six.out / versions.copy_of(1)).unlink()
    old = (json.dumps(record.record, indent=1, sort_keys=True) + "\n").encode()
    (six.out / versions.name_of(1)).write_bytes(old)
    assert six.run() == whole
    assert (six.out / versions.name_of(1)).read_bytes() == old
    (six.out / versions.name_of(1)).write_bytes(old.replace(b'"wanted": 6', b'"wanted": 7'))
    assert snapshot.latest(six.store) == whole


def test_a_first_snapshot_that_a_kill_cut_short_is_none(six: Toy) -> None:
    """Where the file system has no hard links; the parts that it was to be made of are there."""
    toy.killed(toy.Run(six), 2)
    path = six.out / versions.name_of(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'{\n "created": 17')
    assert six.run().version == 3
    six.check()


def test_a_snapshot_of_earlier_versions_that_is_cut_short_is_named(six: Toy) -> None:
    six.run()
    (six.out / versions.copy_of(1)).unlink()
    path = six.out / versions.name_of(1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(JobFailed, match=r"v00000001.json is damaged"):
        six.run()
    assert len(toy.plain(six.out)) == 5


def test_a_record_of_another_store_is_no_snapshot(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes(versions.name_of(1), sealed.pack({"neither": 1}))
    with pytest.raises(JobFailed, match=r"v00000001.json is damaged"):
        snapshot.latest(store)
