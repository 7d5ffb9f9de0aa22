"""Files on web servers: what is read is whole, and connections are used again."""

from __future__ import annotations

import pytest
from websites import Page, web

from cvjobs.storage import http
from cvjobs.storage.http import Web


def test_a_connection_is_used_again() -> None:
    page = Page(b"content")
    with web({"/a": page}) as site:
        client = Web({})
        for _ in range(3):
            assert client.look(f"{site}/a")[0] == 7
            assert client.read(f"{site}/a")[0] == b"content"
    assert len(page.asked) == 6
    assert len(set(page.peers)) == 1


def test_a_download_that_is_cut_off_is_no_file() -> None:
    with web({"/a": Page(b"x" * 1000, missing=400)}) as site, pytest.raises(OSError, match="IncompleteRead"):
        Web({}).read(f"{site}/a")


def test_what_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST", 10)
    page = Page(b"x" * 1000)
    with web({"/a": page}) as site:
        client = Web({})
        for _ in range(2):
            assert client.read(f"{site}/a")[0] == b"x" * 11
    assert len(set(page.peers)) == 2


@pytest.mark.parametrize("uri", ["http://[::1/a.jpg", "http://exa mple/a.jpg", "http:///a.jpg"])
def test_a_url_that_makes_no_sense_is_a_file_that_is_not_there(uri: str) -> None:
    for ask in (Web({}).look, Web({}).read):
        with pytest.raises(FileNotFoundError):
            ask(uri)
