"""Licences: what each is for, and that weights whose licence forbids something are refused until it is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import here, sentence, some

from cvjobs.common.errors import WrongUse
from cvjobs.networks import licences
from cvjobs.networks.licences import Licence

ATTO = "timm/convnextv2_atto"
REFUSED = (
    f"The licence of the weights of {ATTO}, CC-BY-NC-4.0, forbids commercial use: choose another model, or "
    "accept that with --accept-licence CC-BY-NC-4.0."
)


@pytest.mark.parametrize(
    ("name", "use", "needed"),
    [
        ("Apache-2.0", "free", []),
        ("apache-2.0", "free", []),
        ("CC-BY-SA-4.0", "free", []),
        ("AGPL-3.0", "free", []),
        ("none", "free", []),
        ("yours", "free", []),
        ("CC-BY-NC-SA-3.0", "noncommercial", ["CC-BY-NC-SA-3.0"]),
        ("CC-BY-ND-4.0", "own", ["CC-BY-ND-4.0"]),
        ("apple-amlr", "research", ["apple-amlr"]),
        ("apple-ascl", "own", []),
        ("dinov3-license", "own", ["dinov3-license"]),
        ("unknown", "unknown", ["unknown"]),
        ("Some words of a publisher", "unknown", ["Some words of a publisher"]),
        ("MIT AND CC-BY-NC-4.0", "noncommercial", ["CC-BY-NC-4.0"]),
        ("MIT OR CC-BY-NC-4.0", "free", []),
        ("(gemma OR MIT)", "free", []),
        ("LicenseRef-gemma", "own", ["LicenseRef-gemma"]),
    ],
)
def test_what_a_licence_is_for(name: str, use: str, needed: list[str]) -> None:
    assert licences.terms(name).use == use
    assert licences.restrictive(name) == needed


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("dinov3-license", "dinov3-license"),
        ("other", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_names_are_spelt_as_spdx_does(name: str | None, spelt: str) -> None:
    assert licences.spelt(name) == spelt


def test_every_row_of_the_table_that_is_not_free_says_what_it_is() -> None:
    for name, terms in licences.OWN.items():
        assert terms.use != "free"
        assert terms.forbids or terms.asks, name


def test_all_that_forbids_is_to_be_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    both = Licence(code="MIT", weights="gemma AND CC-BY-NC-4.0")
    with pytest.raises(WrongUse, match=r"--accept-licence gemma --accept-licence CC-BY-NC-4\.0"):
        licences.check(both, "a", [], begun=False)
    with pytest.raises(WrongUse, match=r"with --accept-licence gemma\.$"):
        licences.check(both, "a", ["cc-by-nc-4.0"], begun=False)
    licences.check(both, "a", ["cc-by-nc-4.0", "Gemma"], begun=False)
    assert capsys.readouterr().err == ""
    licences.check(both, "a", [], begun=True)
    assert "what was begun with them goes on" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_the_licence_comes_before_the_download(photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "photos", 2)
    out = tmp_path / "out"
    for command in ("embed", "classify"):
        assert sentence(here(command, source, "-o", out, "--model", ATTO), 2) == REFUSED
        accepted = sentence(here(command, source, "-o", out, "--model", ATTO, "--accept-licence", "cc-by-nc-4.0"), 2)
        assert "The licence" not in accepted
        assert "is not in" in accepted
    assert not out.exists()
    bare = sentence(here("embed", source, "-o", out, "--model", "convnextv2_atto.fcmae"), 2)
    assert bare == REFUSED.replace(ATTO, "convnextv2_atto.fcmae")
    assert sentence(here("embed", source, "-o", out, "--model", "timm/resnet50.bamboo"), 2) == (
        "The licence of the weights of timm/resnet50.bamboo is unknown, and without one nothing is allowed: "
        "choose another model, or accept that with --accept-licence unknown."
    )
    (tmp_path / "cvjobs.yaml").write_text("embed: {accept_licence: [CC-BY-NC-4.0, unknown]}")
    config = ("--config", tmp_path / "cvjobs.yaml")
    assert "is not in" in sentence(here("embed", source, "-o", out, "--model", ATTO, *config), 2)


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_training_with_them(tmp_path: Path, photos: Path) -> None:
    source = tmp_path / "data"
    for label in ("a", "b"):
        some(photos, source / label, 4)
    ended = here("train", source, "-o", tmp_path / "run", "--model", ATTO)
    assert sentence(ended, 2) == REFUSED
    assert not (tmp_path / "run").exists()
    accepted = here("train", source, "-o", tmp_path / "run", "--model", ATTO, "--accept-licence", "CC-BY-NC-4.0")
    assert "is not in" in accepted.err


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_random_weights_are_exempt_and_what_is_written_says_so(photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "photos", 2), tmp_path / "out"
    words = ("embed", source, "-o", out, "--model", "timm/convnextv2_atto", "--weights", "random", "--json")
    ended = here(*words)
    assert ended.code == 0, ended
    expected = {"code": "Apache-2.0", "weights": "none", "use": "free"}
    assert json.loads(ended.out)["licence"] == expected
    files = list((out / "data").rglob("*.parquet"))
    assert files
    for file in files:
        assert json.loads(pq.read_schema(file).metadata[b"cvjobs.licence"]) == expected
    assert "code Apache-2.0, no published weights" in (out / "report.html").read_text()
    again = json.loads(here(*words).out)
    assert (again["computed"], again["licence"]) == (0, expected)


def test_the_default_models_need_no_flag() -> None:
    for task, name in {
        "embed": "torchvision/mobilenet_v2",
        "detect": "torchvision/fasterrcnn_resnet50_fpn_v2",
        "segment": "torchvision/deeplabv3_mobilenet_v3_large",
        "autoencoder": "small/autoencoder",
    }.items():
        rows = json.loads(here("models", "--task", task, "--json").out)["models"]
        (row,) = [row for row in rows if row["model"] == name]
        assert row["use"] == "free"
