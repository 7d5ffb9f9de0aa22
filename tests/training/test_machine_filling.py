"""Machines of a cluster that decode for their own workers: what they train on, and what the command hears of it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import nodes
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from buckets import Bucket, made
from commands import CLI, run, started, until, words_of
from nodes import node
from PIL import Image
from training import TIMED, folder, plan

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, StoreUnreachable, TooManyFailed, WrongUse
from cvjobs.common.progress import Progress
from cvjobs.common.signals import stoppable
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.listing import list_source
from cvjobs.storage import object_store
from cvjobs.storage import store as stores
from cvjobs.training import artifacts, identity
from cvjobs.training.data import labels, outcomes, own_cache
from cvjobs.training.data.prepare import Intake
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.loop import board
from cvjobs.training.loop.board import FolderBoard
from cvjobs.training.loop.machine_filling import MachineFilling
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.plan import SplitPart, TrainPlan

pytestmark = pytest.mark.slow
NUMBERS = itertools.count()
WORDS = ("--model", "small/cnn", "--epochs", 2, "--img-size", 8, "--recipe", "quick", "--batch-size", 16)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chunks to train on; see ``splits``."""
    return splits(tmp_path_factory.mktemp("images"), 90)


def splits(root: Path, count: int) -> Path:
    """So many images of each class, of which some fail, one is there twice and one leaks."""
    for seed, (split, each) in enumerate({"train": count, "val": 6, "test": 4}.items()):
        folder(root / split, each, seed=seed)
        (root / split / "red" / "003.png").write_bytes(b"no image")
    (root / "train" / "red" / "077.png").write_bytes(b"no image")
    shutil.copy(root / "train" / "blue" / "004.png", root / "train" / "green" / "004.png")
    shutil.copy(root / "train" / "blue" / "005.png", root / "test" / "blue" / "001.png")
    return root


@contextmanager
def intake(images: Path, out: str, cache_side: int, **more: Any) -> Iterator[Intake]:
    with closing(DecoderServer()) as decoder_server, Progress("train") as progress, stoppable() as stop:
        taken = Intake(
            labelled=labels.label(list_source(str(images)), 0.1),
            transform=plan(images.parent, "any").transform,
            run=out,
            cache=None,
            folder=own_cache.folder(out, None),
            max_pixels=10**6,
            storage={},
            confine=False,
            decoder_server=decoder_server,
            progress=progress,
            stop=stop,
            glance=lambda: None,
            cache_side=cache_side,
            folder_of_run=own_cache.folder(out, None),
            **more,
        )
        with closing(taken):
            yield taken


def contents(part: SplitPart) -> list[bytes]:
    """The pixels of each image of a split, or of what stands in for it."""
    pictures = opened(part.decoded) if part.decoded.whole else opened(outcomes.known(part).decoded)
    return [image.numpy().tobytes() for image in pictures.some(pictures.stand_ins(np.arange(len(pictures))))]


def told(found: Intake, parts: dict[str, SplitPart]) -> Any:
    """What a command says of its images."""
    known = found.known() if found.cache_side else parts
    failed = sorted(path for _, path in found.failures)
    return failed, found.doubles(), {name: (part.paths, part.labels.tolist()) for name, part in known.items()}


