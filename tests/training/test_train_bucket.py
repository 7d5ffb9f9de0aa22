"""A training whose run is in a bucket: the same to the bit as in a folder, after any kill, and never two at once."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from buckets import Bucket, made
from commands import aged, here, sentence
from training import TIMED, folder, loop, plan

import cvjobs
from cvjobs.common.errors import OutputHeld, Stopped, WrongUse
from cvjobs.dataset import lock
from cvjobs.storage.bucket_store import BucketStore
from cvjobs.training import conclusion, identity
from cvjobs.training.checks import lr_range
from cvjobs.training.data import prepare
from cvjobs.training.loop import checkpoints, resumption
from cvjobs.training.loop import loop as looping
from cvjobs.training.loop.board import FolderBoard, Superseded
from cvjobs.training.loop.checkpoints import Checkpoint
from cvjobs.training.loop.loop import Loop, State
from cvjobs.training.loop.object_shelf import ObjectShelf
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.ray_train import Hold
from cvjobs.training.plan import TrainPlan

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
WORDS = ("--model", "small/cnn", "--epochs", 2, "--img-size", 8, "--recipe", "quick", "--batch-size", 16)


class Killed(Exception):
    """What ends a loop in a test as a kill would: nothing is saved on its way out."""


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return made(s3, f"training{next(NUMBERS)}")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _saves_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "LOOK", 1)
    monkeypatch.setattr(resumption, "EVERY", 0.0)
    monkeypatch.setattr(resumption, "SHARE", 1e9)


def moved(whole: TrainPlan, bucket: Bucket, key: str = "run") -> TrainPlan:
    """The same plan with its run in a bucket."""
    return replace(whole, run=bucket.url(key), storage=bucket.settings)


def rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a history, without what was measured."""
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


def assert_same(whole: TrainPlan, bucket: Bucket, key: str = "run") -> None:
    """The run in a bucket has the history and the model of one in a folder, to the bit."""
    run = Path(whole.run)
    assert rows(bucket.read(f"{key}/history.parquet")) == rows((run / "history.parquet").read_bytes())
    assert bucket.read(f"{key}/model.safetensors") == (run / "model.safetensors").read_bytes()


def broken_off(plan: TrainPlan, step: int, *, kill: bool, warn: Callable[[str], None] | None = None) -> None:
    """Train until so many looks at the loss."""
    looks = itertools.count(1)

    def watch(_: State) -> bool:
        over = next(looks) > step
        if kill and over:
            raise Killed
        return over

    with pytest.raises(Killed if kill else Stopped):
        loop(plan, watch, warn).run()


def pointers(bucket: Bucket) -> list[str]:
    """The keys of the pointers to checkpoints, the oldest first."""
    return [key for key in bucket.keys("run/checkpoints") if key.endswith(".json")]


def named(bucket: Bucket, pointer: str) -> str:
    """The key of the object that a pointer names."""
    return f"run/checkpoints/{json.loads(bucket.read(pointer))['data']}"


@pytest.mark.usefixtures("_saves_often")
def test_it_continues_in_a_bucket_to_the_end_of_one_in_a_folder(tmp_path: Path, bucket: Bucket) -> None:
    whole = plan(tmp_path, "whole", ema=0.9, opt="adamw")
    loop(whole).run()
    run = moved(whole, bucket)
    broken_off(run, 1, kill=False)
    broken_off(run, 2, kill=True)
    broken_off(run, 3, kill=True)
    loop(run).run()
    assert_same(whole, bucket)
    assert len(pointers(bucket)) == checkpoints.KEPT
    assert len(bucket.keys("run/checkpoints")) == 2 * checkpoints.KEPT


@pytest.mark.parametrize(
    "damage", ["truncated", *(pytest.param(how, marks=pytest.mark.faults) for how in ("gone", "pointer"))]
)
@pytest.mark.usefixtures("_saves_often")
def test_the_checkpoint_before_one_that_is_damaged_is_used(tmp_path: Path, bucket: Bucket, damage: str) -> None:
    whole = plan(tmp_path, "whole")
    loop(whole).run()
    run = moved(whole, bucket)
    broken_off(run, 5, kill=False)
    newest = pointers(bucket)[-1]
    key = newest if damage == "pointer" else named(bucket, newest)
    if damage == "gone":
        bucket.delete(key)
    else:
        bucket.put(key, bucket.read(key)[:-20])
    said: list[str] = []
    trained = loop(run, warn=said.append)
    name = Path(newest).stem
    assert len(said) == 1
    assert said[0].startswith(f"the checkpoint {run.run}/checkpoints/{name} is damaged (")
    trained.run()
    assert_same(whole, bucket)


