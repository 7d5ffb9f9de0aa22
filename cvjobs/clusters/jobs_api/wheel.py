"""This cvjobs as a wheel, and the versions that it runs with here: what a machine needs to run the same."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from cvjobs.clusters.jobs_api.code import EPOCH, package
from cvjobs.common.errors import WrongUse

METADATA = ("METADATA", "PKG-INFO")  # as a wheel calls it, and as a checkout does
TAG = "Wheel-Version: 1.0\nGenerator: cvjobs\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build() -> tuple[str, bytes]:
    """Return the name and the bytes of a wheel of this cvjobs; raises WrongUse for one that is not installed."""
    about = _installed()
    with zipfile.ZipFile(io.BytesIO(package())) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    info = f"cvjobs-{about.version}.dist-info"
    metadata = next(filter(None, map(about.read_text, METADATA)))
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/entry_points.txt"] = (about.read_text("entry_points.txt") or "").encode()
    content[f"{info}/WHEEL"] = TAG.encode()
    rows = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items()]
    content[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return f"cvjobs-{about.version}-py3-none-any.whl", buffer.getvalue()


def constraints() -> str:
    """Return the versions of what cvjobs needs as they are here, for pip: all machines of a cluster get the same."""
    lines = []
    for requirement in _installed().requires or []:
        name = re.match(r"[\w.-]+", requirement)
        if name and "extra ==" not in requirement:
            try:
                lines.append(f"{name[0]}=={version(name[0]).partition('+')[0]}\n")
            except PackageNotFoundError:
                continue  # for another kind of machine
    return "".join(lines)


def _installed() -> Distribution:
    try:
        return distribution("cvjobs")
    except PackageNotFoundError:
        raise WrongUse(
            "This cvjobs is not installed, and a cluster needs its wheel: run 'pip install' on it."
        ) from None


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
