"""A Config as Python keywords and as a section of cvjobs.yaml: types, precedence and what a wrong value says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from cvjobs.common.errors import WrongUse
from cvjobs.config import fields, yaml_file


@dataclass(frozen=True, kw_only=True)
class Toy:
    """One option of every kind."""

    source: Annotated[str, typer.Argument(help="Images.")]
    out: Annotated[str, typer.Option("-o", "--out", help="Output.")]
    batch_size: Annotated[str, typer.Option(help="Images at once.")] = "auto"
    workers: Annotated[int, typer.Option(min=1, max=99, help="Ray workers.")] = 1
    crew: Annotated[int | str | None, typer.Option(min=2, metavar="N|MIN:MAX", help="Workers.")] = None
    rate: Annotated[float, typer.Option(help="A share.")] = 0.1
    limit: Annotated[int | None, typer.Option(help="At most.")] = None
    precision: Annotated[Literal["auto", "off", "fp32"], typer.Option(help="Numbers.")] = "auto"
    classes: Annotated[tuple[int, ...], typer.Option(help="Only these.")] = ()
    overwrite: Annotated[bool, typer.Option(help="Start anew.")] = False


def read(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yaml_file.section(Toy, "toy", ["toy", "train"], str(file))


def test_positions_are_arguments_then_required_options() -> None:
    assert fields.build(Toy, "photos", "vectors") == Toy(source="photos", out="vectors")
    assert fields.build(Toy, out="o", source="s", workers=3).workers == 3


def test_python_values_become_the_declared_types() -> None:
    built = fields.build(Toy, Path("photos"), "o", rate=1, classes=[1, 2], limit=None)
    assert (built.source, built.rate, built.classes, built.limit) == ("photos", 1.0, (1, 2), None)
    assert isinstance(built.rate, float)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workres": 2}, "There is no option 'workres' (nearest: workers)."),
        ({"workers": "2"}, "workers must be a whole number at least 1 and at most 99, not '2'."),
        ({"workers": 0}, "workers must be a whole number at least 1 and at most 99, not 0."),
        ({"workers": 100}, "workers must be a whole number at least 1 and at most 99, not 100."),
        ({"workers": True}, "workers must be a whole number at least 1 and at most 99, not True."),
        ({"workers": None}, "workers must be a whole number at least 1 and at most 99, not None."),
        ({"crew": 1}, "crew must be a whole number at least 2 or MIN:MAX, not 1."),
        ({"crew": 2.5}, "crew must be a whole number at least 2 or MIN:MAX, not 2.5."),
        ({"rate": "half"}, "rate must be a number, not 'half'."),
        ({"overwrite": 1}, "overwrite must be true or false, not 1."),
        ({"precision": "fp23"}, "precision must be one of auto, off, fp32, not 'fp23' (nearest: fp32)."),
        ({"classes": 3}, "classes must be a list, not 3: write [3]."),
        ({"classes": None}, "classes must be a list, not None: write [] for none."),
        ({"classes": {}}, "classes must be a list, each entry a whole number, not a mapping."),
        ({"classes": [1, "b"]}, "Every entry of classes must be a whole number, not 'b'."),
        ({"limit": 2**63}, f"limit must be a whole number at most {2**63 - 1}, not {2**63}."),
        ({"limit": -(2**70)}, f"limit must be a whole number at least {1 - 2**63}, not {-(2**70)}."),
        ({"crew": 2**63}, f"crew must be a whole number at least 2 and at most {2**63 - 1} or MIN:MAX, not {2**63}."),
        ({"rate": 2e9}, "rate must be a number at most 1000000000, not 2000000000.0."),
        ({"rate": -(10**400)}, f"rate must be a number at least -1000000000, not -1{'0' * 75}...."),
        ({"rate": float("nan")}, "rate must be a number, not nan."),
        ({"classes": [1, 2**64]}, f"Every entry of classes must be a whole number at most {2**63 - 1}, not {2**64}."),
        ({"source": "again"}, "source is given twice: by position and by name."),
    ],
)
def test_a_wrong_python_value_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WrongUse) as caught:
        fields.build(Toy, "photos", **({"out": "o"} | options))
    assert str(caught.value) == sentence


def test_a_whole_number_or_words(tmp_path: Path) -> None:
    for written, value in (("4", 4), ("1:4", "1:4"), ("null", None)):
        assert read(tmp_path, f"toy: {{crew: {written!r}}}") == {"crew": value}
        assert fields.build(Toy, "photos", "o", crew=value).crew == value
    with pytest.raises(WrongUse, match="must be a whole number at least 2 or MIN:MAX, not 1"):
        read(tmp_path, "toy: {crew: 1}")


def test_missing_and_surplus_values() -> None:
    with pytest.raises(WrongUse, match=r"^out is missing: pass out=\.\.\.$"):
        fields.build(Toy, "photos")
    with pytest.raises(WrongUse, match="give at most source and out"):
        fields.build(Toy, "photos", "o", "x")


def test_yaml_means_what_the_command_line_means(tmp_path: Path) -> None:
    text = """
    toy:
      source: 007
      batch-size: 64
      workers: "4"
      rate: 1e-3
      limit: null
      precision: off
      classes: [1, 2]
      overwrite: yes
    train: {lr: 1}
    """
    assert read(tmp_path, text) == {
        "source": "007",
        "batch_size": "64",
        "workers": 4,
        "rate": 0.001,
        "limit": None,
        "precision": "off",
        "classes": (1, 2),
        "overwrite": True,
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "toy:\n", "train: {lr: 1}\n", "{}"])
def test_yaml_without_the_section_gives_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("toy: {workres: 2}", "There is no option 'workres' under 'toy' in {} (nearest: workers)."),
        ("trian: {lr: 1}", "{} has a section 'trian', which is no command (nearest: train)."),
        ("toy: {workers: many}", "'workers' under 'toy' in {} must be a whole number at least 1 and at most 99"),
        ("toy: {workers: }", "'workers' under 'toy' in {} must be a whole number at least 1 and at most 99, not ''."),
        ("toy: {workers: [1]}", "'workers' under 'toy' in {} must be a whole number at least 1 and at most 99, not a"),
        ("toy: {classes: 3}", "'classes' under 'toy' in {} must be a list, not '3': write ['3']."),
        ("toy: {classes: }", "'classes' under 'toy' in {} must be a list, not '': write [] for none."),
        ("toy: {classes: ~}", "'classes' under 'toy' in {} must be a list, not '~': write [] for none."),
        (
            "toy: {classes: {a: b}}",
            "'classes' under 'toy' in {} must be a list, each entry a whole number, not a mapping.",
        ),
        ("toy: {out: {a: b}}", "'out' under 'toy' in {} must be text, not a mapping."),
        ("toy: {batch-size: 1, batch_size: 2}", "'batch_size' is given twice under 'toy' in {}: remove one."),
        ("toy: [workers]", "'toy' in {} must map options to values, as in"),
        ("- toy", "{} must map commands to their options, as in"),
        ("toy:\n  a:: b: c", "{} is not valid YAML in line 2 ("),
        (b"toy: \xff", "{} is not valid YAML"),
        ("[" * 10_000, "{} is nested too deeply: give --config a YAML file"),
        ("#" * (yaml_file.LIMIT + 1), "{} is larger than 1 MiB"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(WrongUse) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(sentence.replace("{}", str(tmp_path / "a.yaml"), 1))
    assert "\n" not in str(caught.value)


def test_a_key_that_is_given_twice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "toy:\n  workers: 1\n  out: a\n  workers: 2\ntrain: {x: {b: 1, b: 2}}\n"
    assert read(tmp_path, text) == {"workers": 2, "out": "a"}
    file = tmp_path / "a.yaml"
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"cvjobs: {file} gives 'b' 2 times: the one in line 5 counts.",
        f"cvjobs: {file} gives 'workers' 2 times: the one in line 4 counts.",
    ]
    assert read(tmp_path, "toy: &a {out: x}\ntrain: *a\n") == {"out": "x"}
    assert capsys.readouterr().err == ""


def test_tags_make_nothing_but_text(tmp_path: Path) -> None:
    assert read(tmp_path, "toy: {out: !!python/object/apply:os.getcwd x}") == {"out": "x"}
    with pytest.raises(WrongUse, match="must be text, not a list"):
        read(tmp_path, "toy: {out: !!python/object/apply:os.getcwd []}")


def test_aliases_cannot_blow_up_a_message(tmp_path: Path) -> None:
    bomb = "toy:\n  out: &a0 [x, x]\n" + "".join(f"  k{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    with pytest.raises(WrongUse, match="must be text, not a list"):
        read(tmp_path, bomb)


def test_cvjobs_yaml_of_the_working_directory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert yaml_file.section(Toy, "toy", ["toy"], None) == {}
    Path("cvjobs.yaml").write_text("toy: {workers: 2}")
    assert yaml_file.section(Toy, "toy", ["toy"], None) == {"workers": 2}


def test_a_config_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="No such file or directory"):
        yaml_file.section(Toy, "toy", ["toy"], str(tmp_path / "none.yaml"))
