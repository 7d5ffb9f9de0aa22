"""Every command that writes a folder refuses that of another command, finished or begun, and changes nothing in it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from commands import Ended, here, some
from PIL import Image

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
    for name in COMMANDS:
        assert work(root, name, root / name).code == 0, name
    for name, marks in BEGUN.items():
        for mark in marks:
            (root / name / mark).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name.removesuffix(".begun") / mark, root / name / mark)
    (root / "other").mkdir()
    (root / "other" / "report.html").write_text("of something else")
    return root


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
    }[command]
    return here(command, *words, "-o", out, *more)


COMMANDS = ("embed", "train", "classify", "index", "query", "run")
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
    "other": contents.OTHER,
}


def state(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("folder", [*HELD, *BEGUN])
def test_whose_folder_it_is(made: Path, folder: str) -> None:
    assert contents.of(LocalStore(made / folder)) == {HELD[folder.removesuffix(".begun")]}


@pytest.mark.parametrize("folder", [*HELD, *BEGUN])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_into_the_folder_of_another(made: Path, command: str, folder: str) -> None:
    own = folder.removesuffix(".begun")
    if own == command or (HELD[own] == HELD.get(command) and folder.endswith(".begun")):
        return  # its own, and of one that embed or classify has begun there is no saying whose it was
    before = state(made / folder)
    for more in [(), ("--overwrite",)] if command in ("embed", "classify", "train") else [()]:
        ended = work(made, command, made / folder, *more)
        assert (ended.code, ended.out) == (2, ""), ended
        held = f"the results of `cvjobs {own}`" if HELD[own] == HELD.get(command) else HELD[own]
        assert f"{made / folder} holds {held}: " in ended.err
    assert state(made / folder) == before


def test_an_empty_folder_and_one_with_files_of_others_are_taken(made: Path, tmp_path: Path) -> None:
    for command in ("embed", "index", "query"):
        (tmp_path / command).mkdir()
        (tmp_path / command / "notes.txt").write_text("mine")
        assert work(made, command, tmp_path / command).code == 0
        assert (tmp_path / command / "notes.txt").read_text() == "mine"
