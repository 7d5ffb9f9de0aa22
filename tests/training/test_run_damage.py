"""A training run whose files are damaged: what `cvjobs verify` says, what no command takes, what the next one mends."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import here, sentence
from flips import Tally, flipped, flips, said
from safetensors.torch import load_file, save_file
from training import SIDE, folder

import cvjobs
from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed import SEAL
from cvjobs.networks import registry, sealed_model, weights
from cvjobs.networks.torch_network import TorchClassifier
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import artifacts, identity
from cvjobs.training.data.chunk_pixels import PLACE, ROWS, SQUARES, pixels_file
from cvjobs.training.loop.checkpoints import Checkpoints
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "model": "small/cnn", "recipe": "quick", "epochs": 2, "img_size": str(SIDE), "batch_size": 16, "workers": 1,
}  # fmt: skip
BESIDES = ("report.html", "lease", ".npy", ".bin")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve images."""
    root = tmp_path_factory.mktemp("images")
    folder(root / "train", 8)
    folder(root / "val", 4, seed=1)
    return root


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that kept its decoded images."""
    run = tmp_path_factory.mktemp("runs") / "run"
    cvjobs.train(images, run, **OPTIONS, cache=run / "cache")
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def problems(run: Path) -> list[str]:
    report = cvjobs.verify(str(run))
    assert report.exit_code == bool(report.problems)
    return list(report.problems)


def again(images: Path, run: Path) -> TrainingSummary:
    """The same command once more."""
    summary: TrainingSummary = cvjobs.train(images, run, **OPTIONS, cache=run / "cache")
    return summary


def best(run: Path) -> dict[str, torch.Tensor]:
    """The weights of the model that a run is to other commands."""
    model = registry.classifier(str(run))
    assert isinstance(model, TorchClassifier)
    return model.module.state_dict()


def meaning(run: Path) -> Any:
    """What a run is to the commands that read it: its identity, its summary, its newest state and its best model."""
    store = LocalStore(run)
    state = Checkpoints(LocalStore(run)).newest(lambda _: None)
    assert state is not None
    tensors = [state.model, state.average, best(run), *state.optimizer["state"].values()]
    numbers = [torch.as_tensor(value).numpy().tobytes() for entry in tensors for value in entry.values()]
    settings = json.dumps([state.meta, state.optimizer["param_groups"]])
    tables = [artifacts.rows(store, name).to_pylist() for name in store.names(".") if name.endswith(".parquet")]
    return identity.earlier(store), TrainingSummary.read(store), settings, numbers, tables


def test_a_run_is_exact_and_says_what_was_checked(run: Path) -> None:
    ended = here("verify", run)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"a training run: 2 records, 4 tables, 1 model, 2 checkpoints, 2 chunks of images checked\n{run} is exact\n"
    )
    found = json.loads(here("verify", run, "--json").out)
    assert (found["holds"], found["exit_code"], found["problems"]) == ("a training run", 0, [])


def flip(file: Path, place: int, bit: int = 2) -> bytes:
    """Flip a bit, and return what the file held."""
    whole = file.read_bytes()
    place %= len(whole)
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    return whole


def test_a_flipped_bit_of_the_model_is_named_by_who_loads_it(images: Path, run: Path, tmp_path: Path) -> None:
    """It gave other scores without a word."""
    file = run / "model.safetensors"
    for place in (12, -40):  # in the metadata, in a tensor
        whole = flip(file, place)
        (problem,) = problems(run)
        assert "model.safetensors is damaged (its digest differs): bring it back from a backup" in problem
        for command in ("classify", "embed"):
            words = sentence(here(command, images, "-o", tmp_path / command, "--model", run), 2)
            assert "model.safetensors is damaged (its digest differs)" in words
        with pytest.raises(WrongUse, match="is damaged"):
            weights.given(str(file))
        file.write_bytes(whole)
    assert problems(run) == []


def test_a_model_of_earlier_versions_is_loaded_as_it_is(run: Path) -> None:
    file = run / "model.safetensors"
    content = file.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    before = best(run)
    save_file(load_file(file), file, {name: metadata[name] for name in ("labels", "activation", "cvjobs")})
    assert sealed_model.hashed(file)[1]
    now = best(run)
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert problems(run) == []


@pytest.mark.parametrize("name", ["history.parquet", "errors.parquet", "predictions.parquet", "summary.json"])
def test_what_is_damaged_is_named_and_written_anew(images: Path, run: Path, name: str) -> None:
    before = sealed_table.read(LocalStore(run), name).to_pylist() if name.endswith("parquet") else None
    done = TrainingSummary.read(LocalStore(run))
    flip(run / name, -30)
    (problem,) = problems(run)
    assert problem.startswith(f"{name} is damaged")
    if name.endswith("parquet"):
        assert "delete it and summary.json, and the same command writes both anew" in problem
        (run / name).unlink()
        (run / "summary.json").unlink()
    summary = again(images, run)
    assert done is not None
    assert (summary.metric, summary.epochs, summary.final_loss) == (done.metric, done.epochs, done.final_loss)
    assert problems(run) == []
    if before is not None:
        assert sealed_table.read(LocalStore(run), name).to_pylist() == before


def test_a_damaged_record_of_what_was_begun_is_named(images: Path, run: Path) -> None:
    flip(run / "config.json", 200)
    assert problems(run)[0].startswith("config.json is damaged: delete it, and a command of the same settings")
    with pytest.raises(WrongUse, match=r"config.json is damaged: delete it"):
        again(images, run)
    (run / "config.json").unlink()
    assert again(images, run).epochs == 2
    assert problems(run) == []


def test_a_damaged_checkpoint_is_named_and_the_one_before_counts(run: Path) -> None:
    newest, before = sorted((path.name for path in (run / "checkpoints").iterdir()), reverse=True)
    for name in ("meta.json", "model.safetensors", "optimizer.pt"):
        file = run / "checkpoints" / newest / name
        whole = flip(file, file.stat().st_size // 2)
        (problem,) = problems(run)
        assert problem.startswith(f"checkpoints/{newest} is damaged")
        assert f"training would continue from {before}" in problem
        file.write_bytes(whole)
    assert problems(run) == []


@pytest.mark.parametrize("name", ["meta.json", "model.safetensors", "optimizer.pt"])
def test_a_pipe_in_a_checkpoint_is_never_waited_for(run: Path, name: str) -> None:
    newest, _ = sorted((path.name for path in (run / "checkpoints").iterdir()), reverse=True)
    file = run / "checkpoints" / newest / name
    whole = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    (problem,) = problems(run)
    assert problem.startswith(f"checkpoints/{newest} is damaged ({name} is gone or no file)")
    file.unlink()
    file.write_bytes(whole)
    assert problems(run) == []


def test_every_bit_of_a_checkpoints_record_is_noticed(run: Path) -> None:
    (file, _) = sorted(run.glob("checkpoints/*/meta.json"), reverse=True)
    whole = file.read_bytes()
    before = Checkpoints(LocalStore(run)).newest(lambda _: None)
    assert before is not None
    shutil.rmtree(next(other for other in sorted(run.glob("checkpoints/*")) if other != file.parent))
    missed = []
    for bit in range(0, 8 * len(whole), 97):
        flip(file, bit // 8, bit % 8)
        found = said(lambda: Checkpoints(LocalStore(run)).newest(lambda _: None))
        if not isinstance(found, CvjobsError) and found.meta != before.meta:
            missed.append(bit)
        file.write_bytes(whole)
    assert missed == []


def pictures(chunk: Path) -> list[bytes]:
    """The pixels of a chunk, image by image."""
    if pixels_file(chunk).name == SQUARES:
        return [image.tobytes() for image in np.load(chunk / SQUARES)]
    rows = sealed_table.read(LocalStore(chunk), ROWS)
    content, places = pixels_file(chunk).read_bytes(), zip(*(rows[name].to_pylist() for name in PLACE), strict=True)
    return [content[start : start + 3 * height * width] for start, height, width in places]


def test_damaged_chunks_of_decoded_images_are_decoded_anew(images: Path, run: Path) -> None:
    (chunk, _) = sorted((run / "cache").iterdir())
    before = pictures(chunk)
    flip(pixels_file(chunk), -1)
    assert problems(run) == [f"cache/{chunk.name} is damaged (the pixels are not what was written): delete it"]
    flip(chunk / ROWS, -20)
    assert len(problems(run)) == 1
    (run / "summary.json").unlink()
    again(images, run)
    assert pictures(chunk) == before
    assert problems(run) == []


def test_a_run_of_earlier_versions_is_exact_and_has_nothing_to_train(images: Path, run: Path) -> None:
    """Without seals."""
    import pyarrow.parquet as pq

    for name in ("config.json", "summary.json"):
        record = json.loads((run / name).read_bytes())
        del record[SEAL]
        (run / name).write_text(json.dumps(record, indent=1) + "\n")
    for file in run.glob("*.parquet"):
        pq.write_table(pq.read_table(file), file)
    for file in run.glob("cache/*/*.parquet"):
        pq.write_table(pq.read_table(file), file)
    assert problems(run) == []
    assert again(images, run).up_to_date
    (run / "history.parquet").write_bytes((run / "history.parquet").read_bytes()[:-9])
    assert problems(run)[0].startswith("history.parquet is damaged")


def test_a_table_that_is_damaged_ends_a_command_with_a_sentence(images: Path, run: Path) -> None:
    flip(run / "history.parquet", -30)
    with pytest.raises(JobFailed, match=r"history.parquet is damaged .*: delete it and summary.json"):
        cvjobs.train(images, run, **OPTIONS, tensorboard=True)


def test_what_is_no_run_any_more_is_named(run: Path) -> None:
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "errors.parquet").unlink()
    found = problems(run)
    assert len(found) == 2
    assert found[0] == "errors.parquet is gone: delete summary.json, and the same command writes both anew"
    assert found[1].startswith("model.safetensors is gone")


def forget(run: Path, *names: str) -> None:
    for name in names:
        (run / name).unlink()


def epoch_of(checkpoint: Path) -> int:
    """The last epoch that had ended."""
    return len(json.loads((checkpoint / "meta.json").read_bytes())["meta"]["history"])


@pytest.mark.parametrize("how", ["gone", "damaged", "cut short", "gone with its summary", "damaged without a summary"])
def test_the_same_command_makes_a_model_again(images: Path, run: Path, how: str, capfd: Any) -> None:
    """It said that there is nothing to train, or wrote a summary, and left no model."""
    file = run / "model.safetensors"
    content, before = file.read_bytes(), meaning(run)
    if how.startswith("gone"):
        file.unlink()
    elif how == "cut short":
        file.write_bytes(content[:-9])
    else:
        flip(file, -40)
    if "summary" in how:
        (run / "summary.json").unlink()
    (problem,) = problems(run)
    assert problem.startswith("model.safetensors is gone") or "model.safetensors is damaged" in problem
    assert "run the same `cvjobs train` again, which makes it from a checkpoint where one has it" in problem
    summary = again(images, run)
    assert file.read_bytes() == content
    told = f"{file} is {'gone' if how.startswith('gone') else 'damaged'}: made again from the checkpoint of epoch"
    assert f"{told} {summary.best_epoch}." in capfd.readouterr().err
    assert summary.up_to_date == ("summary" not in how)
    assert problems(run) == []
    if summary.up_to_date:
        assert meaning(run) == before


@pytest.mark.parametrize("summary", [True, False])
def test_a_model_that_no_checkpoint_has_is_no_success(images: Path, run: Path, summary: bool) -> None:
    best_epoch = json.loads((run / "summary.json").read_bytes())["best_epoch"]
    forget(run, "model.safetensors", *(() if summary else ("summary.json",)))
    (lost,) = (folder for folder in run.glob("checkpoints/*") if epoch_of(folder) == best_epoch)
    shutil.rmtree(lost)
    with pytest.raises(JobFailed, match="no checkpoint has it: bring it back from a backup, or train again with --ov"):
        again(images, run)
    assert len(problems(run)) == 1
    assert (run / "summary.json").exists() == summary


def test_a_run_without_model_and_checkpoints_has_ended_for_nothing(images: Path, run: Path) -> None:
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(JobFailed, match="no checkpoint has it: bring it back from a backup, or train again with --ov"):
        again(images, run)
    (run / "summary.json").unlink()
    (problem,) = problems(run)
    assert problem == "model.safetensors is gone: bring it back from a backup, or train again with --overwrite"


@pytest.mark.parametrize(
    ("more", "best_epoch", "summary"),
    [({"lr": 0.003}, 3, True), ({"lr": 0.01}, 2, False), ({"lr": 0.01, "ema": 0.5}, 3, False)],
)
def test_a_training_goes_on_from_the_checkpoint_before_and_makes_its_model(
    images: Path, tmp_path: Path, more: dict[str, Any], best_epoch: int, summary: bool
) -> None:
    options, run = {**OPTIONS, "epochs": 3, **more}, tmp_path / "run"
    done = cvjobs.train(images, run, **options)
    assert done.best_epoch == best_epoch
    file = run / "model.safetensors"
    content = file.read_bytes()
    forget(run, "model.safetensors", *(() if summary else ("summary.json",)))
    assert cvjobs.train(images, run, **options).best_epoch == done.best_epoch
    assert file.read_bytes() == content
    file.unlink()
    shutil.rmtree(sorted(run.glob("checkpoints/*"))[-1])
    now = cvjobs.train(images, run, **options)
    assert (now.best_epoch, now.metric, now.epochs, now.up_to_date) == (done.best_epoch, done.metric, 3, False)
    assert file.read_bytes() == content
    assert problems(run) == []


def test_a_training_that_goes_on_without_its_best_model_says_so_and_fails(
    images: Path, tmp_path: Path, capfd: Any
) -> None:
    options, run = {**OPTIONS, "epochs": 3}, tmp_path / "run"
    assert cvjobs.train(images, run, **options).best_epoch == 1
    forget(run, "model.safetensors", "summary.json")
    shutil.rmtree(max(run.glob("checkpoints/*")))
    with pytest.raises(JobFailed, match=r"model.safetensors is gone, and no checkpoint has it: bring it back"):
        cvjobs.train(images, run, **options)
    assert "no checkpoint has it: an epoch that is better than epoch 1 makes it." in capfd.readouterr().err
    assert len(problems(run)) == 1


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[]", b'{"meta": 1}', b"[" * 200_000])
def test_a_checkpoints_record_that_is_none_is_named_in_plain_words(run: Path, content: bytes) -> None:
    newest, _ = sorted((path.name for path in (run / "checkpoints").iterdir()), reverse=True)
    (run / "checkpoints" / newest / "meta.json").write_bytes(content)
    (problem,) = problems(run)
    why = "is no checkpoint's" if content in (b"[]", b'{"meta": 1}') else "is no JSON"
    assert problem.startswith(f"checkpoints/{newest} is damaged (its meta.json {why}): delete it; training would")


def attack(images: Path, run: Path, count: int, seed: int, every: int) -> Tally:
    """Flip bits of a run, each of which is verified and compared; after ``every`` one the same command follows."""
    before, work, tally = meaning(run), run.with_name("work"), Tally()
    for number, flip in enumerate(flips(run, count, seed, besides=BESIDES)):
        with flipped(flip):
            tally.count(flip, run, lambda: meaning(run), before, every=4)
            if number % every:
                continue
            shutil.copytree(run, work)
        said(lambda: again(images, work))
        shutil.rmtree(work)
    assert tally.wrong == []
    assert problems(run) == []
    return tally


def test_no_flipped_bit_passes_that_changes_a_run(images: Path, run: Path) -> None:
    attack(images, run, 20, 0, 20)


@pytest.mark.faults(minutes=10)
def test_two_thousand_flipped_bits_of_a_run(images: Path, run: Path) -> None:
    tally = attack(images, run, 2000, 1, 40)
    print(tally, tally.passed)


@pytest.mark.faults(minutes=2)
def test_five_hundred_flipped_bits_of_a_model(run: Path) -> None:
    file = run / "model.safetensors"
    whole, size = file.read_bytes(), file.stat().st_size
    for bit in np.random.default_rng(0).integers(0, 8 * size, 500).tolist():
        flip(file, bit // 8, bit % 8)
        assert len(problems(run)) == 1
        with pytest.raises(WrongUse, match=r"model.safetensors"):
            registry.classifier(str(run))
        file.write_bytes(whole)
