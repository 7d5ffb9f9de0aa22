"""How fast and how large `cvjobs detect` and `cvjobs segment` are beside a plain two-thread loop.

The loop is torchvision's, or transformers' own processor and model with random weights.

python benchmarks/prediction.py [--images N] [--cache FOLDER]

Steady: images per second from the first to the last result, of the command between two runs of the loop.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import made_up_onnx
import numpy as np
import photos
import published_settings
import pyarrow.dataset as pds
from made_up import weights
from PIL import Image
from processes import Finished, job, script, two_cores
from table import Row, noisy, show

LIGHT = {"detect": "ssdlite320_mobilenet_v3_large", "segment": "lraspp_mobilenet_v3_large"}
CONF: dict[str, tuple[str, ...]] = {"detect": ("--conf", "0.05"), "segment": ()}
COLUMNS = {"detect": ("scores", "detections"), "segment": ("class_map", "class_map")}
FACTOR = 4
# The commands' own models on so few images: the network is by far the longest part.
USUAL = {"detect": "fasterrcnn_resnet50_fpn_v2", "segment": "deeplabv3_mobilenet_v3_large"}
FEW = 6
Words = tuple[str | Path, ...]
CROWDED = "maskrcnn_resnet50_fpn"
TRANSFORMERS = {"detect": ("d-fine-n", ("--conf", "0.13")), "segment": ("segformer-b0", ())}
HUNDRED = 100
MASKS, CROWDS, TWELVE_MEGAPIXELS = 300, 3, (4000, 3000)


def rows(images: int, cache: Path) -> list[Row]:
    """Measure speed, post-processing and memory at ``images`` (segment: half as many)."""
    found = []
    for task, count in (("detect", images), ("segment", images // 2)):
        source = photos.folder(count, cache)
        found += [_speed(task, source, count, cache), _share(task, LIGHT[task], source, count, cache)]
        found.append(_share(task, USUAL[task], photos.folder(FEW, cache), FEW, cache))
        found += _transformers(task, photos.folder(HUNDRED, cache), cache)
    return [*found, *onnx_rows(images, cache), _memory(images, cache), _crowd(cache)]


def _options(task: str, model: str, cache: Path) -> Words:
    return ("--model", model, "--weights", weights(model, cache), *CONF[task])


def _speed(task: str, source: Path, images: int, cache: Path) -> Row:
    options = _options(task, LIGHT[task], cache)
    runs = _runs("plain_prediction.py", task, source, cache, options, options)
    return _ratio(f"{task} {LIGHT[task]}, {images:,} images: steady img/s ÷ plain loop", 0.9, images, runs)


def _transformers(task: str, source: Path, cache: Path) -> list[Row]:
    """Return the rows of a model of transformers: images per second from the first to the last, and the whole."""
    name, words = TRANSFORMERS[task]
    folder = published_settings.saved(name, cache)
    runs = _runs(
        "plain_transformers.py", task, source, cache, ("--model", folder, *words), ("--model", f"hf/{folder}", *words)
    )
    what = f"{task} hf/{name} (random weights), {HUNDRED} images:"
    whole = mean((runs["plain"].seconds, runs["plain_after"].seconds)) / runs["ours"].seconds
    return [
        _ratio(f"{what} steady img/s ÷ plain loop of transformers", 1.0, HUNDRED, runs),
        Row(
            what=f"{what} whole command ÷ plain loop of transformers",
            value=whole,
            unit="×",
            bound="≥",
            target=1.0,
            noisy=noisy(runs["plain"].seconds, runs["plain_after"].seconds),
            raw={name: {"whole_seconds": round(run.seconds, 2)} for name, run in runs.items()},
        ),
    ]


def _runs(loop: str, task: str, source: Path, cache: Path, theirs: Words, options: Words) -> dict[str, Finished]:
    """Run the command between two runs of a loop; raises ValueError where their results differ."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        plain, out = Path(scratch, "plain.parquet"), Path(scratch, "out")
        before = script(loop, task, source, plain, *theirs)
        ours = job(task, source, out, *options)
        after = script(loop, task, source, plain, *theirs)
        same = _agreement(task, plain, out / "data")
    if same < 0.99:
        raise ValueError(
            f"{task}: only {same:.3f} of the results of the two sides agree, so their times do not compare."
        )
    return _named(before, ours, after)


def _ratio(what: str, target: float, images: int, runs: dict[str, Finished]) -> Row:
    speeds = {name: float(run.answer["images_per_second"]) for name, run in runs.items()}
    return Row(
        what=what,
        value=speeds["ours"] / mean((speeds["plain"], speeds["plain_after"])),
        unit="×",
        bound="≥",
        target=target,
        cpu=1000 * runs["ours"].cpu / images,
        noisy=noisy(speeds["plain"], speeds["plain_after"]),
        raw={
            name: {"images_per_second": round(speeds[name], 2), "whole_seconds": round(run.seconds, 2)}
            for name, run in runs.items()
        },
    )


