"""The token: made once, for its owner alone, and read as Ray reads it."""

from __future__ import annotations

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


def test_a_home_that_takes_no_token_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home / "none"))
    with pytest.raises(WrongUse, match=r"auth_token cannot be made \(.*\): set RAY_AUTH_TOKEN"):
        auth_token.ensure()


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
