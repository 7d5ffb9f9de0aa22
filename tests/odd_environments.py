"""Odd machines: variables that are unset, empty, unwritable, full, long or not ASCII, and where a command stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# What each variable means, and so which values of it are odd.
FOLDERS = (
    *("HOME", "TMPDIR", "RAY_TMPDIR", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
    *("TEMP", "TMP", "PYTHONPYCACHEPREFIX"),
)
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "COLUMNS", "LINES", "MALLOC_ARENA_MAX", "PYTHONHASHSEED")
WORDS = (
    *("LANG", "LC_ALL", "LANGUAGE", "TERM", "NO_COLOR", "FORCE_COLOR", "TZ", "USER", "LOGNAME", "SHELL", "PATH", "PWD"),
    *("CUDA_VISIBLE_DEVICES", "MPLBACKEND", "http_proxy", "https_proxy", "no_proxy", "RAY_AUTH_TOKEN", "AWS_PROFILE"),
    *("RAY_LOG_TO_STDERR", "RAY_BACKEND_LOG_LEVEL", "AWS_REGION", "PYTHONUTF8", "PYTHONUNBUFFERED"),
)
NUMBERS = ("garbage", "0", "-1", "1", "4,2", "1e3", "nan", "9" * 20, " 2 ", "0x2", "٣")
TEXTS = (
    *("garbage", "dumb", "C", "C.UTF-8", "de_DE.UTF-8", "\u00e9 \u00fc", ":", "/", "-", "x" * 5000, "\udcff", "1"),
    *("http://[::1", "%", "$(x)"),
)
ENCODINGS = ("ascii", "ascii:strict", "latin-1", "utf-16", "utf-8:surrogateescape")
# What Python itself, or the user's own choice of programs, ends with: no command of ours begins.
NEVER = frozenset({("PYTHONHASHSEED", value) for value in NUMBERS} | {("PYTHONUTF8", value) for value in TEXTS})


@dataclass
class Places:
    """Folders that are odd in one way each; ``sealed`` is read-only, ``full`` has no room."""

    root: Path
    sealed: Path | None = None
    full: Path | None = None
    names: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "file").touch()
        self.names = {
            "missing": self.root / "no" / "such",
            "long": self.root / ("x" * 120),
            "accented": self.root / "é ü\n",
            "file": self.root / "file",
            "below a file": self.root / "file" / "below",
            "closed to root": Path("/proc/nothing"),
            "everyone's": Path("/"),
        }
        for name in ("long", "accented"):
            self.names[name].mkdir(exist_ok=True)
        self.names |= {name: place for name, place in (("sealed", self.sealed), ("full", self.full)) if place}


def environment(random: np.random.Generator, places: Places) -> dict[str, str | None]:
    """One to four variables with their values, None for one that is not set."""
    found: dict[str, str | None] = {}
    for name in random.choice([*FOLDERS, *COUNTS, *WORDS, "PYTHONIOENCODING"], random.integers(1, 5), replace=False):
        values: list[str | None] = [None, ""]
        if name in FOLDERS:
            values += [*map(str, places.names.values()), "relative", "~/x"]
        elif name in COUNTS:
            values += NUMBERS
        elif name == "PYTHONIOENCODING":
            values = [None, *ENCODINGS]
        else:
            values += TEXTS
        value = values[random.integers(len(values))]
        if (name, value) not in NEVER:
            found[str(name)] = value
    return found


def applied(changes: dict[str, str | None], base: dict[str, str]) -> dict[str, str]:
    """An environment with changes."""
    kept = {name: value for name, value in base.items() if name not in changes}
    return kept | {name: value for name, value in changes.items() if value is not None}


# How a process is started: lines of a shell before the command.
STANDS = {
    "as it is": 'exec "$@"',
    "in a folder that was deleted": 'mkdir gone && cd gone && rmdir ../gone && exec "$@"',
    "without standard input": 'exec "$@" <&-',
    "with a mask that closes files to all but their owner": 'umask 0077; exec "$@"',
    "below a folder of a long name": f'mkdir -p {"y" * 200}/{"z" * 200} && cd {"y" * 200}/{"z" * 200} && exec "$@"',
    "beside modules of Python's names": 'touch random.py queue.py numpy.py; exec "$@"',
    "beside a cvjobs.yaml that is a pipe": 'mkfifo cvjobs.yaml; exec "$@"',
    "beside a cvjobs.yaml that is a folder": 'mkdir cvjobs.yaml; exec "$@"',
    "beside a cvjobs.yaml that leads to itself": 'ln -s cvjobs.yaml cvjobs.yaml; exec "$@"',
    "beside a cvjobs.yaml of 3 MB": 'head -c 3000000 /dev/zero > cvjobs.yaml; exec "$@"',
}
# A user of whom this machine has no name. Python itself may be installed where only root may read.
UNNAMED = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
