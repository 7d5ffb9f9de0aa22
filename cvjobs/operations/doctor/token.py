"""Whether Ray asks for a token, and whether that token is the user's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cvjobs.clusters import auth_token
from cvjobs.operations.doctor.finding import Finding


def check() -> Iterator[Finding]:
    """Look at Ray's mode of authentication and at the token where Ray looks for it."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode and mode.lower() != "token":
        what = f"RAY_AUTH_MODE is {mode}: all who reach Ray's ports can run code as you"
        yield Finding.broken("token", what, "Run: export RAY_AUTH_MODE=token.")
    elif mode:
        yield Finding.ok("token", "RAY_AUTH_MODE is token")
    if os.environ.get("RAY_AUTH_TOKEN"):
        what = "the token is in the environment, which every process of yours hands on"
        yield Finding.warning("token", what, "Put it into a file of mode 0600 and name that in RAY_AUTH_TOKEN_PATH.")
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else auth_token.default()
    if file is None:
        yield Finding.ok(
            "token", "each command that starts a Ray gives it a token of its own, for HOME has no place for one"
        )
        return
    try:
        found = file.stat()
    except OSError as error:
        if named:
            what = f"RAY_AUTH_TOKEN_PATH names {file}, which cannot be read ({error.strerror})"
            yield Finding.broken("token", what, "Correct RAY_AUTH_TOKEN_PATH.")
        else:
            yield Finding.ok("token", f"there is no token yet; Ray makes {file} when it starts")
        return
    loose = stat.S_IMODE(found.st_mode) & 0o077
    if loose:
        what = f"{file} has mode {stat.S_IMODE(found.st_mode):04o}: others on this machine can run code as you"
        yield Finding.broken("token", what, f"Run: chmod 600 {file}.")
    elif found.st_uid != os.getuid():
        yield Finding.broken("token", f"{file} belongs to another user", f"Run: sudo chown {os.getuid()} {file}.")
    else:
        yield Finding.ok("token", f"{file} is readable for you alone")
