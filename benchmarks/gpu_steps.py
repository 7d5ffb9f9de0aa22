"""The steps of the GPU's benchmark: each yields its rows, ours beside a plain baseline of the same run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as pds
from gpu_bench import Bench, Training
from nvml_meter import Use
from processes import BENCHMARKS
from table import Row

ROOT = BENCHMARKS.parent
RESNET = "torchvision/resnet50"
VIT_LARGE = "timm/vit_large_patch16_224"
RANDOM = ("--model", RESNET, "--weights", "random")
# After the start: what a training does with the model.
LEARNING = ("the first step", "training", "validating", "saving")
MEMORY = {"detect": 8e9 / 2**20}  # MiB at most of the GPU's memory
FOUND = {"detect": ("fasterrcnn_resnet50_fpn", 90), "segment": ("deeplabv3_resnet50", 20)}


class LeftOut(Exception):
    """A step for which something is not installed; its text says what."""


def tests(bench: Bench) -> Iterator[Row]:
    """Run the tests that need CUDA, without the helpers of those that do not."""
    if importlib.util.find_spec("pytest") is None:
        raise LeftOut("pytest is not installed")
    files = [path for path in sorted(ROOT.glob("tests/*/test_*.py")) if "cuda.is_available" in path.read_text()]
    settings = bench.folder / "pytest.ini"
    settings.write_text("[pytest]\n")
    words = [
        "-c",
        str(settings),
        f"--rootdir={ROOT}",
        "--noconftest",
        "--import-mode=importlib",
        "-q",
        "-k",
        "cuda or gpu",
    ]
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "demo"), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, *map(str, files)],
        env={**os.environ, "PYTHONPATH": places},
        cwd=bench.folder,
        capture_output=True,
        text=True,
        timeout=bench.left,
        check=False,
    )
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", ended.stdout)}
    if not {"passed", "skipped"} & set(counts):
        raise RuntimeError((ended.stdout + ended.stderr)[-500:])
    yield Row(
        what="tests that need CUDA: failed",
        value=counts.get("failed", 0) + counts.get("error", 0),
        unit="tests",
        bound="≤",
        target=0 if bench.on_gpu else None,
        note=", ".join(f"{count} {word}" for word, count in counts.items()),
        raw={"counts": counts, "end": ended.stdout[-2000:] if ended.returncode else ""},
    )


def precisions(bench: Bench) -> Iterator[Row]:
    """Compare the vectors of the device's default precision, of fp32 and of the CPU."""
    source = bench.photos(bench.sizes.compared)
    batch = ("--batch-size", str(min(bench.sizes.compared, bench.sizes.batch)))
    bench.job("embed", source, "on-cpu", *RANDOM, *batch, CUDA_VISIBLE_DEVICES="")
    expected = _vectors(bench.folder / "on-cpu")
    for said, options in (("default precision", ()), ("fp32", ("--precision", "fp32"))):
        out = said.replace(" ", "-")
        answer, _ = bench.job("embed", source, out, *RANDOM, *batch, *options)
        cosines = (_vectors(bench.folder / out) * expected).sum(1)
        yield Row(
            what=f"embed resnet50 in {said} beside the CPU: smallest cosine",
            value=float(cosines.min()),
            unit="cosine",
            note=f"median {median(cosines.tolist()):.6f}, {answer['model']}",
            raw={"images": len(cosines), "median": median(cosines.tolist())},
        )


