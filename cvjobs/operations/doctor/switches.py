"""Environment switches that turn safety off in the libraries under cvjobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cvjobs.operations.doctor.finding import Finding

UNSAFE = {
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "torch then runs code that a weights file holds",
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "Ray then runs code that a Parquet file holds",
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR": "Ray then runs code that a Parquet file holds",
    "RAY_DATA_ARROW_EXTENSION_SERIALIZATION_CLOUDPICKLE": "Ray then writes Parquet files that hold code",
    "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION": "Ray then runs code that an archive holds",
}
_OFF = ("", "0", "false", "no", "off")


def check() -> Iterator[Finding]:
    """Look for each of them; one that is set to 0 is off."""
    found = [name for name in UNSAFE if os.environ.get(name, "").lower() not in _OFF]
    for name in found:
        yield Finding.broken("switches", f"{name} is set: {UNSAFE[name]}", f"Unset it: 'unset {name}'.")
    if not found:
        yield Finding.ok("switches", "no switch turns a safety off")
