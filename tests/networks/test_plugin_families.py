"""Families of other packages: the example of docs/extending.md, installed, listed without importing it, and used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import environment, here, said, sentence, some

from cvjobs.networks import registry

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/extending.md"
MODULE, PROJECT = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
NAME = "colours/mean"
WARNING = (
    f"cvjobs: The licence of the weights of {NAME}, CC-BY-NC-4.0, forbids commercial use: what was begun with them "
    "goes on; --accept-licence CC-BY-NC-4.0 says that you accept it."
)
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with a module, a licence and entry points where Python finds it before others."""

    def installed(module: str, licence: str = "", family: str = "colours", name: str = "cvjobs_colours") -> Path:
        folder = tmp_path / f"site{len(list(tmp_path.glob('site*')))}"
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (folder / f"{name}.py").write_text(module)
        expression = f"License-Expression: {licence}\n" if licence else ""
        (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{expression}")
        (about / "entry_points.txt").write_text(
            f"[cvjobs.families]\n{family} = {name}\n\n[cvjobs.models.embed]\n{family}/mean = {name}:embedder\n"
        )
        forget()
        monkeypatch.syspath_prepend(folder)
        return folder

    yield installed
    forget()


def forget() -> None:
    sys.modules.pop("cvjobs_colours", None)


def without_licence(module: str = MODULE) -> str:
    """The module whose licence its package's metadata say."""
    return re.sub(r"def licence.*?\n\n\n", "", module, flags=re.DOTALL)


def test_the_example_is_built_listed_and_embeds(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(MODULE.splitlines()) <= 36
    project, site = tmp_path / "project", tmp_path / "site"
    project.mkdir()
    (project / "cvjobs_colours.py").write_text(MODULE)
    (project / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, project], check=True, capture_output=True)
    program = (
        "import sys; from cvjobs import cli; cli.main(['models', '--json']); "
        "print('cvjobs_colours' in sys.modules, file=sys.stderr)"
    )
    path = f"{site}:{environment()['PYTHONPATH']}"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment(PYTHONPATH=path), capture_output=True, text=True, check=True
    )
    assert ended.stderr.split() == ["False"]
    listed = json.loads(ended.stdout)
    assert listed["colours"] == ["mean"]
    (row,) = [row for row in listed["models"] if row["family"] == "colours"]
    assert (row["model"], row["tasks"], row["licence_code"], row["use"]) == (NAME, ["embed"], "MIT", "free")

    monkeypatch.syspath_prepend(site)
    out, source = tmp_path / "out", some(photos, tmp_path / "photos", 3)
    ended_here = here("embed", source, "-o", out, "--model", NAME)
    assert ended_here.code == 0, ended_here
    table = pq.read_table(out / "data")
    assert table.num_rows == 3
    assert {len(vector) for vector in table["embedding"].to_pylist()} == {3}
    assert registry.embedder("mean").name == NAME, "a bare name"
    forget()


def test_a_licence_that_forbids_something(photos: Path, tmp_path: Path, install: Install) -> None:
    install(without_licence(), "MIT AND CC-BY-NC-4.0")
    source, out = some(photos, tmp_path / "photos", 2), tmp_path / "out"
    refused = sentence(here("embed", source, "-o", out, "--model", NAME), 2)
    assert refused == (
        f"The licence of the weights of {NAME}, CC-BY-NC-4.0, forbids commercial use: choose another model, "
        "or accept that with --accept-licence CC-BY-NC-4.0."
    )
    assert not out.exists()
    ended = here("embed", source, "-o", out, "--model", NAME, "--accept-licence", "CC-BY-NC-4.0")
    assert (ended.code, "goes on" in ended.err) == (0, False)
    file = next((out / "data").rglob("*.parquet"))
    record = {"code": "MIT AND CC-BY-NC-4.0", "weights": "MIT AND CC-BY-NC-4.0", "use": "noncommercial"}
    assert json.loads(pq.read_schema(file).metadata[b"cvjobs.licence"]) == record
    assert "(non-commercial)" in (out / "report.html").read_text()


def test_without_any_licence_it_is_unknown(photos: Path, tmp_path: Path, install: Install) -> None:
    install(without_licence())
    refused = sentence(here("embed", photos, "-o", tmp_path / "out", "--model", NAME), 2)
    assert "is unknown, and without one nothing is allowed" in refused


def test_what_was_begun_goes_on_with_a_warning(photos: Path, tmp_path: Path, install: Install) -> None:
    install(without_licence(), "MIT")
    source, out = some(photos, tmp_path / "photos", 2), tmp_path / "out"
    assert here("embed", source, "-o", out, "--model", NAME).code == 0
    install(without_licence(), "CC-BY-NC-4.0")
    ended = here("embed", source, "-o", out, "--model", NAME, "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["computed"] == 0
    assert WARNING in said(ended.err)
    some(photos, source, 3)
    more = json.loads(
        here("embed", source, "-o", out, "--model", NAME, "--accept-licence", "CC-BY-NC-4.0", "--json").out
    )
    assert (more["computed"], more["reused"]) == (1, 2)
    assert "choose another model" in sentence(here("embed", source, "-o", out, "--model", NAME, "--overwrite"), 2)


@pytest.mark.faults(minutes=0.3)
def test_an_index_goes_on_with_a_warning(photos: Path, tmp_path: Path, install: Install) -> None:
    install(without_licence(), "MIT")
    source, out, index = some(photos, tmp_path / "photos", 8), tmp_path / "out", tmp_path / "index"
    assert here("embed", source, "-o", out, "--model", NAME).code == 0
    assert here("index", out, "-o", index).code == 0
    install(without_licence(), "CC-BY-NC-4.0")
    image = next(source.rglob("*.jpg"))
    asked = here("query", index, image)
    assert (asked.code, WARNING in said(asked.err)) == (0, True), asked
    assert WARNING not in here("query", index, image, "--accept-licence", "CC-BY-NC-4.0").err


def test_a_module_that_is_broken_is_one_sentence(photos: Path, tmp_path: Path, install: Install) -> None:
    folder = install("1 / 0\n", "MIT")
    assert "  colours/mean" in here("models").out, "the metadata are whole"
    broken = sentence(here("embed", photos, "-o", tmp_path / "out", "--model", NAME), 1)
    assert f"The model family colours cannot be used: {folder}/cvjobs_colours.py, line 1" in broken
    install("def names(task):\n    return ['mean']\n\n\ndef licence(name):\n    return 'MIT'\n")
    assert "returns no Licence" in sentence(here("embed", photos, "-o", tmp_path / "out", "--model", NAME), 1)


def test_a_name_of_ours_is_left_out(install: Install) -> None:
    install(MODULE, "MIT", family="thumbnail")
    ended = here("models")
    assert said(ended.err) == [
        "cvjobs: The model family thumbnail of the package cvjobs_colours is left out: cvjobs has one of that name."
    ]
    assert "thumbnail/mean" not in ended.out
    assert registry.embedder("thumbnail/8").dim == 192


def test_completion_knows_them(install: Install) -> None:
    from cvjobs.networks import model_suggestions

    install(MODULE, "MIT")
    assert model_suggestions.names("embed", "colours/") == [NAME]
    assert model_suggestions.names("embed", "mea") == ["mean"]
