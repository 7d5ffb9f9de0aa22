"""What `pip install cvjobs` leaves out is named by the option or page that needs it, with the line that installs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from training import SIDE, folder

import cvjobs
from cvjobs.cli import main
from cvjobs.common import extras
from cvjobs.common.errors import WrongUse


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes."""
    root: Path = folder(tmp_path_factory.mktemp("images"), 8)
    return root


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which no extra is installed."""
    for package in (module.partition(".")[0] for module in extras.MODULES.values()):
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("extra", extras.MODULES)
def test_what_is_missing_is_one_line_to_install(extra: str) -> None:
    with pytest.raises(WrongUse, match=re.escape(f"pip install 'cvjobs[{extra}]'.")):
        extras.load(extra, "--this")


@pytest.mark.usefixtures("bare")
def test_an_option_without_its_extra_is_refused_before_anything_is_done(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(images), "-o", str(run), "--model", "small/cnn", "--tensorboard"]) == 2
    said = capsys.readouterr().err
    assert "--tensorboard needs tensorboardX: pip install 'cvjobs[tensorboard]'." in said
    assert not run.exists()


@pytest.mark.usefixtures("bare")
def test_a_page_without_maps_says_what_they_need(images: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "model": "small/cnn",
        "recipe": "quick",
        "epochs": 1,
        "img_size": str(SIDE),
        "batch_size": 16,
    }
    cvjobs.train(images, tmp_path / "run", **small, lr=1e-9)  # which learns nothing
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r"Without maps .*: Grad-CAM needs captum: pip install &#39;cvjobs\[maps\]&#39;\.", page)
    assert 'class="beside"' not in page


def test_every_extra_is_one_of_the_package_and_all_has_each() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    offered = project["optional-dependencies"]
    assert set(offered) == {*extras.MODULES, "all", "dev"}
    for extra, module in extras.MODULES.items():
        assert any(requirement.startswith(module.partition(".")[0]) for requirement in offered[extra])
        assert not any(requirement.startswith(module.partition(".")[0]) for requirement in project["dependencies"])
    assert offered["all"] == [f"cvjobs[{','.join(sorted(extras.MODULES))}]"]
    assert "cvjobs[all]" in offered["dev"]


@pytest.mark.parametrize("content", ["raise RuntimeError('mine')", "", "import no_such_module"])
def test_a_file_in_the_way_of_a_module_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text(content)
    program = (
        "from cvjobs.common import extras\n"
        "try:\n    import queue\n    queue.Queue\n"
        "except Exception as error:\n    print(extras.shadowed(error))"
    )
    (tmp_path / "program.py").write_text(program)
    line = [sys.executable, "-m", "program"]
    for how in ({"cwd": tmp_path}, {"cwd": "/", "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}):
        done = subprocess.run(line, capture_output=True, text=True, check=True, **how)
        assert done.stdout.startswith(f"{tmp_path}/queue.py is taken for the module queue ("), done
    (tmp_path / "queue-1.dist-info").mkdir()
    done = subprocess.run(line, capture_output=True, text=True, check=True, **how)
    assert done.stdout == "\n", "a folder that packages were installed into"


def test_no_file_is_in_the_way_of_a_module() -> None:
    assert extras.shadowed(ValueError("a bug of ours")) == ""
