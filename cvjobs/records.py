"""The small records that flow between the modules: error codes, failures and the pixel transform."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Code:
    """What an error code means: whether every run tries the image again, and what a user can do."""

    retryable: bool
    remedy: str


CODES: dict[str, Code] = {
    "list_permission": Code(True, "make the entry readable, then run again"),
    "list_vanished": Code(True, "the entry or link target does not exist: restore it or remove the entry"),
    "read_permission": Code(True, "make the file readable, then run again"),
    "read_io": Code(True, "check the disk or share, then run again"),
    "read_vanished": Code(True, "the file went away during the run: run again"),
    "changed_during_run": Code(True, "the file changed while it was read: run again"),
    "too_large_file": Code(False, "the file is over 256 MiB: re-encode it"),
    "empty_file": Code(False, "the file has no bytes: replace it"),
    "not_an_image": Code(False, "the content is no image: remove or replace the file"),
    "unsupported_format": Code(False, "convert it to JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF"),
    "unsupported_mode": Code(False, "convert it to 8 or 16 bits a channel"),
    "too_many_pixels": Code(False, "raise --max-pixels, or scale the image down"),
    "truncated": Code(False, "the file ends too early: copy it again"),
    "corrupt": Code(False, "the content is damaged: copy it again"),
    "decode_crash": Code(False, "the decoder died on this image: re-encode it"),
    "decode_timeout": Code(True, "decoding took over 10 s: re-encode it if it happens again"),
    "decode_memory": Code(False, "decoding needs over 3 GiB: scale the image down"),
    "infer_error": Code(False, "the model failed on this image alone: see the detail"),
    "infer_nonfinite": Code(False, "the model returned NaN or infinity: try --precision fp32"),
    "worker_crash": Code(True, "this image alone killed its worker twice: re-encode it"),
    "oom": Code(True, "the model ran out of memory at batch size 1: use a smaller model or a larger device"),
}


@dataclass(frozen=True)
class Failure:
    """Why one image has no result: the step that failed, a code of ``CODES`` and a sentence."""

    stage: Literal["list", "read", "decode", "infer", "worker"]
    code: str
    detail: str
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How pixels reach a model: decoded upright RGB, resized, cropped, uint8 (height, width, 3).

    ``resize`` is the target of the shorter side in pixels (``fit="short"``), or, with ``fit="exact"``,
    the image is squashed to ``size``, or, with ``fit="native"``, it keeps its own size. ``size`` is (height, width)
    of the centre crop handed to the model, padded with black where the resized image is smaller; without one every
    image has a size of its own. ``mean`` and ``std`` are applied by the model, to values in 0..1.
    """

    size: tuple[int, int] | None = None
    resize: int = 0
    fit: Literal["short", "exact", "native"] = "short"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def load(cls, record: dict[str, Any]) -> Transform:
        """Return the transform that a JSON record (of ``facts``) describes."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record.items()}
        return cls(**values)

    @property
    def target(self) -> int:
        """The length in pixels that the shorter side is resized to (at most), by which a decoder may scale down.

        It is 0 for images that keep a size of their own: their pixels have a place in the result.
        """
        if self.size is None:
            return 0
        return self.resize if self.fit == "short" else max(self.size)


def digest(facts: dict[str, Any]) -> str:
    """Return the sha256 (hex) of a JSON-like dict, independent of key order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def facts(record: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(asdict(record)))  # type: ignore[no-any-return]
