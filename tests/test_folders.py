"""Every command that writes a folder refuses that of another command, finished or begun, and changes nothing in it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from commands import Ended, here, sentence, some
from PIL import Image

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import contents
from cvjobs.storage.local_store import LocalStore

pytestmark = pytest.mark.slow

TRAIN = ("--model", "small/cnn", "--recipe", "quick", "--epochs", "1", "--img-size", "16", "--weights", "random")
NIGHT = "name: night\nstate: {state}\nsteps: [{{embed: {{source: {source}, out: {out}, model: thumbnail/4}}}}]\n"


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of outputs, one of each command, named like it, and begun ones."""
    root = tmp_path_factory.mktemp("made")
    some(photos, root / "photos", 4)
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (root / "classes" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), colour).save(root / "classes" / name / f"{number}.png")
    (root / "truth.csv").write_text(
        "path,label\n" + "".join(f"{image.relative_to(root / 'photos')},red\n" for image in photos_of(root))
    )
    for name in COMMANDS:
        assert work(root, name, root / name).code == 0, name
    for name, marks in BEGUN.items():
        for mark in marks:
            (root / name / mark).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name.removesuffix(".begun") / mark, root / name / mark)
    (root / "other").mkdir()
    (root / "other" / "report.html").write_text("of something else")
    return root


def photos_of(root: Path) -> list[Path]:
    return sorted((root / "photos").rglob("*.jpg"))


def work(root: Path, command: str, out: Path, *more: str) -> Ended:
    """Run a command with this output."""
    if command == "run":
        file = root / f"{out.name}.yaml"
        file.write_text(NIGHT.format(state=out, source=root / "photos", out=root / "vectors-of-nights"))
        return here("run", file)
    words = {
        "embed": (root / "photos", "--model", "thumbnail/4"),
        "train": (root / "classes", *TRAIN),
        "classify": (root / "photos", "--model", root / "train"),
        "index": (root / "embed",),
        "query": (root / "index", root / "embed"),
        "eval": (root / "classify", root / "truth.csv"),
        "schedule": (root / "run.yaml", "--cron", "@daily"),
    }[command]
    return here(command, *words, "-o", out, *more)


COMMANDS = ("embed", "train", "classify", "index", "query", "run", "eval", "schedule")
BEGUN = {
    "embed.begun": ("_cvjobs/format.json",),
    "index.begun": ("_cvjobs/format.json",),
    "query.begun": ("_cvjobs/format.json",),
    "train.begun": ("config.json",),
}
HELD = {
    "embed": contents.RESULTS,
    "classify": contents.RESULTS,
    "train": contents.RUN,
    "index": contents.INDEX,
    "query": contents.QUERY,
    "run": contents.NIGHTS,
    "eval": contents.EVAL,
    "other": contents.OTHER,
}


def state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("folder", [*HELD, *BEGUN])
def test_whose_folder_it_is(made: Path, folder: str) -> None:
    assert contents.of(LocalStore(made / folder)) == {HELD[folder.removesuffix(".begun")]}


def test_no_command_writes_into_the_folder_of_another(made: Path) -> None:
    """All commands that write a folder, on all kinds of folders; ``pytest -s`` prints the table of exit codes."""
    folders = [*HELD, *BEGUN]
    print(f"\n{'':10}", *(f"{folder:>15}" for folder in folders))
    for command in COMMANDS:
        cells = [cell(made, command, folder) for folder in folders]
        print(f"{command:10}", *(f"{one:>15}" for one in cells), flush=True)


def cell(made: Path, command: str, folder: str) -> str:
    """The exit codes of a command on a folder, which is as before where the command refuses it."""
    own = folder.removesuffix(".begun")
    if own == command or (HELD[own] == HELD.get(command) and folder.endswith(".begun")):
        return "own"  # and of one that embed or classify has begun there is no saying whose it was
    if own == "other" and command in ("eval", "schedule"):
        return "room beside"
    before = state(made / folder)
    several = [(), ("--overwrite",)] if command in ("embed", "classify", "train") else [()]
    for more in several:
        ended = work(made, command, made / folder, *more)
        assert (ended.code, ended.out) == (2, ""), ended
        held = f"the results of `cvjobs {own}`" if HELD[own] == HELD.get(command) else HELD[own]
        assert f"{made / folder} holds {held}: " in ended.err
    assert state(made / folder) == before
    return " ".join("2" for _ in several)