@pytest.mark.usefixtures("_saves_often")
def test_nothing_starts_over_where_no_checkpoint_is_whole(tmp_path: Path, bucket: Bucket) -> None:
    run = moved(plan(tmp_path, "whole"), bucket)
    broken_off(run, 5, kill=False)
    for pointer in pointers(bucket):
        key = named(bucket, pointer)
        content = bytearray(bucket.read(key))
        content[len(content) // 2] ^= 1
        bucket.put(key, bytes(content))
    with pytest.raises(WrongUse, match=r"No checkpoint in s3://.*/run/checkpoints is whole"):
        loop(run)


def state(done: int) -> Checkpoint:
    """A small checkpoint."""
    model = {"a": torch.full((3,), float(done))}
    return Checkpoint(model=model, average={}, optimizer={"state": {}}, meta={"done": done})


def test_what_slept_since_it_looked_at_the_lock_publishes_nothing(bucket: Bucket) -> None:
    store = BucketStore(moved_root(bucket), "reader", bucket.settings)
    early, late = ObjectShelf(store), ObjectShelf(store)
    early.write(state(1), lambda: None)
    assert early.names() == late.names() == ["00000001"]
    late.write(state(2), lambda: None)
    before = bucket.keys("run")
    looks = itertools.count()

    def check() -> None:
        if next(looks):  # it was still the holder when it looked at first
            raise OutputHeld("another run took it over")

    with pytest.raises(OutputHeld):
        early.write(state(9), check)
    assert bucket.keys("run") == before
    assert late.read(late.names()[0]).meta["done"] == 2


def test_numbers_are_never_used_again(bucket: Bucket) -> None:
    store = BucketStore(moved_root(bucket), "reader", bucket.settings)
    early, anew = ObjectShelf(store), ObjectShelf(store)
    early.write(state(7), lambda: None)
    assert anew.begun()
    anew.forget(lambda: None)
    assert not anew.begun()
    assert bucket.keys("run/checkpoints") == ["run/checkpoints/00000002.json"]

    def check() -> None:
        raise OutputHeld("another run took it over")

    with pytest.raises(OutputHeld):
        early.write(state(8), check)
    anew.write(state(1), lambda: None)
    assert [ObjectShelf(store).read(name).meta["done"] for name in ObjectShelf(store).names()] == [1]


def test_what_slept_since_it_looked_at_the_lock_deletes_nothing_of_a_later_command(bucket: Bucket) -> None:
    store = BucketStore(moved_root(bucket), "reader", bucket.settings)
    late = ObjectShelf(store)
    late.write(state(1), lambda: None)
    taken: list[str] = []

    def sleeps() -> None:  # when it is asked first nobody has taken the run over, and then somebody has
        if taken:
            raise OutputHeld("another run took it over")
        late.write(state(2), lambda: None)
        bucket.put("run/checkpoints/0000000003-abc.tar", b"on its way")
        taken.extend(bucket.keys("run"))

    ObjectShelf(store).clean(sleeps)
    assert bucket.keys("run") == taken
    taken.clear()
    with pytest.raises(OutputHeld):
        ObjectShelf(store).forget(sleeps)
    assert bucket.keys("run") == taken
    assert late.read(late.names()[0]).meta["done"] == 2


def test_all_that_a_run_leaves_at_its_end_is_guarded(tmp_path: Path, bucket: Bucket) -> None:
    run, cpu = moved(plan(tmp_path, "whole", epochs=1), bucket), torch.device("cpu")
    loop(run).run()
    before = {key: bucket.read(key) for key in bucket.keys("run")}

    def refuse() -> None:
        raise OutputHeld("another run took it over")

    with pytest.raises(OutputHeld):
        conclusion.tested(run, run.val, cpu, refuse)
    with pytest.raises(OutputHeld):
        lr_range.find(run, cpu, lambda _: False, refuse)
    with pytest.raises(OutputHeld):
        identity.note(run.store(refuse), {}, compiled=False, anew=True, check=refuse)
    assert {key: bucket.read(key) for key in bucket.keys("run")} == before
    bucket.delete("run/predictions.parquet")
    with pytest.raises(OutputHeld):
        conclusion.scored(run, cpu, refuse)
    assert "run/predictions.parquet" not in bucket.keys("run")


def moved_root(bucket: Bucket) -> Any:
    """The address of a run in a bucket."""
    from cvjobs.storage.object_store import address

    return address(bucket.url("run"))


@pytest.mark.usefixtures("_saves_often")
def test_a_run_that_is_taken_over_ends_and_never_writes_again(tmp_path: Path, bucket: Bucket) -> None:
    run = moved(plan(tmp_path, "whole"), bucket)
    taken: list[dict[str, bytes]] = []
    with lock.held(run.store()) as held:
        looks = itertools.count(1)

        def watch(_: State) -> bool:
            if next(looks) == 3:
                lock.free(run.store())
                taken.append({key: bucket.read(key) for key in bucket.keys("run/")})
            return False

        with pytest.raises(OutputHeld, match="Another run took"):
            Loop(run, Alone(torch.device("cpu")), watch, pytest.fail, held.check).run()
    left = {key: bucket.read(key) for key in bucket.keys("run/") if "/lease/" not in key}
    assert left == {key: content for key, content in taken[0].items() if "/lease/" not in key}


@pytest.mark.usefixtures("_saves_often")
def test_workers_that_others_stand_in_for_write_no_more(tmp_path: Path, bucket: Bucket) -> None:
    whole = plan(tmp_path, "whole", epochs=3)
    loop(whole).run()
    run, cpu = moved(whole, bucket), Alone(torch.device("cpu"))
    (tmp_path / "notes").mkdir()
    notes = FolderBoard(tmp_path / "notes", run.run)
    taken: list[dict[str, bytes]] = []
    with lock.held(run.store()) as held:
        late = Hold(notes, run.store(), held.epoch, 0)

        def sleeps() -> None:  # for so long, once its first epoch has ended, that others end the training
            late()
            if not taken and len(pointers(bucket)) > 1:
                new = Hold(notes, run.store(), held.epoch, 0)
                Loop(run, cpu, lambda _: False, pytest.fail, new, lambda _: None).run()
                taken.append({key: bucket.read(key) for key in bucket.keys("run/") if "/lease/" not in key})

        with pytest.raises(Superseded):
            Loop(run, cpu, lambda _: False, pytest.fail, sleeps).run()
    assert {key: bucket.read(key) for key in bucket.keys("run/") if "/lease/" not in key} == taken[0]
    assert_same(whole, bucket)


def test_a_command_trains_into_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    images, out = folder(tmp_path / "images", 12), bucket.url("a/run")
    ended = here("train", images, "-o", out, *WORDS, "--tensorboard", *bucket.options)
    assert ended.code == 0, ended
    assert f"{out}/report.html" in ended.out
    names = {key.removeprefix("a/run/").partition("/")[0] for key in bucket.keys("a/run")}
    assert names == {
        *("_cvjobs", "checkpoints", "config.json", "errors.parquet", "history.parquet", "leaks.parquet"),
        *("model.safetensors", "predictions.parquet", "report.html", "summary.json", "tensorboard"),
    }
    assert list((tmp_path / "own" / "cvjobs" / "decoded").iterdir()) == []
    keywords: Any = {"model": "small/cnn", "epochs": 2, "img_size": "8", "recipe": "quick", "batch_size": 16}
    again = cvjobs.train(str(images), out, **keywords, storage_option=bucket.options[1:])
    assert again.up_to_date
    assert again.to_arrow(["epoch"])["epoch"].to_pylist() == [1, 2]
    assert bucket.endpoint not in json.dumps(again.as_dict())
    checked = here("verify", out, *bucket.options)
    assert (checked.code, "2 checkpoints checked" in checked.out) == (0, True), checked
    content = bucket.read("a/run/model.safetensors")
    bucket.put("a/run/model.safetensors", content[:-9])
    checked = here("verify", out, *bucket.options)
    assert (checked.code, "model.safetensors is damaged: run the same" in checked.out) == (1, True), checked
    assert cvjobs.train(str(images), out, **keywords, storage_option=bucket.options[1:]).up_to_date
    assert bucket.read("a/run/model.safetensors") == content


def test_a_cache_in_a_bucket_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    words = ("-o", bucket.url("run"), "--cache", bucket.url("cache"), *bucket.options)
    said = sentence(here("train", folder(tmp_path / "images", 3), *words), 2)
    assert said == f"--cache {bucket.url('cache')} is in a bucket, and workers map what is there: name a folder."
    assert bucket.keys("") == []


def test_a_part_of_the_images_is_kept_and_training_begins_before_all_are_decoded(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "images" / "train", 270).parent
    folder(root / "val", 6, seed=1)
    keywords: Any = {"model": "small/cnn", "epochs": 2, "img_size": "8", "recipe": "quick", "batch_size": 16}
    cvjobs.train(root, tmp_path / "run", **keywords)
    monkeypatch.setattr(prepare, "EARLY", 0.0)
    capfd.readouterr()
    words: Any = {**keywords, "storage_option": bucket.options[1:]}
    cvjobs.train(root, bucket.url("run"), **words, cache_size="150kB")
    said = capfd.readouterr().err
    assert "of which --cache-size keeps 3" in said
    assert "of 828: what fails, leaks or is there twice is said when all are decoded" in said
    assert rows(bucket.read("run/history.parquet")) == rows((tmp_path / "run" / "history.parquet").read_bytes())
    assert bucket.read("run/model.safetensors") == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert list((tmp_path / "own" / "cvjobs" / "decoded").iterdir()) == []


def test_a_run_in_a_bucket_that_another_command_holds_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    images = folder(tmp_path / "images", 6)
    run = moved(plan(tmp_path, "whole"), bucket)
    with lock.held(run.store()):
        said = sentence(here("train", images, "-o", run.run, *WORDS, *bucket.options), 5)
    assert said.startswith(f"{run.run} is held by process ")


def test_a_run_in_a_bucket_is_a_model_of_other_commands(tmp_path: Path, bucket: Bucket) -> None:
    images, whole = aged(folder(tmp_path / "images", 6)), plan(tmp_path, "run")
    loop(whole).run()
    run = moved(whole, bucket, "models/run")
    words = ("-o", tmp_path / "other", "--model", run.run, *bucket.options)
    assert "There is no run" in sentence(here("embed", images, *words), 2)
    loop(run).run()

    def embedded(model: str, out: str, *words: str) -> Any:
        ended = here("embed", images, "-o", tmp_path / out, "--model", model, *words)
        assert ended.code == 0, ended
        return json.loads((tmp_path / out / "summary.json").read_text())["computed"]

    assert embedded(run.run, "vectors", *bucket.options) == 18
    # The vectors are of the same model, so that either place continues what the other began.
    assert embedded(whole.run, "vectors") == 0
    assert embedded(run.run + "/", "vectors", *bucket.options) == 0
    copies = list((tmp_path / "own" / "cvjobs" / "models").rglob("model.safetensors"))
    assert [copy.parent.name for copy in copies] == ["run"]
    copies[0].write_bytes(copies[0].read_bytes()[:-9])  # a copy that is damaged is fetched again
    assert embedded(run.run, "vectors", *bucket.options) == 0
    assert copies[0].read_bytes() == bucket.read("models/run/model.safetensors")
    ended = here("classify", images, "-o", bucket.url("labels"), "--model", run.run, *bucket.options)
    assert ended.code == 0, ended
    train = ("train", images, "-o", bucket.url("next"), "--weights", run.run, *WORDS[2:], *bucket.options)
    ended = here(*train)
    assert ended.code == 0, ended
    assert "3 of 3 classes begin as" in ended.err
    bucket.put("models/run/model.safetensors", bucket.read("models/run/model.safetensors")[:-9])
    assert "model.safetensors is damaged" in sentence(here("embed", images, *words), 2)
    assert "model.safetensors is damaged" in here("embed", images, "-o", tmp_path / "vectors", *words[2:]).err
