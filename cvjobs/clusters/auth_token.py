"""Ray's authentication token: made so that only its owner can read it, and read to be sent to a cluster that asks."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from cvjobs.common.errors import WrongUse

WHERE = "RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def ensure(lasting: bool = False) -> None:
    """Make the token where there is none, and readable by its owner only; Ray itself would make it readable by all.

    A home that takes none, as containers have it, gets a private folder of temporary files for as long as this process
    lives, named in RAY_AUTH_TOKEN_PATH. Raises WrongUse where a ``lasting`` one is wanted, for other commands to find.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    token, reason = default(), "HOME names no folder of yours"
    if token:
        try:
            _keep(token)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return
    if lasting:
        what = token or "~/.ray/auth_token"
        raise WrongUse(f"The token {what} cannot be made ({reason}): set RAY_AUTH_TOKEN, or HOME to a folder of yours.")
    private = Path(tempfile.mkdtemp(prefix="cvjobs-token-"))  # of mode 0700
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    _keep(private / "auth_token")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(private / "auth_token")


def _keep(token: Path) -> None:
    """Make a token, or see to it that the one that is there is its owner's alone, and no empty file."""
    token.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        found = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if stat.S_IMODE(token.stat().st_mode) != 0o600:
            token.chmod(0o600)
        if token.read_bytes().strip():
            return
        found = os.open(token, os.O_WRONLY | os.O_TRUNC)
    with open(found, "w") as file:
        file.write(secrets.token_hex(32))


def read() -> str:
    """Return the token as Ray looks for it, "" where there is none; raises WrongUse for a file that cannot be read."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    file = Path(named) if named else default()
    if file is None:
        return ""
    try:
        return file.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        if not named:
            return ""
        raise WrongUse(f"There is no token in {file}: correct RAY_AUTH_TOKEN_PATH.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"The token in {file} cannot be read: make it readable for you, and only for you.") from error


def default() -> Path | None:
    """Return where Ray looks for the token of a user, None where HOME is none: unset, empty, relative, or / without it.

    Ray itself takes HOME alone, not the list of users.
    """
    home = Path(os.environ.get("HOME", ""))
    token = home / ".ray" / "auth_token"
    if not home.is_absolute() or (home == Path("/") and not os.path.exists(token)):
        return None
    return token
