"""How fast and how large `cvjobs detect` and `cvjobs segment` are beside torchvision in a plain two-thread loop.

python benchmarks/prediction.py [--images N] [--cache FOLDER]

The weights are made up, but so that they find much: batch norms know a few pictures, scores spread. Steady: images
per second from the first to the last result, of the command between two runs of the loop.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import photos
import pyarrow.dataset as pds
import torch
from PIL import Image
from processes import BENCHMARKS, Finished, job, script, two_cores
from safetensors.torch import save_file
from table import Row, noisy, show
from torchvision import models

MODELS = {"detect": "ssdlite320_mobilenet_v3_large", "segment": "lraspp_mobilenet_v3_large"}
CONF: dict[str, tuple[str, ...]] = {"detect": ("--conf", "0.05"), "segment": ()}
# Made-up weights see everything everywhere, trained ones do not. So the detector's background gets this on its logits:
# an image has then about a thousand boxes above 0.05. And the segmenter sees its background and three classes alone:
# in standard deviations of the logits, how much higher the background lies, and how much lower the other classes.
QUIET = 7.5
IN_SIGHT, GROUND, FAR = 4, 2.0, 5.0
SCORES = re.compile(r"head\.classification_head\.module_list\.\d\.1\.bias")
CLASSES = 91  # with the background
COLUMNS = {"detect": ("scores", "detections"), "segment": ("class_map", "class_map")}
FACTOR = 4
SEED = 1


def rows(images: int, cache: Path) -> list[Row]:
    """Measure speed, post-processing and memory at ``images`` (segment: half as many)."""
    found = []
    for task, count in (("detect", images), ("segment", images // 2)):
        found += _speed(task, photos.folder(count, cache), count, cache)
    return [*found, _memory(images, cache)]


def weights(task: str, cache: Path) -> Path:
    """Return the file of a model's made-up weights."""
    file = cache / f"{MODELS[task]}-{SEED}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(_detector() if task == "detect" else _segmenter(), file)
    return file


def _detector() -> dict[str, torch.Tensor]:
    sys.path.append(str(BENCHMARKS.parent / "tests"))
    from calibrated import state

    tensors = state(MODELS["detect"])
    for key in tensors:
        if SCORES.fullmatch(key):
            tensors[key].view(-1, CLASSES)[:, 0] += QUIET
    return tensors


def _segmenter() -> dict[str, torch.Tensor]:
    torch.manual_seed(SEED)
    model = models.get_model(MODELS["segment"], weights=None, weights_backbone=None)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    prepare = models.get_model_weights(MODELS["segment"]).DEFAULT.transforms()
    opened = (Image.open(io.BytesIO(photos.photo(number))).resize((512, 512)) for number in range(4))
    batch = torch.stack([prepare(image) for image in opened])
    with torch.no_grad():
        model.train()(batch)
        logits = model.eval()(batch)["out"]
        # One of the two biases; the other is that of finer features.
        bias = model.classifier.high_classifier.bias
        bias -= logits.mean((0, 2, 3))
        bias[0] += GROUND * logits.std()
        bias[IN_SIGHT:] -= FAR * logits.std()
    return dict(model.state_dict())


def _speed(task: str, source: Path, images: int, cache: Path) -> list[Row]:
    options: tuple[str | Path, ...] = ("--model", MODELS[task], "--weights", weights(task, cache), *CONF[task])
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        plain, out = Path(scratch, "plain.parquet"), Path(scratch, "out")
        before = script("plain_prediction.py", task, source, plain, *options)
        ours = job(task, source, out, *options)
        after = script("plain_prediction.py", task, source, plain, *options)
        same = _agreement(task, plain, out / "data")
        share = script("post.py", task, source, Path(scratch, "post"), *options)
    if same < 0.99:
        raise ValueError(
            f"{task}: only {same:.3f} of the results of the two sides agree, so their times do not compare."
        )
    what = f"{task} {MODELS[task]}, {images:,} images: "
    speeds = {name: float(run.answer["images_per_second"]) for name, run in _named(before, ours, after).items()}
    return [
        Row(
            what=what + "steady img/s ÷ plain loop",
            value=speeds["ours"] / mean((speeds["plain"], speeds["plain_after"])),
            unit="×",
            bound="≥",
            target=0.9,
            cpu=1000 * ours.cpu / images,
            noisy=noisy(speeds["plain"], speeds["plain_after"]),
            raw={
                name: {"images_per_second": round(speeds[name], 2), "whole_seconds": round(run.seconds, 2)}
                for name, run in _named(before, ours, after).items()
            },
        ),
        Row(
            what=what + "what follows the network ÷ the model's time",
            value=share.answer["post"],
            unit="×",
            bound="≤",
            target=0.1,
            raw={"samples": share.answer["samples"]},
        ),
    ]


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
            options: tuple[str | Path, ...] = (
                "--model",
                MODELS["detect"],
                "--weights",
                weights("detect", cache),
                *CONF["detect"],
            )
            runs[name] = job("detect", source, Path(scratch, "out"), *options, memory=True)
    few = max(runs["few"].pss, runs["few_after"].pss)
    return Row(
        what=f"detect {MODELS['detect']}, peak memory at {images:,} images ÷ at {images // FACTOR:,}",
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
