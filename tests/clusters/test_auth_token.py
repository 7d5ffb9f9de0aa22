"""The token: made once, for its owner alone, and read as Ray reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvjobs.clusters import auth_token
from cvjobs.common.errors import WrongUse


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_token_is_made_once_and_is_its_owners(home: Path) -> None:
    assert auth_token.read() == ""
    auth_token.ensure()
    token, file = auth_token.read(), home / ".ray" / "auth_token"
    assert len(token) == 64
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o644)
    auth_token.ensure()
    assert (auth_token.read(), file.stat().st_mode & 0o777) == (token, 0o600)


def test_the_environment_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine").write_text("from a file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "mine"))
    assert auth_token.read() == "from a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", " own ")
    assert auth_token.read() == "own"
    auth_token.ensure()
    assert not (home / ".ray").exists()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "gone"))
    with pytest.raises(WrongUse, match=r"There is no token in .*: correct RAY_AUTH_TOKEN_PATH"):
        auth_token.read()


@pytest.mark.parametrize("home", [None, "", "/", "relative", "none", "file", "loose"])
def test_a_home_that_takes_none_gets_a_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.delenv("HOME", raising=False)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    if home is not None:
        monkeypatch.setenv("HOME", str(tmp_path / home) if home in ("none", "file", "loose") else home)
    assert auth_token.read() == ""
    with pytest.raises(WrongUse, match=r"auth_token cannot be made \(.*\): set RAY_AUTH_TOKEN, or HOME to a folder"):
        auth_token.ensure(lasting=True)
    auth_token.ensure()
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.is_relative_to(tmp_path)
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert len(auth_token.read()) == 64
    before = auth_token.read()
    auth_token.ensure()
    assert auth_token.read() == before


def test_a_home_that_cannot_be_written_to(read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(read_only))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    auth_token.ensure()
    assert os.environ["RAY_AUTH_TOKEN_PATH"].startswith(str(tmp_path / "cvjobs-token-"))


def test_a_private_token_is_gone_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os\nfrom cvjobs.clusters import auth_token as t\nt.ensure()\nprint(os.environ['RAY_AUTH_TOKEN_PATH'])"
    )
    variables = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("RAY_")}
    variables["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_was_left_empty_is_made_anew(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.touch(0o644)
    auth_token.ensure()
    assert (len(auth_token.read()), file.stat().st_mode & 0o777) == (64, 0o600)
