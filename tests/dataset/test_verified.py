"""A run that has nothing to do says when the output was last verified: it does not read what earlier runs wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import embed, here, some

from cvjobs.dataset import verified
from cvjobs.storage.local_store import LocalStore

NEVER = "nothing to compute; `cvjobs verify`, which reads what earlier runs wrote, has not found this output exact"


@pytest.mark.slow
def test_a_night_with_nothing_to_do_says_when_the_output_was_verified(photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "photos", 3), tmp_path / "out"
    assert "verify" not in embed(source, out).err
    assert NEVER in embed(source, out).err
    assert here("verify", out).code == 0
    ended = embed(source, out)
    assert "nothing to compute; `cvjobs verify` last found it exact on 20" in ended.err
    assert "(snapshot 1)" in ended.err
    data = next((out / "data").iterdir())
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert here("verify", out).code == 1
    assert NEVER in embed(source, out).err


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"{}", b'{"version": 1, "at": 1e300}', b'{"version": "x", "at": 1}']
)
def test_a_damaged_note_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / verified.FILE
    file.parent.mkdir()
    file.write_bytes(content)
    assert "has not found" in verified.words(LocalStore(tmp_path))
    verified.note(LocalStore(tmp_path), 3)
    assert "last found it exact on" in verified.words(LocalStore(tmp_path))


def test_an_output_that_cannot_be_written_to(read_only: Path) -> None:
    verified.note(LocalStore(read_only), 1)