@pytest.mark.parametrize("cache_side", [12, 0])
def test_a_machine_decodes_for_its_workers_what_the_command_would(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_side: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    place, out = tmp_path / "run", "s3://nowhere/run"
    place.mkdir()
    notes = FolderBoard(place, str(place))
    with intake(images, str(place), cache_side) as here:
        wanted = here.parts()
        here.wait()
        known = told(here, wanted)
        pixels = {name: contents(wanted[name]) for name in wanted}
    with intake(images, out, cache_side, elsewhere=True) as there:
        parts = there.parts()
        assert Path(there.folder).exists() == (not cache_side), "the command decodes squares alone"
        base = plan(tmp_path, "any")
        train, val, test = (parts[name] for name in ("train", "val", "test"))
        made_plan = replace(base, train=train, val=val, test=test, decoding=there.order)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        store = base.store()
        team = Alone(torch.device("cpu"))
        with MachineFilling(made_plan, team, ["one"], notes, store, epoch=0) as machine:
            moved = machine.plan
            for name in ("train", "val", "test"):
                part = getattr(moved, name)
                assert str(tmp_path / "other") in part.decoded.folders[0]
                assert contents(part) == pixels[name]
            machine.finish()
            said = notes.told(board.DECODING)
            assert said is not None
            assert (said["decoded"], said["known"]) == (300, ["train", "val", "test"])
            if cache_side:
                there.hear(said, store)
            assert told(there, parts) == known
            with intake(images, out, 12, elsewhere=True, most_failed=0.001) as strict:
                strict.parts()
                assert strict.told == "decoded 0 of 300"
                with pytest.raises(TooManyFailed, match="2 of 300 images"):
                    strict.hear(said, store)
            machine.clear()
        assert list((tmp_path / "other" / "cvjobs" / "decoded").iterdir()) == []


def test_a_command_that_checks_the_first_batch_decodes_too(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    with intake(images, "s3://nowhere/run", 12, elsewhere=True, first=True) as here:
        parts = here.parts()
        here.wait()
        here.leave()
        assert (here.done, here.told) == (True, "")
        assert len(contents(parts["train"])) == 270
        here.clear(kept=False)
    assert list((tmp_path / "own" / "cvjobs" / "decoded").iterdir()) == []


def test_a_run_that_was_begun_before_keeps_the_cache_in_its_folder(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    run = str(tmp_path / "run")
    with intake(images, run, 12) as before:
        before.parts()
        before.wait()
    with intake(images, run, 12, elsewhere=True) as after:
        parts = after.parts()
        assert not after.elsewhere
        assert after.done
        assert parts["train"].decoded.folders[0].startswith(f"{run}/cache/")
    store = stores.begun_store(run, {})
    assert identity.own_caches(store), "of a run that begins"
    identity.note(store, {"task": "classify"}, compiled=False, anew=False)
    assert identity.own_caches(store)
    old = {"identity": {"task": "classify"}, "command": "train", "libraries": {}, "compiled": False}
    artifacts.record(store, identity.CONFIG, old)
    for _ in range(2):
        assert not identity.own_caches(store)
        identity.note(store, {"task": "classify"}, compiled=False, anew=False)
    identity.note(store, {"task": "classify"}, compiled=False, anew=True)
    assert identity.own_caches(store)


def test_machines_that_decode_other_images_are_told_apart(images: Path, tmp_path: Path) -> None:
    class Two(Alone):
        def gathered(self, value: Any) -> list[Any]:
            return [value, [("train", "another digest")]] if value and isinstance(value, list) else [value]

    place = tmp_path / "run"
    place.mkdir()
    with intake(images, "s3://nowhere/other", 12, elsewhere=True) as there:
        parts = there.parts()
        order = replace(there.order, cache=str(tmp_path / "cache")) if there.order else None
        made_plan: TrainPlan = replace(plan(tmp_path, "any"), train=parts["train"], val=parts["val"], decoding=order)
        team = Two(torch.device("cpu"))
        notes = FolderBoard(place, str(place))
        said = pytest.raises(JobFailed, match="The images that can be decoded differ between the machines")
        with MachineFilling(made_plan, team, ["one"], notes, made_plan.store(), epoch=0) as machine, said:
            machine.finish()


def test_what_ends_decoding_on_a_machine_is_said_to_all(tmp_path: Path) -> None:
    root = folder(tmp_path / "images" / "train", 3).parent
    folder(root / "val", 2, seed=1)
    for file in (root / "train").rglob("*.png"):
        file.write_bytes(b"no image")
    with intake(root, "s3://nowhere/another", 12, elsewhere=True) as there:
        parts, base, order = there.parts(), plan(tmp_path, "any"), there.order
    assert order is not None
    order = replace(order, cache=str(tmp_path / "cache"))
    made_plan: TrainPlan = replace(base, train=parts["train"], val=parts["val"], decoding=order)
    notes, team = FolderBoard(tmp_path / "any", base.run), Alone(torch.device("cpu"))
    with MachineFilling(made_plan, team, ["one"], notes, base.store(), epoch=0) as machine:
        until(lambda: board.ended_by(notes) is not None, 60)
        with pytest.raises(JobFailed, match="None of the 9 images to train with could be decoded"):
            machine.glance()
    unseen = replace(made_plan, decoding=replace(order, root="/not/here"))
    with pytest.raises(WrongUse, match="The machine of a worker does not see /not/here: use images that every machine"):
        MachineFilling(unseen, team, ["one"], notes, base.store(), epoch=0)


def test_a_store_that_does_not_answer_ends_these_workers_and_not_the_training(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_store.RETRIES, "retry_timeout", timedelta(seconds=1))
    gone = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    with intake(images, "s3://nowhere/third", 12, elsewhere=True) as there:
        parts, base, order = there.parts(), plan(tmp_path, "any"), there.order
    assert order is not None
    order = replace(order, cache=str(tmp_path / "cache"))
    made_plan: TrainPlan = replace(base, train=parts["train"], val=parts["val"], decoding=order)
    notes, store = FolderBoard(tmp_path / "any", base.run), stores.begun_store("s3://nowhere/third", gone)
    with (
        MachineFilling(made_plan, Alone(torch.device("cpu")), ["one"], notes, store, epoch=0) as machine,
        pytest.raises(StoreUnreachable, match="s3://nowhere/third cannot be reached"),
    ):
        machine.finish()
    assert board.ended_by(notes) is None


def rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a history, without what was measured."""
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


@contextmanager
def machines(folder: Path, *caches: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two machines of one core each, with what is theirs in these folders; the address and a command's variables."""
    variables = nodes.variables(folder)
    one, two = ({**variables, "XDG_CACHE_HOME": str(folder / cache)} for cache in caches)
    with node(one, "--head", "--port=0", "--include-dashboard=false") as address, node(two, f"--address={address}"):
        yield address, {**variables, "XDG_CACHE_HOME": str(folder / "command")}


def assert_same(found: tuple[bytes, bytes], whole: Path) -> None:
    """A history and a model are those of a run, to the bit."""
    assert rows(found[0]) == rows((whole / "history.parquet").read_bytes())
    assert found[1] == (whole / "model.safetensors").read_bytes()


def left(run: Path) -> tuple[bytes, bytes]:
    """The history and the model of a run."""
    return (run / "history.parquet").read_bytes(), (run / "model.safetensors").read_bytes()


@pytest.mark.faults(minutes=10)
@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
def test_two_machines_train_as_one_command_does(tmp_path: Path, s3: str) -> None:
    images = splits(tmp_path / "images", 270)
    bucket: Bucket = made(s3, f"machines{next(NUMBERS)}")
    ended = run("train", images, "-o", tmp_path / "whole", *WORDS, "--workers", 2)
    assert ended.code == 0, ended
    words = ("train", images, *WORDS, "--workers", 2, *bucket.options)
    with machines(tmp_path, "one", "two") as (address, own):
        ended = run(*words, "-o", bucket.url("run"), "--address", address, **own)
        assert ended.code == 0, ended
        cache = ("--cache", tmp_path / "cache", "--cache-size", "150kB")
        ended = run(*words, "-o", tmp_path / "run", "--address", address, *cache, **own)
        assert ended.code == 0, ended
    assert not (tmp_path / "command" / "cvjobs" / "decoded").exists(), "the command decoded"
    assert [list((tmp_path / name / "cvjobs" / "decoded").iterdir()) for name in ("one", "two")] == [[], []]
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) < 4
    assert list((tmp_path / "cache").glob("*passing*")) == []
    assert_same((bucket.read("run/history.parquet"), bucket.read("run/model.safetensors")), tmp_path / "whole")
    assert_same(left(tmp_path / "run"), tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    for content in (bucket.read("run/summary.json"), (tmp_path / "run" / "summary.json").read_bytes()):
        summary = json.loads(content)
        for name in ("images", "failed", "leaks", "left_out", "test_metric", "metric"):
            assert summary[name] == whole[name]


def workers(cache: Path) -> list[psutil.Process]:
    """The workers of a training on machines that keep what is theirs in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(words_of(process))
            if "RayTrainWo" in line and process.environ().get("XDG_CACHE_HOME") == str(cache):
                found.append(process)
    return found


@pytest.mark.faults(minutes=10)
@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
def test_a_worker_that_decodes_is_killed_in_the_first_epoch(tmp_path: Path) -> None:
    root = tmp_path / "images"
    folder(root / "small", 30)
    folder(root / "val", 6, seed=1)
    for file in sorted((root / "small").rglob("*.png")):  # slower to decode than to train on
        place = root / "train" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.resize((1200, 1200), Image.Resampling.NEAREST).save(place / file.name)
        for number in range(17):
            os.link(place / file.name, place / f"{file.stem}-{number}.png")
    shutil.rmtree(root / "small")
    ended = run("train", root, "-o", tmp_path / "whole", *WORDS, "--workers", 2)
    assert ended.code == 0, ended
    out = tmp_path / "run"
    with machines(tmp_path, "one", "one") as (address, own):  # two of Ray's machines that are one
        words = [*map(str, ("train", root, "-o", out, *WORDS, "--workers", 2, "--address", address))]

        def decoded() -> int:
            return len(list((tmp_path / "one").rglob("pixels.bin")))

        def steps() -> int:
            try:
                return int(json.loads((out / "_cvjobs/team/000001/state.json").read_text())["done"])
            except (OSError, ValueError):
                return 0

        with started([*CLI, *words], **own) as process:
            until(lambda: steps() or process.poll() is not None, 600)
            assert decoded() < 7, "of seven groups, after the first step"
            leads = [worker for worker in workers(tmp_path / "one") if worker.children()]
            assert leads
            leads[0].kill()
            _, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
    assert_same(left(out), tmp_path / "whole")
    assert list((tmp_path / "one" / "cvjobs" / "decoded").iterdir()) == []
