"""Options that name a place: an empty name, and one that no file can have, are refused before anything is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from commands import here

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.config import commands, fields, yaml_file
from cvjobs.sources.listing import list_source
from cvjobs.storage.store import file_at, open_store

LONG = "x" * 300
PLACES = [
    (command, field)
    for command in commands.files()
    for field in fields.fields(commands.load(command).Config).values()
    if field.place
]
FILES = [(command, field) for command, field in PLACES if field.name not in ("source", "data")]
BAD = {
    "": "is empty: name a file or a folder",
    "a\0b": "holds a NUL character: leave it out",
    LONG: "is too long for the name of a file or a folder: choose a shorter one",
    f"missing/{LONG}/more": "is too long for the name of a file or a folder: choose a shorter one",
    "x/" * 3000: "is too long for the name of a file or a folder: choose a shorter one",
    "file://": "is empty: name a file or a folder",
    "~no-such-user/x": "begins with the home of a user whom this machine does not have: correct it, or put ./ before "
    "it",
    "a\ud800": "holds a character that no name can have: correct it",
    "s3://bucket/a\ud800": "holds a character that no name can have: correct it",
}


def ids(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 20 else getattr(value, "name", "")


def test_which_options_name_a_place() -> None:
    found: dict[str, set[str]] = {}
    for command, field in PLACES:
        found.setdefault(command, set()).add(field.name)
    assert found == {
        "check": {"data", "out", "labels", "vectors"},
        "classify": {"source", "out", "weights", "labels"},
        "detect": {"source", "out", "weights", "labels", "save_images"},
        "embed": {"source", "out", "weights"},
        "eval": {"predictions", "truth", "out", "labels"},
        "export": {"results", "out"},
        "index": {"embeddings", "out"},
        "query": {"index", "source", "out", "html", "weights"},
        "run": {"pipeline"},
        "schedule": {"pipeline", "out"},
        "segment": {"source", "out", "weights", "labels", "masks_dir", "save_images"},
        "train": {"data", "out", "weights", "cache", "labels"},
        "unlock": {"out"},
        "verify": {"out", "source"},
    }


@pytest.mark.parametrize(("command", "field"), FILES, ids=ids)
def test_no_name_of_a_place(command: str, field: fields.Field) -> None:
    assert command in commands.files()
    for name, why in BAD.items():
        with pytest.raises(WrongUse) as refused:
            fields.checked(field, name, field.spelt)
        assert str(refused.value) == f"{field.spelt} {why}."


@pytest.mark.parametrize("command", sorted({command for command, _ in PLACES}))
def test_a_command_says_so_from_python_yaml_and_a_shell(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = commands.load(command).Config
    known = fields.fields(config)
    needed = {field.name: "there" for field in known.values() if field.required}
    for name in [field.name for other, field in FILES if other == command]:
        for bad in ("", LONG, "a\0b"):
            sentence = rf" {BAD[bad]}\."
            with pytest.raises(WrongUse, match=f"^{name}{sentence}$"):
                getattr(cvjobs, command)(**{**needed, name: bad})
            if bad or not known[name].optional:  # an optional one without a value is not given, in YAML
                with pytest.raises(WrongUse, match=f"^'{name}' under 'x'{sentence}$"):
                    yaml_file.options(config, {name: bad}, " under 'x'")
            if "\0" not in bad:
                given = {**needed, name: bad}
                places = [given[key] for key, field in known.items() if field.positional and key in given]
                options = [
                    f"--{key.replace('_', '-')}={value}" for key, value in given.items() if not known[key].positional
                ]
                ended = here(command, *options, "--", *places)
                assert (ended.code, ended.out) == (2, "")
                assert ended.err == f"cvjobs: {known[name].spelt} {BAD[bad]}.\n"
    assert not os.listdir(tmp_path)


def test_text_without_a_nul_character_alone(tmp_path: Path) -> None:
    for name in ("layer", "source", "model"):
        given: dict[str, Any] = {"source": "photos", "out": str(tmp_path / "o"), name: "a\0b"}
        with pytest.raises(WrongUse, match=rf"^{name} holds a NUL character: leave it out\.$"):
            cvjobs.embed(**given)
    with pytest.raises(WrongUse, match=r"^Every entry of storage_option holds a NUL character: leave it out\.$"):
        cvjobs.embed("photos", str(tmp_path / "o"), storage_option=["region=\0"])


def test_a_source_may_be_a_long_glob_but_not_nothing(tmp_path: Path) -> None:
    field = fields.fields(commands.load("embed").Config)["source"]
    glob = f"photos/[{'a-z' * 200}]*.jpg"
    assert fields.checked(field, glob, "SOURCE") == glob
    with pytest.raises(WrongUse, match=r"^SOURCE is empty: name a file or a folder\.$"):
        fields.checked(field, "", "SOURCE")
    with pytest.raises(WrongUse, match="cannot be read"):
        cvjobs.embed(LONG, str(tmp_path / "o"), model="thumbnail/4")


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
def test_an_output_that_is_opened(name: str) -> None:
    why = BAD[name].replace(".", r"\.")
    for work in (open_store, cvjobs.open):
        with pytest.raises(WrongUse, match=rf"^The name '.*' {why}\.$"):
            work(name)
    with pytest.raises(WrongUse):
        file_at(f"{name}/f" if name else name)


def test_names_that_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~old").mkdir()
    field = fields.fields(commands.load("embed").Config)["out"]
    for name in (
        "o",
        ".",
        "~",
        "~/x",
        " ",
        "x" * 255,
        "missing/o",
        "~old",
        "./~new",
        "file:///tmp/o",
        f"s3://bucket/{LONG}",
        os.fsdecode(b"caf\xe9"),
        "ü" * 127,
    ):
        assert fields.checked(field, name, "out") == (os.path.expanduser(name) if name[:2] in ("~", "~/") else name)
        assert open_store(name)


HOMED = {
    "embed": ("source", "out", "weights", "model"),
    "classify": ("source", "out", "labels"),
    "segment": ("source", "masks_dir"),
    "train": ("data", "out", "cache", "weights"),
    "eval": ("predictions", "truth"),
    "index": ("embeddings", "out"),
    "query": ("index", "source", "html"),
    "verify": ("out", "source"),
}


@pytest.mark.parametrize("command", HOMED)
def test_home_is_meant_wherever_a_place_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.chdir(tmp_path)
    config = commands.load(command).Config
    known = fields.fields(config)
    (tmp_path / "cvjobs.yaml").write_text(
        f"{command}:\n" + "".join(f"  {name}: ~/{name}\n" for name in HOMED[command] if name in known)
    )
    given = yaml_file.section(config, command, [command], None)
    assert given == {name: f"{tmp_path}/ada/{name}" for name in HOMED[command] if name in known}
    assert len(given) > 1
    assert fields.checked(known[next(iter(given))], "~/*/x", "it") == f"{tmp_path}/ada/*/x"


def test_a_folder_that_is_called_so_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    source = fields.fields(commands.load("embed").Config)["source"]
    assert fields.checked(source, "~/photos", "source") == "~/photos"


def test_home_is_not_meant_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jpg").touch()
    (tmp_path / "l.txt").write_text("~/a.jpg\n")
    assert list_source(str(tmp_path / "l.txt")).failures["path"].to_pylist() == ["~/a.jpg"]


@pytest.mark.parametrize("name", ["dangling", "loop", "dangling/below/it", "loop/below", "folder/up"])
def test_a_link_that_leads_nowhere_is_no_output(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("folder/up").symlink_to("../dangling")
    for work in (open_store, file_at):
        with pytest.raises(WrongUse, match=r"is a link to .*, which leads nowhere: make what it leads to, or choose"):
            work(name)
    Path("nowhere").mkdir()
    if name != "loop" and not name.startswith("loop/"):
        assert open_store(name)


@pytest.mark.parametrize(
    "line",
    [
        "embed p -o dangling --model thumbnail/4",
        "classify p -o dangling",
        "detect p -o dangling",
        "segment p -o dangling",
        pytest.param("train p -o dangling", marks=pytest.mark.slow),
    ],
)
def test_commands_say_so_in_one_sentence(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.jpg").touch()
    Path("dangling").symlink_to("nowhere")
    ended = here(*line.split())
    assert ended.code == 2, ended
    assert f"{tmp_path}/dangling is a link to nowhere, which leads nowhere" in ended.err
    assert not (tmp_path / "nowhere").exists()