def _share(task: str, model: str, source: Path, images: int, cache: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        run = script("post.py", task, source, Path(scratch, "out"), *_options(task, model, cache))
    return Row(
        what=f"{task} {model}, {images:,} images: what follows the network ÷ the model's time",
        value=run.answer["post"],
        unit="×",
        bound="≤",
        target=0.1,
        raw={"samples": run.answer["samples"]},
    )


def _named(before: Finished, ours: Finished, after: Finished) -> dict[str, Finished]:
    return {"plain": before, "ours": ours, "plain_after": after}


def _agreement(task: str, plain: Path, ours: Path) -> float:
    """Return how much the results of the two sides have in common: the number of boxes, or equal class maps."""
    theirs, own = (
        pds.dataset(place).to_table(["path", column]).sort_by("path")[column].to_pylist()
        for place, column in zip((plain, ours), COLUMNS[task], strict=True)
    )
    if task == "detect":
        counts = sum(map(len, theirs)), sum(map(len, own))
        return min(counts) / max(counts)
    return mean(_equal(one, other) for one, other in zip(theirs[::10], own[::10], strict=True))


def _equal(one: bytes, other: bytes) -> float:
    maps = [np.asarray(Image.open(io.BytesIO(content))) for content in (one, other)]
    return float((maps[0] == maps[1]).mean())


def _memory(images: int, cache: Path) -> Row:
    """Return the row of peaks: many ÷ the higher of few before and after."""
    runs = {}
    for name, count in (("few", images // FACTOR), ("many", images), ("few_after", images // FACTOR)):
        source = photos.folder(count, cache)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            options = _options("detect", LIGHT["detect"], cache)
            runs[name] = job("detect", source, Path(scratch, "out"), *options, memory=True)
    few = max(runs["few"].pss, runs["few_after"].pss)
    return Row(
        what=f"detect {LIGHT['detect']}, peak memory at {images:,} images ÷ at {images // FACTOR:,}",
        value=runs["many"].pss / few,
        unit="×",
        bound="≤",
        target=1.1,
        noisy=noisy(runs["few"].pss, runs["few_after"].pss),
        raw={
            name: {"pss_mib": round(run.pss), "largest_process_rss_mib": round(run.largest)}
            for name, run in runs.items()
        },
    )


def _crowd(cache: Path) -> Row:
    """Return the row of the peak memory of a model that finds 300 masks on each photo of 12 megapixels."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        source = Path(scratch, "source")
        source.mkdir()
        for number in range(CROWDS):
            photo = Image.open(io.BytesIO(photos.photo(number)))
            photo.resize(TWELVE_MEGAPIXELS).save(source / f"{number}.jpg")
        words = ("--max-det", str(MASKS), "--conf", "0")
        out = Path(scratch, "out")
        run = job("segment", source, out, *_options("segment", CROWDED, cache), *words, memory=True)
        found = [len(row) for row in pds.dataset(out / "data").to_table(["detections"])["detections"].to_pylist()]
    if found != [MASKS] * CROWDS:
        raise ValueError(f"segment: {found} masks, not {MASKS} an image.")
    return Row(
        what=f"segment {CROWDED}, {MASKS} masks on 12 megapixels: peak memory",
        value=run.pss,
        unit="MiB",
        bound="≤",
        target=3072,
        raw={"whole_seconds": round(run.seconds, 2), "images": CROWDS},
    )


def onnx_rows(images: int, cache: Path) -> list[Row]:
    """Measure models of ONNX files beside onnxruntime in a plain two-thread loop."""
    return [_onnx(task, photos.folder(images, cache), images, cache) for task in ("classify", "detect")]


def _onnx(task: str, source: Path, images: int, cache: Path) -> Row:
    model = made_up_onnx.file(task, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        plain, out = Path(scratch, "plain.parquet"), Path(scratch, "out")
        before = script("plain_onnx.py", task, source, plain, "--model", model)
        ours = job(task, source, out, "--model", f"onnx/{model}")
        after = script("plain_onnx.py", task, source, plain, "--model", model)
        sums = _sum(plain, "scores"), _sum(out / "data", "score" if task == "classify" else "detections")
    if not 0.99 < sums[0] / sums[1] < 1.01:
        raise ValueError(f"onnx {task}: the scores of the two sides sum to {sums}, so their times do not compare.")
    runs = _named(before, ours, after)
    speeds = {name: float(run.answer["images_per_second"]) for name, run in runs.items()}
    return Row(
        what=f"{task} onnx/ MobileNetV2, {images:,} images: steady img/s ÷ plain onnxruntime loop",
        value=speeds["ours"] / mean((speeds["plain"], speeds["plain_after"])),
        unit="×",
        bound="≥",
        target=0.95,
        cpu=1000 * ours.cpu / images,
        noisy=noisy(speeds["plain"], speeds["plain_after"]),
        raw={
            name: {"images_per_second": round(speeds[name], 2), "whole_seconds": round(run.seconds, 2)}
            for name, run in runs.items()
        },
    )


def _sum(place: Path, column: str) -> float:
    """Return the sum of all scores."""
    values = pds.dataset(place).to_table([column])[column].to_pylist()
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return float(sum(one["score"] if isinstance(one, dict) else one for one in flat))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    photos.add_options(parser, 400)
    options = parser.parse_args(arguments)
    two_cores()
    found = rows(options.images, options.cache)
    show(found)
    return found


if __name__ == "__main__":
    main()