def parts_of(made: Path) -> list[Path]:
    """What every command left in its own folder, but for schedules and files of something else."""
    found = [made / name / "_cvjobs" / "lease" for name in HELD if (made / name / "_cvjobs").exists()]
    return [*found, *(path for name in HELD if name != "other" for path in sorted((made / name).iterdir()))]


def test_no_command_writes_into_a_part_of_an_output(made: Path) -> None:
    """Each entry of each kind of folder, named as a file to export to, a page, and as a folder of each command."""
    before = {file: digest for name in HELD for file, digest in state(made / name).items()}
    for place in parts_of(made):
        whole = next(parent for parent in place.parents if parent.parent == made)
        tried = [
            here("export", made / "classify", "--format", "csv", "-o", place / "x" if place.is_dir() else place),
            here("query", made / "index", made / "embed", "--html", place / "x" if place.is_dir() else place),
        ]
        if place.is_dir():
            tried += [work(made, command, place) for command in COMMANDS]
        for number, ended in enumerate(tried):
            if number == 1 and whole.name == "query":
                continue  # the page of an answer may be beside it
            assert ended.code == 2, (place, number, ended)
            assert f" in {whole}" in ended.err or "inside the output that is exported" in ended.err, ended
            assert ended.out == ""
    after = {file: digest for name in HELD for file, digest in state(made / name).items()}
    answers = {file: digest for file, digest in after.items() if "/query/" in file}
    assert {**after, **answers} == {**before, **answers}


def test_a_part_that_an_output_will_have_is_refused_too(made: Path) -> None:
    for place in (
        made / "train" / "cache",
        made / "train.begun" / "checkpoints",
        made / "embed.begun" / "summary.json",
    ):
        assert not place.exists()
        ended = here("export", made / "classify", "--format", "csv", "-o", place)
        assert f"{place} is a part of " in sentence(ended, 2)
        assert not place.exists()


def test_files_beside_those_of_an_output_are_taken(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made / "classify", tmp_path / "labels")
    before = state(out)
    for _ in range(2):
        assert here("export", out, "--format", "csv", "-o", out / "labels.csv").code == 0
        assert work(made, "eval", out / "eval").code == 0
        assert here("query", made / "index", made / "embed", "--html", tmp_path / "report.html").code == 0
    shutil.copytree(made / "eval", tmp_path / "both")
    shutil.copytree(out, tmp_path / "both", dirs_exist_ok=True)  # as eval was allowed to make it
    assert work(made, "eval", tmp_path / "both").code == 0
    assert work(made, "classify", tmp_path / "both").code == 0
    assert {file: digest for file, digest in state(out).items() if file in before} == before


def test_a_schedule_replaces_what_it_made_and_nothing_else(made: Path, tmp_path: Path) -> None:
    for _ in range(2):
        ended = work(made, "schedule", tmp_path, "--emit", "systemd")
        assert ended.code == 0, ended
    service = next(tmp_path.glob("*.service"))
    service.write_text("[Service]\n")
    assert f"{service} is of something else" in sentence(work(made, "schedule", tmp_path, "--emit", "systemd"), 2)
    assert service.read_text() == "[Service]\n"


def test_an_empty_folder_and_one_with_files_of_others_are_taken(made: Path, tmp_path: Path) -> None:
    for command in ("embed", "index", "query", "eval", "schedule"):
        (tmp_path / command).mkdir()
        (tmp_path / command / "notes.txt").write_text("mine")
        assert work(made, command, tmp_path / command).code == 0
        assert (tmp_path / command / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["verify", "unlock"])
def test_a_folder_that_is_not_there_is_said(tmp_path: Path, command: str) -> None:
    with pytest.raises(WrongUse, match=r"There is nothing in \S+nowhere: name the folder that a command left"):
        getattr(cvjobs, command)(str(tmp_path / "nowhere"))
