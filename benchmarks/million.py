"""How long a million known images take when there is nothing to do, and how long it takes to list them.

python benchmarks/million.py [--images N]

The images are empty files and their rows are made up, through the same functions that a run writes rows with; the
first command folds them into a snapshot, the second and third are measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import listing
import numpy as np
import pyarrow as pa
from processes import embed, two_cores
from table import Row, noisy, show

from cvjobs.common.fingerprint import digest
from cvjobs.config import commands
from cvjobs.dataset import parts
from cvjobs.dataset import schema as dataset_schema
from cvjobs.prediction.context import Resolved
from cvjobs.prediction.placement import Placement
from cvjobs.sources.listing import list_source
from cvjobs.storage.store import open_store

MODEL = "thumbnail/1"
ROWS_A_PART = 50_000


def rows(count: int) -> list[Row]:
    """Measure on a tree of ``count`` files, which is made and removed again."""
    with tempfile.TemporaryDirectory(prefix="cvjobs-million-") as scratch:
        source, out = Path(scratch, "images"), Path(scratch, "out")
        listing.make_tree(source, count)
        listed = listing.rows(source, count)
        make_known(source, out)
        folded = embed(source, out, "--model", MODEL, memory=True)
        first, second = (embed(source, out, "--model", MODEL, memory=True) for _ in range(2))
    assert all(run.answer["computed"] == 0 and run.answer["ok"] == count for run in (folded, first, second))
    what = f"nothing to do among {count:,} known images"
    raw = {
        "whole_seconds": [round(first.seconds, 2), round(second.seconds, 2)],
        "first_fold_seconds": round(folded.seconds, 2),
        "first_fold_pss_mib": round(folded.pss),
    }
    return [
        *listed,
        Row(
            what=what,
            value=max(first.seconds, second.seconds),
            unit="s",
            bound="≤",
            target=60,
            cpu=1000 * second.cpu / count,
            noisy=noisy(first.seconds, second.seconds),
            raw=raw,
        ),
        Row(
            what=f"{what}: peak memory of all processes",
            value=max(first.pss, second.pss),
            unit="MiB",
            bound="≤",
            target=2048,
        ),
    ]


def make_known(source: Path, out: Path) -> None:
    """Commit a row for every listed image, as a killed run of the same command would have left them."""
    listed = list_source(str(source))
    driver = commands.load("embed")
    job = driver.EmbedJob(driver.Config(source=str(source), out=str(out), model=MODEL))
    resolved: Resolved = job.resolve({}, Placement())
    run = dataset_schema.new_run(1)
    store = open_store(str(out), run)
    record = {"format": "cvjobs", "version": 1, "source": listed.source}
    store.create(dataset_schema.FORMAT, dataset_schema.pack(record))
    author = parts.Author(run=run, epoch=0, fingerprint=digest(resolved.facts), listed=listed.started_ns)
    schema = dataset_schema.result_schema(pa.schema([]), resolved.results)
    for start in range(0, listed.images.num_rows, ROWS_A_PART):
        keys = listed.images.slice(start, ROWS_A_PART)
        one = pa.array(np.ones(len(keys), np.int32))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(3 * len(keys), np.float32)), 3)
        columns = [*keys.columns, keys["image_id"], one, one, one, vectors]
        parts.commit(store, author, pa.table(columns, schema=schema), None)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000, help="how many files (default 1,000,000)")
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images)
    show(found)
    return found


if __name__ == "__main__":
    main()
