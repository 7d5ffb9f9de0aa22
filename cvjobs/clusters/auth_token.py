"""Ray's authentication token: made so that only its owner can read it, and read to be sent to a cluster that asks."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cvjobs.common.errors import WrongUse

WHERE = "RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def ensure() -> None:
    """Make the token where there is none, and readable by its owner only; Ray itself would make it readable by all.

    Raises WrongUse where it cannot be made.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    token = _default()
    try:
        token.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        token.chmod(0o600)
    except OSError as error:
        raise WrongUse(
            f"The token {token} cannot be made ({error.strerror}): set RAY_AUTH_TOKEN, or HOME to a folder of yours."
        ) from error


def read() -> str:
    """Return the token as Ray looks for it, "" where there is none; raises WrongUse for a file that cannot be read."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    file = Path(named) if named else _default()
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        if not named:
            return ""
        raise WrongUse(f"There is no token in {file}: correct RAY_AUTH_TOKEN_PATH.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"The token in {file} cannot be read: make it readable for you, and only for you.") from error


def _default() -> Path:
    return Path.home() / ".ray" / "auth_token"
