"""Single bits of an output's metadata flipped: each is named by verify or changes nothing, and none is a traceback."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import toy
from toy import Run, Toy

from cvjobs.common.errors import CvjobsError
from cvjobs.dataset import schema, snapshot, snapshot_reader
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.dataset.verify import verify
from cvjobs.storage.local_store import LocalStore


def footer(path: Path) -> int:
    """Return where the footer of a Parquet file begins."""
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def places(out: Path) -> list[tuple[Path, int, int]]:
    """Return the metadata of an output, each as a file, its first byte and its end."""
    own = [path for path in sorted((out / "_cvjobs").rglob("*")) if path.is_file() and schema.LEASE not in str(path)]
    rows = [path for folder in (schema.DATA, schema.ERRORS) for path in sorted((out / folder).iterdir())]
    return [(p, 0, p.stat().st_size) for p in own] + [(p, footer(p), p.stat().st_size) for p in rows]


def state(out: Path) -> tuple[Snapshot, pa.Table, pa.Table]:
    """Return what a reader sees."""
    opened = snapshot_reader.open_dataset(str(out))
    return opened.snapshot, opened.to_arrow(), opened.errors()


def flipped(made: Toy, rng: random.Random, count: int) -> dict[str, int]:
    """Flip single bits, one at a time, and count what became of each."""
    found = {"named by verify": 0, "refused by the reader": 0, "without a meaning": 0}
    whole, keep = state(made.out), made.out.with_name("keep")
    shutil.copytree(made.out, keep)
    spans = places(made.out)
    weights = [end - first for _, first, end in spans]
    for _ in range(count):
        ((path, first, end),) = rng.choices(spans, weights)
        content = bytearray(path.read_bytes())
        position, bit = rng.randrange(first, end), rng.randrange(8)
        content[position] ^= 1 << bit
        path.write_bytes(bytes(content))
        where = f"{path.relative_to(made.out)} byte {position} bit {bit}"
        try:
            report = verify(LocalStore(made.out), None)
            if report.problems:
                found["named by verify"] += 1
            else:
                assert report.exit_code == 0, where
                assert state(made.out) == whole, where
                found["without a meaning"] += 1
        except CvjobsError:
            found["refused by the reader"] += 1
        except Exception as error:
            raise AssertionError(where) from error
        try:
            made.run()
        except CvjobsError:
            pass
        except Exception as error:
            raise AssertionError(f"the next run: {where}") from error
        shutil.rmtree(made.out)
        shutil.copytree(keep, made.out)
    return found


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """An output of two nights, and a run that was killed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    made = toy.six(tmp_path)
    made.run()
    made.put("0.jpg", "changed")
    made.run()
    for i in range(10, 14):
        made.put(f"{i}.jpg", f"image {i}")
    toy.killed(Run(made), 1)
    return made


@pytest.mark.slow
def test_some_flipped_bits_are_named(output: Toy) -> None:
    found = flipped(output, random.Random(1), 40)
    assert found["named by verify"] > 28


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_named(output: Toy, seed: int) -> None:
    found = flipped(output, random.Random(seed), 500)
    print(found)
    assert found["named by verify"] + found["refused by the reader"] > 400


def test_the_places_are_all_the_metadata(output: Toy) -> None:
    names = {str(path.relative_to(output.out)) for path, _, _ in places(output.out)}
    folders = {name.rpartition("/")[0] for name in names}
    assert schema.FORMAT in names
    assert {schema.PARTS, schema.VERSIONS, schema.COPIES, schema.DATA, schema.ERRORS} <= folders
    assert snapshot.latest(output.store).version == 2
