"""Whether the memory of `cvjobs embed` grows with the number of images: peaks of the whole process tree.

python benchmarks/memory.py [--images N] [--cache FOLDER]       (N, and a tenth of it)

Summed over the tree is PSS, which counts a page that processes share once; sampled five times a second.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import photos
from processes import Finished, embed, two_cores
from table import Row, noisy, show

FACTOR = 10


def rows(images: int, cache: Path) -> list[Row]:
    """Measure few, many, few; growth is the peak of many ÷ the higher peak of few."""
    few, many = photos.folder(images // FACTOR, cache), photos.folder(images, cache)
    before, large, after = (_run(source, cache) for source in (few, many, few))
    return [
        Row(
            what=f"thumbnail/8, peak memory at {images:,} images ÷ at {images // FACTOR:,}",
            value=large.pss / max(before.pss, after.pss),
            unit="×",
            bound="≤",
            target=1.1,
            cpu=1000 * large.cpu / images,
            noisy=noisy(before.pss, after.pss),
            raw={
                name: {"pss_mib": round(run.pss), "largest_process_rss_mib": round(run.largest)}
                for name, run in {"few": before, "many": large, "few_after": after}.items()
            },
        )
    ]


def _run(source: Path, cache: Path) -> Finished:
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        return embed(source, Path(scratch, "out"), "--model", "thumbnail/8", memory=True)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 10_000)
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.cache)
    show(found)
    for name, peaks in found[0].raw.items():
        print(f"{name}: {peaks['pss_mib']:,} MiB in all, {peaks['largest_process_rss_mib']:,} MiB the largest process")
    return found


if __name__ == "__main__":
    main()
