"""Machines of a cluster that decode for their own workers: what they train on, and what the command hears of it."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nodes
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from buckets import Bucket, made
from commands import run
from nodes import node
from training import TIMED, folder, plan

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed
from cvjobs.common.progress import Progress
from cvjobs.common.signals import stoppable
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.listing import list_source
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
    """Four chunks to train on, with two images that fail, one that is there twice and one that leaks."""
    root = tmp_path_factory.mktemp("images")
    for seed, (split, count) in enumerate({"train": 270, "val": 6, "test": 4}.items()):
        folder(root / split, count, seed=seed)
        (root / split / "red" / "003.png").write_bytes(b"no image")
    (root / "train" / "red" / "107.png").write_bytes(b"no image")
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
            machine.agree(outcomes.known(moved.val))
            said = notes.told(board.DECODING)
            assert said is not None
            assert (said["decoded"], said["known"]) == (840, ["train", "val", "test"])
            if cache_side:
                there.hear(said, store)
            assert told(there, parts) == known
            machine.clear()
        assert list((tmp_path / "other" / "cvjobs" / "decoded").iterdir()) == []


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
        with MachineFilling(made_plan, team, ["one"], notes, made_plan.store(), epoch=0) as machine:
            machine.finish()
            with pytest.raises(JobFailed, match="The images that can be decoded differ between the machines"):
                machine.agree(outcomes.known(machine.plan.val))


def rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a history, without what was measured."""
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


@pytest.mark.faults
@pytest.mark.ray
@pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores")
def test_two_machines_train_as_one_command_does(images: Path, tmp_path: Path, s3: str) -> None:
    bucket: Bucket = made(s3, f"machines{next(NUMBERS)}")
    ended = run("train", images, "-o", tmp_path / "whole", *WORDS, "--workers", 2)
    assert ended.code == 0, ended
    variables = nodes.variables(tmp_path)
    words = ("train", images, *WORDS, "--workers", 2, *bucket.options)
    with ExitStack() as stack:
        head = {**variables, "XDG_CACHE_HOME": str(tmp_path / "one")}
        address = stack.enter_context(node(head, "--head", "--port=0", "--include-dashboard=false"))
        stack.enter_context(node({**variables, "XDG_CACHE_HOME": str(tmp_path / "two")}, f"--address={address}"))
        own: dict[str, Any] = {**variables, "XDG_CACHE_HOME": str(tmp_path / "command")}
        for out in (bucket.url("run"), tmp_path / "run"):
            ended = run(*words, "-o", out, "--address", address, **own)
            print(ended.err)
            assert ended.code == 0, ended
    assert not (tmp_path / "command" / "cvjobs" / "decoded").exists(), "the command decoded"
    history = (tmp_path / "whole" / "history.parquet").read_bytes()
    model = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (
        rows(bucket.read("run/history.parquet"))
        == rows((tmp_path / "run/history.parquet").read_bytes())
        == rows(history)
    )
    assert bucket.read("run/model.safetensors") == (tmp_path / "run/model.safetensors").read_bytes() == model
