"""Why an image has no result: the error codes, each with its remedy, and the record of one failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Code:
    """What an error code means: whether every run tries the image again, and what a user can do."""

    retryable: bool
    remedy: str


CODES: dict[str, Code] = {
    "list_permission": Code(True, "make the entry readable, then run again"),
    "list_vanished": Code(True, "the entry or link target does not exist: restore it or remove the entry"),
    "refused": Code(True, "a list may not lead there: see the detail, and remove the entry or correct the list"),
    "mask_missing": Code(True, "there is no mask of its name to train on: add one, or leave the image out"),
    "mask_bad": Code(True, "its mask is no PNG of class ids: write one, or leave the image out"),
    "mask_size": Code(True, "its mask has another size: make it again from this image"),
    "mask_values": Code(True, "its mask has values that are no class: correct it, or name all classes with --labels"),
    "read_permission": Code(True, "make the file readable, then run again"),
    "read_io": Code(True, "check the disk, share or server, then run again"),
    "read_vanished": Code(True, "the file went away during the run: run again"),
    "changed_during_run": Code(True, "the file changed while it was read: run again"),
    "too_large_file": Code(False, "the file is over 256 MiB: re-encode it"),
    "empty_file": Code(False, "the file has no bytes: replace it"),
    "not_an_image": Code(False, "the content is no image: remove or replace the file"),
    "unsupported_format": Code(False, "convert it to JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF"),
    "unsupported_mode": Code(False, "convert it to a PNG of 8 or 16 bits a channel"),
    "too_many_pixels": Code(False, "raise --max-pixels, or scale the image down"),
    "truncated": Code(False, "the file ends too early: copy it again"),
    "corrupt": Code(False, "the content is damaged: copy it again"),
    "decode_crash": Code(False, "the decoder died on this image: re-encode it"),
    "decode_timeout": Code(True, "decoding took over 10 s: re-encode it if it happens again"),
    "decode_memory": Code(False, "decoding needs over 3 GiB: scale the image down"),
    "infer_error": Code(False, "the model failed on this image alone: see the detail"),
    "infer_nonfinite": Code(False, "the model returned NaN or infinity: try --precision fp32"),
    "unwritable": Code(False, "the result does not fit into its column: see the detail"),
    "worker_crash": Code(True, "this image alone killed its worker twice: re-encode it"),
    "oom": Code(True, "memory ran out on this image alone: allow more of it, or use a smaller model"),
}


LONGEST = 500  # characters of a sentence


@dataclass(frozen=True)
class Failure:
    """Why one image has no result: the step that failed, a code of ``CODES`` and a sentence.

    The sentence is text that a column can hold, whatever was put into it.
    """

    stage: Literal["list", "read", "decode", "infer", "worker"]
    code: str
    detail: str
    attempts: int = 1

    def __post_init__(self) -> None:
        """Bring the sentence into its column's range."""
        object.__setattr__(self, "detail", sentence(self.detail))


def sentence(text: str) -> str:
    r"""Return text of at most ``LONGEST`` characters that UTF-8 has: what it has not is ``\udcff`` and the like."""
    return text[:LONGEST].encode("utf-8", "backslashreplace").decode()[:LONGEST]
