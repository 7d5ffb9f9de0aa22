"""The code that goes along to a cluster that does not have this version of cvjobs: what a wheel of it would hold."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cvjobs
from cvjobs.clusters.jobs_api.server import Server
from cvjobs.common.errors import JobFailed
from cvjobs.common.paths import SHIPPED, shipped
from cvjobs.config import commands

LABEL = "cvjobs"  # a machine of a cluster that was started with `--labels=cvjobs=VERSION` has that version installed
LARGEST = 20 << 20
SUFFIXES = frozenset({".py", ".pyi", ".csv", ".html", ".css", ".yaml", ".nft", ".typed"})
EPOCH = (1980, 1, 1, 0, 0, 0)


def runtime_env(server: Server) -> dict[str, Any]:
    """Return what a job needs to find this version of cvjobs: nothing where every machine says that it has it."""
    labels = server.labels()
    if labels and all(machine.get(LABEL) == cvjobs.__version__ for machine in labels):
        return {}
    content = package()
    name = f"gcs://_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip"
    server.offer(name, content)
    return {"py_modules": [name]}


def package() -> bytes:
    """Return a zip of the package ``cvjobs`` with its drivers and clusters: the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in sorted(dict(_files()).items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    if len(content) > LARGEST:
        raise JobFailed(f"The installed cvjobs has {len(content) >> 20} MB, too much to be sent: install it anew.")
    return content


def _files() -> Iterator[tuple[str, Path]]:
    yield from ((f"cvjobs/{SHIPPED['jobs']}/{name}.py", file) for name, file in commands.files().items())
    places = (shipped("cluster"), f"cvjobs/{SHIPPED['cluster']}")
    for folder, prefix in ((Path(cvjobs.__file__).parent, "cvjobs"), places):
        for file in folder.rglob("*"):
            inner = file.relative_to(folder)
            if file.suffix in SUFFIXES and file.is_file() and not any(part.startswith(".") for part in inner.parts):
                yield f"{prefix}/{inner}", file
