"""Shell completion, driven as the shells' own scripts do it: the line in the environment, the answers on stdout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cvjobs import cli
from cvjobs.config import commands

Press = Callable[..., list[str]]


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Press:
    """A press of the tab key after a line, in a shell; bash splits the line into words itself, also at a =."""

    def pressed(line: str, shell: str = "bash", **more: str) -> list[str]:
        words = line.replace("=", " = ").split(" ")
        told = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        if shell != "bash":
            told = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        for name, value in {"_CVJOBS_COMPLETE": f"complete_{shell}", **told, **more}.items():
            monkeypatch.setenv(name, value)
        assert cli.main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return pressed


def test_commands(press: Press) -> None:
    assert press("cvjobs ") == sorted(commands.files())
    assert press("cvjobs e") == ["embed", "eval", "export"]
    assert press("cvjobs --v") == ["--version"]
    assert press("cvjobs no-such-command --") == []


def test_options_that_may_still_be_given(press: Press) -> None:
    assert press("cvjobs embed photos --pre") == ["--precision"]
    assert press("cvjobs embed photos --precision fp32 --pre") == []
    assert press("cvjobs embed photos --exclude a --excl") == ["--exclude"], "it may be given more than once"
    assert {"--out", "--config", "--id", "--help"} <= set(press("cvjobs embed photos "))
    assert press("cvjobs embed photos -- --pre") == []


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("cvjobs embed --precision ", ["auto", "fp32", "bf16", "fp16"]),
        ("cvjobs embed photos --precision b", ["bf16"]),
        ("cvjobs embed photos --precision=b", ["bf16"]),
        ("cvjobs embed photos --changed-by=content --precision=", ["auto", "fp32", "bf16", "fp16"]),
        ("cvjobs embed photos --weights r", ["random"]),
        ("cvjobs jobs ", ["list", "status", "logs", "wait", "stop"]),
        ("cvjobs cluster up ", ["aws", "hosts", "kuberay", "local"]),
        ("cvjobs export labels --format ", ["coco", "csv", "jsonl", "yolo"]),
        ("cvjobs train data --task autoencoder --model ", ["small/autoencoder"]),
        ("cvjobs train data --model small", ["small/cnn"]),
    ],
)
def test_values(press: Press, line: str, values: list[str]) -> None:
    assert press(line) == values


def test_models(press: Press) -> None:
    found = press("cvjobs classify photos --model torchvision/mobilenet_v3")
    assert found == ["torchvision/mobilenet_v3_large", "torchvision/mobilenet_v3_small"]
    assert "timm/resnet50.a1_in1k" in press("cvjobs embed --model timm/resnet50")
    assert "resnet50.a1_in1k" in press("cvjobs embed --model resnet50"), "a bare name, as the option takes it"
    assert "torchvision/ssdlite320_mobilenet_v3_large" in press("cvjobs detect photos --model ")
    few = press("cvjobs embed photos --model ")
    assert "timm/" in few
    assert len(few) < 250, "thousands are no help"


def test_runs_and_files_are_beside_words(press: Press, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("resnet-run", "random-run", "r 2"):
        (tmp_path / run).mkdir()
    (tmp_path / "ran.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert press("cvjobs embed photos --weights ran") == ["random", "ran.safetensors", "random-run"]
    found = press("cvjobs embed photos --model resnet")
    assert "resnet50.a1_in1k" in found
    assert found[-1] == "resnet-run"
    assert "ran.safetensors" not in press("cvjobs embed photos --model r")
    assert press("cvjobs embed photos --precision f") == ["fp32", "fp16"]


@pytest.mark.parametrize("line", ["cvjobs embed ph", "cvjobs embed photos -o ", "cvjobs embed --model ./r"])
def test_paths_are_left_to_the_shell(press: Press, line: str) -> None:
    assert press(line) == []
    assert press(line, "zsh") == ["_files"]
    assert press("", COMP_WORDS="cvjobs\nembed\n'my ph", COMP_CWORD="2") == []
    assert press("", COMP_WORDS="cvjobs embed 'my ph", COMP_CWORD="2") == []


def test_other_shells_show_what_an_option_is(press: Press) -> None:
    sentence = "The number format of the model, which later runs keep"
    assert press("cvjobs embed photos --pre", "fish") == [f"--precision\t{sentence}"]
    assert press("cvjobs embed photos --precision=b", "fish") == ["--precision=bf16"]
    assert press("cvjobs embed photos --pre", "zsh") == [f"""_arguments '*: :(("--precision":"{sentence}"))'"""]
    assert press("cvjobs embed photos --storage", "zsh")[0].count("'") == 2, "the script's eval sees one word"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_script_for_bash_and_what_a_press_imports() -> None:
    program = "import sys; from cvjobs import cli; cli.main([]); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "_CVJOBS_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    environment["COMP_WORDS"] = "cvjobs embed --model timm/resnet50"
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "timm/resnet50\n" in ended.stdout
    assert not {"torch", "ray", "timm", "torchvision", "numpy", "rich", "pydantic"} & set(ended.stderr.split())
    script = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m cvjobs --show-completion; exit $?"],  # which looks for its parent
        env={**os.environ, "SHELL": "/bin/bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_CVJOBS_COMPLETE" in script.stdout, script