def _vectors(out: Path) -> npt.NDArray[np.float64]:
    """Return the vectors of an output in the order of their paths, of length 1."""
    table = pds.dataset(out / "data").to_table(["path", "embedding"]).sort_by("path")
    vectors = np.array(table["embedding"].to_pylist(), np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def decoders(bench: Bench) -> Iterator[Row]:
    """Compare the JPEG decoders that there are."""
    answer = bench.script("jpeg_decoders.py", bench.photos(bench.sizes.compared))
    apart = answer["apart"]
    yield Row(
        what=f"JPEG decoders ({', '.join(answer['decoders'])}): largest difference",
        value=max(gap["largest"] for gap in apart.values()),
        unit="grey levels",
        note=f"mean of the two furthest apart {max(gap['mean'] for gap in apart.values()):.4f}",
        raw=apart,
    )


def small(bench: Bench, batch: int) -> Iterator[Row]:
    """Train the smallest model, with a policy of augmentation, beside a loop on pixels in the GPU's memory."""
    sizes = bench.sizes
    options = ("--model", "small/cnn", "--img-size", "32", "--batch-size", str(batch), "--aa", "trivialaugment")
    ours = bench.train(bench.small, f"small-{batch}", *options, "--epochs", str(sizes.small_epochs))
    plain = _loop(bench, "small/cnn", 32, batch, sizes.small, sizes.small_steps)
    what = f"train small/cnn at 32, batch {batch}, --aa trivialaugment"
    yield _ratio(bench, f"{what}: img/s ÷ loop on pixels in the device's memory", ours.rate, plain, ours.use, 0.7)
    yield from _waits(bench, what, ours)


def photographs(bench: Bench, model: str) -> Iterator[Row]:
    """Train a model on photos beside a loop on pixels in the GPU's memory."""
    ours, plain = _on_photos(bench, model)
    what = _named(bench, model)
    yield _ratio(bench, f"{what}: img/s ÷ loop on pixels in the device's memory", ours.rate, plain, ours.use)
    yield from _waits(bench, what, ours)


def compiled(bench: Bench, model: str, target: float) -> Iterator[Row]:
    """Train a model on photos, compiled, beside the compiled loop; a CPU's compiler takes too long for ours."""
    ours, plain = _on_photos(bench, model, *(("--compile", "on") if bench.on_gpu else ()), loop=("--compile",))
    what = f"{_named(bench, model)}, compiled"
    yield _ratio(bench, f"{what}: img/s ÷ the loop compiled", ours.rate, plain, ours.use, target)
    yield from _waits(bench, what, ours)


def _named(bench: Bench, model: str) -> str:
    return f"train {model.removeprefix('torchvision/')} at {bench.sizes.side}, batch {bench.sizes.train_batch}"


def _on_photos(bench: Bench, model: str, *more: str, loop: Sequence[str] = ()) -> tuple[Training, float]:
    """Return a training of ours and the images a second of the loop."""
    sizes, batch = bench.sizes, bench.sizes.train_batch
    options = ("--model", model, "--img-size", str(sizes.side), "--batch-size", str(batch), *more)
    out = "-".join([*model.split("/"), *more])  # on a CPU that of the plain step, which is up to date
    ours = bench.train(bench.classes, out, *options, "--epochs", str(sizes.epochs))
    return ours, _loop(bench, model, sizes.side, batch, min(sizes.trained, 2048), sizes.steps, *loop)


def _loop(bench: Bench, model: str, side: int, batch: int, images: int, steps: int, *more: str) -> float:
    counts = (side, "--batch", batch, "--images", images, "--steps", steps)
    return float(bench.script("plain_gpu.py", "train", "--model", model, "--side", *counts, *more)["images_per_second"])


def ten_epochs(bench: Bench) -> Iterator[Row]:
    """Train the smallest model as it is trained by default."""
    epochs, images = bench.sizes.ten, bench.sizes.small
    ours = bench.train(bench.small, "ten", "--model", "small/cnn", "--img-size", "32", "--epochs", str(epochs))
    spent: dict[str, float] = ours.answer["phases"]
    what = f"train small/cnn on {images:,} images of 32 pixels, {epochs} epochs"
    pace = f"{ours.rate:,.0f} img/s from epoch 2 on"
    yield Row(
        what=f"{what}: after the start",
        value=sum(spent.get(name, 0.0) for name in LEARNING),
        unit="s",
        bound="≤",
        target=8 if bench.on_gpu else None,
        note=f"whole command {ours.answer['whole_seconds']:.1f} s, {pace}{_beside(ours.use)}",
        raw={"phases": spent, "epochs": ours.history["seconds"]},
    )
    yield from _waits(bench, what, ours)


def embed(bench: Bench, model: str, small: str = "", busy: float | None = None) -> Iterator[Row]:
    """Embed photos, beside a DataLoader script with all cores and beside the model without images.

    ``small`` is the model of a CPU where ``model`` is too large for one, ``busy`` the share of the time of computing
    in which the GPU is to be busy.
    """
    model = model if bench.on_gpu or not small else small
    source, batch = bench.photos(bench.sizes.embedded), bench.sizes.batch
    options = ("--model", model, "--weights", "random", *_batch(bench))
    answer, use = bench.job("embed", source, model.replace("/", "-") + "-vectors", *options)
    plain, seconds = bench.timed("plain_gpu.py", "embed", source, "--model", model, "--batch", batch)
    what = f"embed {model.rpartition('/')[2]}, {answer['computed']:,} photos"
    computing = _computing(answer, use)
    rates = (_steady(answer), plain["images_per_second"])
    yield _ratio(bench, f"{what}: img/s ÷ DataLoader script", *rates, use, note=_said_of(computing))
    yield _ratio(bench, f"{what}: img/s ÷ model alone, batch {batch}", _steady(answer), plain["alone"], use)
    ours, theirs = answer["whole_seconds"], seconds - plain["alone_seconds"]
    yield Row(
        what=f"{what}: whole command ÷ whole DataLoader script",
        value=ours / theirs,
        unit="×",
        bound="≤",
        note=f"{ours:.1f} s ÷ {theirs:.1f} s, {answer['model']}",
        raw={"ours": ours, "plain": theirs, "phases": answer["phases"]},
    )
    if computing is not None:
        yield Row(what=f"{what}: the GPU was busy while it computed", value=computing / 100, unit="of 1", target=busy)


def decoded(bench: Bench) -> Iterator[Row]:
    """Embed photos that the GPU decodes, beside a DataLoader script and beside the processor's pixels."""
    if not bench.on_gpu:
        raise LeftOut("there is no GPU")
    source = bench.photos(bench.sizes.embedded)
    answer, use = bench.job("embed", source, "decoded-by-gpu", *RANDOM, "--decode", "gpu")
    plain = bench.script("plain_gpu.py", "embed", source, "--model", RESNET, "--batch", bench.sizes.batch)
    what = f"embed resnet50 --decode gpu, {answer['computed']:,} photos"
    yield _ratio(bench, f"{what}: img/s ÷ DataLoader script", _steady(answer), plain["images_per_second"], use, 2.0)
    bench.job("embed", source, "decoded-by-cpu", *RANDOM, "--decode", "cpu")
    cosines = (_vectors(bench.folder / "decoded-by-gpu") * _vectors(bench.folder / "decoded-by-cpu")).sum(1)
    yield Row(
        what=f"{what}: smallest cosine to --decode cpu",
        value=float(cosines.min()),
        unit="cosine",
        target=0.995,
        note=f"median {median(cosines.tolist()):.6f}",
        raw={"images": len(cosines), "median": median(cosines.tolist())},
    )


def _computing(answer: dict[str, Any], use: Use) -> float | None:
    """Return the GPU's mean utilisation (%) in a command's phase of computing."""
    phases: dict[str, float] = answer["phases"]
    if "computing" not in phases:
        return None
    names = list(phases)
    start = sum(phases[name] for name in names[: names.index("computing")])
    return use.within(start, start + phases["computing"])


def _said_of(computing: float | None) -> str:
    return "" if computing is None else f"; {computing:.0f}% while it computed"


def found(bench: Bench, task: str) -> Iterator[Row]:
    """Detect or segment with weights that are random, beside torchvision on decoded images."""
    import torch
    from torchvision import models

    model, classes = FOUND[task]
    sizes, weights, labels = bench.sizes, bench.folder / f"{task}.pt", bench.folder / f"{task}.txt"
    torch.save(models.get_model(model, weights=None, weights_backbone=None).state_dict(), weights)
    labels.write_text("".join(f"thing {number}\n" for number in range(classes)))
    source = bench.photos(sizes.found)
    side = ("--imgsz", str(sizes.found_side)) if sizes.found_side else ()
    batch = () if bench.on_gpu else ("--batch-size", str(sizes.found_batch))
    options = ("--model", f"torchvision/{model}", "--weights", weights, "--labels", labels, *side, *batch)
    answer, use = bench.job(task, source, task, *options)
    plain = ["--model", model, "--weights", str(weights), "--batch", str(sizes.found_batch)]
    words = [*plain, *(["--side", str(sizes.found_side)] if sizes.found_side else [])]
    loop = bench.script("plain_gpu.py", "predict", source, *words)["images_per_second"]
    what = f"{task} {model}, {answer['computed']:,} photos"
    name, computing = f"{what}: img/s ÷ torchvision, batch {sizes.found_batch}, decoded images", _computing(answer, use)
    yield _ratio(bench, name, _steady(answer), loop, use, note=_said_of(computing))
    if use.peak is not None:
        target = MEMORY.get(task)
        yield Row(what=f"{what}: peak memory of the GPU", value=use.peak, unit="MiB", bound="≤", target=target)


def ray_train(bench: Bench) -> Iterator[Row]:
    """Train with one worker of Ray."""
    _need_ray()
    options = ("--model", "small/cnn", "--img-size", "32", "--epochs", "2", "--workers", "1")
    ours = bench.train(bench.small, "ray", *options)
    yield _whole("train small/cnn at 32, 2 epochs, --workers 1", ours.answer, ours.rate, ours.use)


def ray_embed(bench: Bench) -> Iterator[Row]:
    """Embed with one worker of Ray."""
    _need_ray()
    source = bench.photos(bench.sizes.embedded)
    answer, use = bench.job("embed", source, "ray-vectors", *RANDOM, *_batch(bench), "--workers", "1")
    yield _whole(f"embed resnet50, {answer['computed']:,} photos, --workers 1", answer, _steady(answer), use)


def _batch(bench: Bench) -> tuple[str, ...]:
    """Return what saves a CPU the trial of batches."""
    return () if bench.on_gpu else ("--batch-size", str(bench.sizes.batch))


def _need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise LeftOut("Ray is not installed")


def _whole(what: str, answer: dict[str, Any], rate: float, use: Use) -> Row:
    note = f"{_pace(rate)} img/s{_beside(use)}"
    return Row(what=f"{what}: whole command", value=answer["whole_seconds"], unit="s", note=note, raw=answer["phases"])


def _steady(answer: dict[str, Any]) -> float:
    """Return the images a second of a batch job: its own rate, or, where it was too short for one, of its computing."""
    return float(answer["images_per_second"] or answer["computed"] / answer["phases"]["computing"])


def _ratio(
    bench: Bench, what: str, ours: float, plain: float, use: Use, target: float | None = None, *, note: str = ""
) -> Row:
    return Row(
        what=what,
        value=ours / plain,
        unit="×",
        target=target if bench.on_gpu else None,
        note=f"{_pace(ours)} ÷ {_pace(plain)} img/s{_beside(use)}{note}",
        raw={"ours": ours, "plain": plain, "gpu_percent": use.mean, "gpu_mib": use.peak},
    )


def _beside(use: Use) -> str:
    """Return what a note says of the GPU, where there is one."""
    return f"; {use}" if use.looks else ""


def _pace(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _waits(bench: Bench, what: str, ours: Training) -> Iterator[Row]:
    if waits := ours.waits[1:]:
        target = 0.05 if bench.on_gpu else None
        yield Row(
            what=f"{what}: waits for data",
            value=mean(waits),
            unit="of 1",
            bound="≤",
            target=target,
            raw={"epochs": waits},
        )


# What is asked first is answered where the time is short: (name, what runs, its seconds at most).
STEPS: Sequence[tuple[str, Any, float]] = (
    ("tests", tests, 60),
    ("precisions", precisions, 80),
    ("small-64", partial(small, batch=64), 60),
    ("resnet50", partial(photographs, model=RESNET), 60),
    ("embed-resnet50", partial(embed, model=RESNET), 70),
    ("ten-epochs", ten_epochs, 45),
    ("resnet50-compiled", partial(compiled, model=RESNET, target=0.9), 150),
    ("detect", partial(found, task="detect"), 70),
    ("small-256", partial(small, batch=256), 45),
    ("segment", partial(found, task="segment"), 70),
    ("embed-vit", partial(embed, model="timm/vit_small_patch16_224"), 70),
    ("embed-vit-large", partial(embed, model=VIT_LARGE, small="timm/vit_tiny_patch16_224", busy=0.9), 90),
    ("resnet18", partial(photographs, model="torchvision/resnet18"), 60),
    ("decoders", decoders, 30),
    ("decoded", decoded, 90),
    ("ray-train", ray_train, 75),
    ("ray-embed", ray_embed, 75),
)
