"""Records that someone made by hand, whole but without sense: a sentence, and nothing outside of the output changes."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import Run, Toy

from cvjobs.common.errors import CvjobsError, JobFailed
from cvjobs.dataset import parts, repair, schema, sealed, snapshot, typed, versions
from cvjobs.dataset.parts import File, Part
from cvjobs.dataset.snapshot import Snapshot

VALUES: list[Any] = [None, 1, -1, True, "x", "", [], {}, [1], {"a": 1}, 1e300, 2**70, "../x", "\0", [None], [{}], 0.5]
OUTSIDE = ["../victim.txt", "data/../../victim.txt", "/victim.txt", "data//x", "./data/x", "a\0b", ""]


@pytest.fixture
def six(tmp_path: Path) -> Toy:
    return toy.six(tmp_path)


def entry(name: str) -> dict[str, Any]:
    return {"name": name, "rows": 1, "bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize("name", [*OUTSIDE, None, 5, ["data/x"]])
def test_no_record_names_a_file_outside(name: Any) -> None:
    with pytest.raises(TypeError):
        File.load({**entry("data/x"), "name": name})


def test_a_snapshot_that_names_a_file_outside_deletes_nothing(six: Toy) -> None:
    six.run()
    victim = six.out.parent / "victim.txt"
    victim.write_text("mine")
    toy.forge(six.out, lambda record: record["errors"].append(entry("../victim.txt")))
    for call in (six.verify, six.run):
        with pytest.raises(CvjobsError, match="is damaged"):
            call()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("change", [{"results": entry("../victim.txt")}, {"name": "../../../victim"}])
def test_a_part_that_names_a_file_outside_deletes_nothing(six: Toy, change: dict[str, Any]) -> None:
    six.run()
    victims = [six.out.parent / name for name in ("victim.txt", "victim.json")]
    for victim in victims:
        victim.write_text("mine")
    name = "r000001-00000000-0000000000000000"
    part = Part(name=name, run=name[:16], epoch=9, fingerprint="f", listed=1, created=1, results=None, errors=None)
    record = {**vars(part), **change}
    six.store.write_bytes(f"{schema.PARTS}/{name}.json", sealed.pack(record))
    six.put("9.jpg", "new")
    six.run()
    six.check()
    assert [victim.read_text() for victim in victims] == ["mine", "mine"]


@pytest.mark.parametrize("copied", [False, True], ids=["the record", "its copy"])
def test_a_state_of_another_number_put_in_place_is_damage(six: Toy, copied: bool) -> None:
    six.run()
    old = (six.out / versions.name_of(1)).read_bytes()
    six.put("9.jpg", "new")
    six.run()
    rows = six.rows()
    name = (versions.copy_of if copied else versions.name_of)(2)
    (six.out / name).write_bytes(old)
    assert any(name in problem for problem in six.verify().problems)
    assert six.rows() == rows
    six.run()
    six.check()


def test_a_copy_that_is_not_the_record_s_is_named(six: Toy) -> None:
    six.run()
    other = Toy(six.source, six.out.parent / "other", facts={"model": "other"})
    other.run()
    shutil.copy(other.out / versions.copy_of(1), six.out / versions.copy_of(1))
    assert any(versions.copy_of(1) in problem for problem in six.verify().problems)
    six.run()
    six.check()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
@pytest.mark.parametrize("what", ["version", "copy", "format", "results", "config"])
def test_what_is_no_file_is_said_and_never_waited_for(six: Toy, make: Callable[[Path], None], what: str) -> None:
    made = six.run()
    (six.out / versions.name_of(1)).write_bytes(b"") if what == "copy" else None
    place = {
        "version": versions.name_of(1),
        "copy": versions.copy_of(1),
        "format": schema.FORMAT,
        "results": made.results[0].name,
        "config": f"{schema.RUNS}/{made.run}/config.json",
    }[what]
    (six.out / place).unlink()
    make(six.out / place)
    with pytest.raises(JobFailed, match="is no file: move it away"):
        raise_problems(six)


def raise_problems(made: Toy) -> None:
    problems = made.verify().problems
    raise JobFailed(" ".join(problems))


def test_names_with_other_digits_are_no_numbers(six: Toy) -> None:
    six.run()
    for name in (f"{schema.VERSIONS}/v².json", f"{schema.VERSIONS}/v٣.json", "data/part-r00000²-0.parquet"):
        (six.out / name).write_bytes(b"")
    six.put("9.jpg", "new")
    six.run()
    assert snapshot.latest(six.store).version == 2


def test_what_fits_into_a_field() -> None:
    assert typed.fits({"a": (1, None)}, dict[str, tuple[int | None, ...]])
    assert not typed.fits({"a": (1, "x")}, dict[str, tuple[int | None, ...]])
    assert not any(typed.fits(value, float) for value in (float("nan"), float("inf"), 10**400, True, "1"))
    assert not any(typed.fits(value, int) for value in (1.0, True, 2**63, None))
    with pytest.raises(TypeError):
        typed.made(Snapshot, {"version": "1"})


def places(record: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield (*way, key)
        yield from places(value, (*way, key))


@pytest.mark.faults
def test_records_whose_values_make_no_sense_end_in_a_sentence(six: Toy, tmp_path: Path) -> None:
    six.run()
    six.put("9.jpg", "new")
    six.run()
    for number in range(10, 14):
        six.put(f"{number}.jpg", f"image {number}")
    toy.killed(Run(six), 1)
    assert parts.committed(six.store)
    whole = shutil.copytree(six.out, tmp_path / "whole")
    choose = random.Random(0)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*.json")) if "lease" not in path.parts]
    for _ in range(int(os.environ.get("CVJOBS_TEST_FLIPS", "0")) or 150):
        file = choose.choice(files)
        record = json.loads((whole / file).read_bytes())
        record.pop(sealed.SEAL)
        changed = copy.deepcopy(record)
        *way, last = choose.choice(list(places(record)))
        inside = changed
        for key in way:
            inside = inside[key]
        inside[last] = choose.choice(VALUES)
        both = file.parent.name in ("versions", "copies")
        for folder in ("versions", "copies") if both else (file.parent.name,):
            (six.out / file.parent.parent / folder / file.name).write_bytes(sealed.pack(changed))
        for call in (six.verify, six.rows, six.run, lambda: repair.repair(six.store, lambda _: None), six.run):
            try:
                call()
            except CvjobsError:
                continue
        shutil.rmtree(six.out)
        shutil.copytree(whole, six.out)
