"""What the vectors of an autoencoder know of classes that it never saw: their ten nearest neighbours vote.

All of it is commands: train on Fashion-MNIST without its labels, embed, index, query; beside raw pixels and an encoder
whose weights are random.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import fashion
import pyarrow.parquet as pq
from processes import CVJOBS, embed, run, threads, train
from table import Row

OPTIONS = ("--task", "autoencoder", "--dim", "128", "--img-size", "28")
# Too little for any weight to move; the norms' statistics, which every encoder needs, do follow the images.
STANDING = ("--epochs", "1", "--lr", "1e-12", "--weight-decay", "0")
FEW = 5000
NEIGHBOURS = 10


def rows(images: int | None, epochs: int, cache: Path) -> list[Row]:
    """Return the accuracy of the vote on the test images, and what the others come to; none without the images."""
    source, few = fashion.folder(cache, images), fashion.folder(cache, FEW)
    if source is None or few is None:
        return []
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        learned = train(source / "train", folder / "learned", *OPTIONS, "--epochs", str(epochs))
        train(few / "train", folder / "random", *OPTIONS, *STANDING)
        models = {"learned": folder / "learned", "random": folder / "random", "pixels": "thumbnail/28"}
        found = {name: _voted(source, str(model), folder / f"of-{name}") for name, model in models.items()}
    beside = f"raw pixels {found['pixels']:.3f}, a random encoder {found['random']:.3f}"
    return [
        Row(
            what=f"autoencoder on Fashion-MNIST, {epochs} epochs: 10 nearest neighbours of its vectors ({beside})",
            value=found["learned"],
            unit="top-1",
            bound="≥",
            target=0.80,
            raw={**found, "psnr": learned.answer["metric"], "seconds": round(learned.seconds, 1)},
        )
    ]


def _voted(source: Path, model: str, out: Path) -> float:
    """Return the share of test images whose class most of their nearest training images have."""
    for split in fashion.SPLITS:
        embed(source / split, out / split, "--model", model)
    run(*threads(), *CVJOBS, "index", out / "train", "-o", out / "index", "--kind", "exact", "--json")
    answers = out / "answers"
    run(*threads(), *CVJOBS, "query", out / "index", out / "test", "-k", str(NEIGHBOURS), "-o", answers, "--json")
    table = pq.read_table(answers / "data" / "neighbours.parquet", columns=["query", "path"])
    votes: dict[str, Counter[str]] = {}
    for query, path in zip(table["query"].to_pylist(), table["path"].to_pylist(), strict=True):
        votes.setdefault(query, Counter())[_class(path)] += 1  # of equal votes the nearer one's counts
    return sum(_class(query) == counts.most_common(1)[0][0] for query, counts in votes.items()) / len(votes)


def _class(path: str) -> str:
    return path.partition("/")[0]
